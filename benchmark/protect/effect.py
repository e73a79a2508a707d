"""The effect of protecting a recording on emotion models, quality measures and a speech recogniser."""

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
from advser.protect.listeners import Listeners

Progress = Callable[[float], None]
"""Receives the finished share, 0 to 1."""


@dataclass
class Effect:
    """The effect of a perturbation, measured on the written file.

    Attributes:
        seconds: length of the recording.
        windows: number of perturbed windows; the others are silent.
        before, after: model → how often it gave each answer, window by window.
        changed: model → number of windows that it classifies differently than before.
        measured: metric → its value for each block; blocks that it cannot measure are left out.
        snr: of the whole recording, dB; NaN if nothing changed.
        transcripts: before and after, a text per block.
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
        """The models that classify a window differently than before."""
        return [name for name, windows in self.changed.items() if windows]


def measure_effect(source: Path, into: Path, listeners: Listeners, perturbed: int, progress: Progress) -> Effect:
    """Compare a recording with its protected version, block by block.

    Args:
        source: the recording.
        into: the protected recording, as written.
        listeners: models and recogniser to run on both.
        perturbed: number of perturbed windows.
        progress: receives the finished share of the whole task, of which this is the second half.

    Raises:
        InputError: if a file is unusable.
    """
    with opened(source) as original, opened(into) as hidden:
        effect = Effect(original.frames / original.samplerate, perturbed)
        signal = noise = 0.0
        for (block, done), (protected, _) in zip(blocks(original), blocks(hidden), strict=False):
            length = min(len(block), len(protected))
            pair = [resample(sound[:length].mean(axis=1), original.samplerate) for sound in (block, protected)]
            signal += float(np.sum(np.square(block[:length], dtype=np.float64)))
            noise += float(np.sum(np.square(protected[:length] - block[:length], dtype=np.float64)))
            if len(pair[0]) >= SHORTEST * SAMPLE_RATE:
                _classify(effect, listeners, pair)
                _measure(effect, pair)
                _transcribe(effect, listeners, pair)
            progress((1 + done) / 2)
    effect.snr = float(10 * np.log10(signal / noise)) if noise and signal else float("nan")
    return effect


def _classify(effect: Effect, listeners: Listeners, pair: Sequence[Samples]) -> None:
    """Classify each window of a block before and after."""
    for windows in zip(*map(in_windows, pair), strict=True):
        for listener in listeners.models:
            before, after = (listener.answer(sound) for sound in windows)
            for counts, answer in ((effect.before, before), (effect.after, after)):
                counts.setdefault(listener.title, Counter())[answer] += 1
            effect.changed[listener.title] += before != after


def _measure(effect: Effect, pair: Sequence[Samples]) -> None:
    """Measure the quality and intelligibility of a block."""
    for metric in (PESQ(), STOI()):
        value = _value(metric, *pair)
        if value is not None:
            effect.measured.setdefault(metric.title, []).append(value)


def _transcribe(effect: Effect, listeners: Listeners, pair: Sequence[Samples]) -> None:
    """Transcribe a block before and after."""
    if listeners.speech:
        engine = listeners.speech
        texts = engine.transcriber.transcribe([to_pcm(sound) for sound in pair], engine.language, engine.sentences)
        for transcripts, text in zip(effect.transcripts, texts, strict=True):
            transcripts.append(text)


def _value(metric: ClipMetric, clean: Samples, judged: Samples) -> float | None:
    try:
        return metric.measure(clean, judged, SAMPLE_RATE)
    except (MeasurementError, NotApplicableError):
        return None
