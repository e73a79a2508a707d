"""Findings, and a few clips, for the contracts of all kinds of plugins."""

from __future__ import annotations

from collections.abc import Mapping
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
"""Clips on which a plugin is checked."""


@dataclass(frozen=True)
class Finding:
    """Whether a plugin keeps one part of its contract.

    Attributes:
        part: the requirement, in a few words.
        wrong: the violation, or an empty text.
        note: a remark for the author, such as why the requirement was not checked.
    """

    part: str
    wrong: str = ""
    note: str = ""


@dataclass(frozen=True)
class Clips:
    """A few clips of the demo corpus: waveforms (B, T), lengths (B,), classes (B,), and the number of classes."""

    waveform: Tensor
    lengths: Tensor
    labels: Tensor
    classes: int


def clips() -> Clips:
    """Return the first clips of the demo corpus."""
    rows, sound, classes = decode(build(CORPORA.get("demo"), {}, "corpus 'demo'").read(None), "emotion", None)
    waveform, lengths = Packed.pack(islice(sound, CLIPS)).batch(range(CLIPS))
    return Clips(waveform, lengths, torch.tensor(rows["target"].to_numpy()[:CLIPS]), len(classes))


def small_model(batch: Clips) -> EmotionModel:
    """Return an untrained `tiny` whose front end has the statistics of the clips."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.get("tiny")(batch.classes)
    model.frontend.fit(iter([(batch.waveform, batch.lengths)]))
    return model


def copied_state(model: EmotionModel) -> dict[str, Tensor]:
    """Return a copy of all weights and buffers."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def state_finding(model: EmotionModel, before: Mapping[str, Tensor], part: str) -> Finding:
    """Return a finding about weights and buffers that changed since `copied_state`."""
    changed = [name for name, value in copied_state(model).items() if not torch.equal(value, before[name])]
    return Finding(part, f"changed: {', '.join(changed)}" if changed else "")


def difference(first: Tensor, second: Tensor) -> str:
    """Return in words how two tensors differ, or an empty text if they are equal."""
    if first.shape != second.shape:
        return f"shapes {tuple(first.shape)} and {tuple(second.shape)} differ"
    largest = float((first.detach().double() - second.detach().double()).abs().max())
    return f"values differ by up to {largest:.2g}" if largest > 0 else ""
