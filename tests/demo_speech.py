"""Clips of the demo corpus as batches."""

from __future__ import annotations

import soundfile
import torch
from places import DEMO
from torch import Tensor, nn

EMOTIONS = ("anger", "happiness", "neutral", "sadness")


def speech(*patterns: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return clips of the demo corpus: waveforms (B, T), lengths (B,), labels (B,)."""
    files = sorted(file for pattern in patterns for file in DEMO.glob(pattern))
    clips = [torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files]
    labels = torch.tensor([EMOTIONS.index(file.stem.split("_")[1]) for file in files])
    lengths = torch.tensor([len(clip) for clip in clips])
    return nn.utils.rnn.pad_sequence(clips, batch_first=True), lengths, labels
