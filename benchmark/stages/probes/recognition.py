"""Probes of recognition: does a model classify the sound, or does it recognise the files of the test clips?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import torch

from advser.attacks.controls import random_signs
from advser.audio.clips import sound_mask
from advser.audio.pcm import PCM_STEP
from advser.models.base import EmotionModel
from advser.stages.probes.batch import Batch

CUT: Final = 400
"""One of this many parts is cut off a clip: 5 ms of two seconds, which change no word."""


def _with_noise(batch: Batch, generator: torch.Generator) -> Batch:
    x = batch.waveform
    noise = PCM_STEP * random_signs(tuple(x.shape), x, generator)
    return replace(batch, waveform=(x + noise) * sound_mask(batch.lengths, x.shape[1]))


def _quieter(batch: Batch, generator: torch.Generator) -> Batch:
    return replace(batch, waveform=0.99 * batch.waveform)


def _with_its_end_cut(batch: Batch, generator: torch.Generator) -> Batch:
    lengths = batch.lengths - (batch.lengths // CUT).clamp_min(1)
    mask = sound_mask(lengths, batch.waveform.shape[1])
    return replace(batch, waveform=batch.waveform * mask, lengths=lengths)


CHANGES: Final[dict[str, Callable[[Batch, torch.Generator], Batch]]] = {
    "noise of one step of 16-bit PCM": _with_noise,
    "1 % less volume": _quieter,
    "the last 5 ms of two seconds cut off": _with_its_end_cut,
}
"""Changes that are inaudible."""


def effect_of_inaudible_changes(
    model: EmotionModel, batches: Iterable[Batch], generator: torch.Generator
) -> dict[str, tuple[int, int]]:
    """Return, for each of `CHANGES`, how many clips it makes misclassified, and how many correctly classified.

    A model that classifies the sound loses about as many clips as it gains.
    """
    effects = dict.fromkeys(CHANGES, (0, 0))
    for batch in batches:
        correct = batch.correct(model)
        for name, change in CHANGES.items():
            still = change(batch, generator).correct(model)
            lost, gained = effects[name]
            effects[name] = lost + int((correct & ~still).sum()), gained + int((still & ~correct).sum())
    return effects
