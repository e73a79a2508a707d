"""What the contracts of all kinds of plugins share: findings, and a few clips to try a plugin on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Final

import torch
from torch import Tensor

from advser.audio.clips import Clips as Packed
from advser.corpora.decode import decode
from advser.models.base import EmotionModel
from advser.plugins.parameters import build
from advser.plugins.registries import CORPORA, MODELS

CLIPS: Final = 6
"""Clips that a plugin is tried on."""


@dataclass(frozen=True)
class Finding:
    """Whether a plugin keeps one part of its contract.

    Attributes:
        part: what is asked of it, in a few words.
        wrong: what is wrong, or an empty text.
        note: what its author should know though nothing is wrong, such as why the question was not asked.
    """

    part: str
    wrong: str = ""
    note: str = ""


@dataclass(frozen=True)
class Clips:
    """A few clips of the demo corpus: waveforms (B, T), lengths (B,), classes (B,), and how many classes there are."""

    waveform: Tensor
    lengths: Tensor
    labels: Tensor
    classes: int


def clips() -> Clips:
    """Return the first clips of the embedded corpus."""
    rows, sound, classes = decode(build(CORPORA.get("demo"), {}, "corpus 'demo'").read(None), "emotion", None)
    waveform, lengths = Packed.pack(islice(sound, CLIPS)).batch(range(CLIPS))
    return Clips(waveform, lengths, torch.tensor(rows["target"].to_numpy()[:CLIPS]), len(classes))


def small_model(some: Clips) -> EmotionModel:
    """Return an untrained `tiny` whose front end has the statistics of the clips."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = MODELS.get("tiny")(some.classes)
    made.frontend.fit(iter([(some.waveform, some.lengths)]))
    return made


def copied_state(made: EmotionModel) -> dict[str, Tensor]:
    """Return a copy of all weights and buffers."""
    return {name: value.clone() for name, value in made.state_dict().items()}


def difference(one: Tensor, other: Tensor) -> str:
    """Return in words how two tensors differ; empty if they do not."""
    if one.shape != other.shape:
        return f"shapes {tuple(one.shape)} and {tuple(other.shape)}"
    far = float((one.detach().double() - other.detach().double()).abs().max())
    return f"differ by {far:.2g}" if far > 0 else ""
