"""What models, two measures and a recogniser hear in a recording before and after it is protected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from advser.audio.files import resample
from advser.audio.pcm import SAMPLE_RATE, Samples, to_pcm
from advser.audio.recordings import SHORTEST, blocks, in_windows, opened
from advser.errors import MeasurementError, NotApplicableError
from advser.metrics.base import ClipMetric
from advser.metrics.intelligibility import STOI
from advser.metrics.quality import PESQ
from advser.protect.listeners import Party

Progress = Callable[[float], None]
"""Is told the share that is done, 0 to 1."""


@dataclass
class Protected:
    """What came of it, measured on the file that was written.

    Attributes:
        seconds: length of the recording.
        windows: how many windows were perturbed; the others are silent.
        before, after: model → how often it gave each answer, window by window.
        changed: model → windows that it reads otherwise than before.
        measured: metric → its values, a block each; blocks that it cannot measure are left out.
        snr: of the whole, dB; NaN if nothing was changed.
        transcripts: before and after, a text a block.
    """

    seconds: float
    windows: int
    before: dict[str, Counter[str]] = field(default_factory=dict)
    after: dict[str, Counter[str]] = field(default_factory=dict)
    changed: Counter[str] = field(default_factory=Counter)
    measured: dict[str, list[float]] = field(default_factory=dict)
    snr: float = float("nan")
    transcripts: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))

    @property
    def misled(self) -> list[str]:
        """The models that read a window otherwise than before."""
        return [name for name, windows in self.changed.items() if windows]


def listened(source: Path, into: Path, party: Party, perturbed: int, progress: Progress) -> Protected:
    """Hear both files, block by block.

    Args:
        source: the recording.
        into: as it was written.
        party: who listens.
        perturbed: how many windows were perturbed.
        progress: is told what share is done: the second half of all.

    Raises:
        InputError: if a file is unusable.
    """
    with opened(source) as original, opened(into) as hidden:
        told = Protected(original.frames / original.samplerate, perturbed)
        signal = noise = 0.0
        for (block, done), (other, _) in zip(blocks(original), blocks(hidden), strict=False):
            length = min(len(block), len(other))
            pair = [resample(one[:length].mean(axis=1), original.samplerate) for one in (block, other)]
            signal += float(np.sum(np.square(block[:length], dtype=np.float64)))
            noise += float(np.sum(np.square(other[:length] - block[:length], dtype=np.float64)))
            if len(pair[0]) >= SHORTEST * SAMPLE_RATE:
                _read(told, party, pair)
                _hear(told, party, pair)
            progress((1 + done) / 2)
    told.snr = float(10 * np.log10(signal / noise)) if noise and signal else float("nan")
    return told


def _read(told: Protected, party: Party, pair: Sequence[Samples]) -> None:
    """Have the models read the emotion of each window of a block, before and after."""
    for windows in zip(*map(in_windows, pair), strict=True):
        for listener in party.listeners:
            answers = [listener.answer(sound) for sound in windows]
            for heard, answer in zip((told.before, told.after), answers, strict=True):
                heard.setdefault(listener.title, Counter())[answer] += 1
            told.changed[listener.title] += answers[0] != answers[1]


def _hear(told: Protected, party: Party, pair: Sequence[Samples]) -> None:
    """Measure a block and write down what is said in it, before and after."""
    for metric in (PESQ(), STOI()):
        value = _value(metric, *pair)
        if value is not None:
            told.measured.setdefault(metric.title, []).append(value)
    if party.speech:
        engine = party.speech
        texts = engine.transcriber.transcribe([to_pcm(one) for one in pair], engine.language, engine.sentences)
        for heard_as, text in zip(told.transcripts, texts, strict=True):
            heard_as.append(text)


def _value(metric: ClipMetric, clean: Samples, judged: Samples) -> float | None:
    try:
        return metric.measure(clean, judged, SAMPLE_RATE)
    except (MeasurementError, NotApplicableError):
        return None
