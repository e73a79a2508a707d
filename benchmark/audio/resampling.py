"""Resampling by a windowed sinc whose time and memory do not depend on the common divisor of the two rates."""

from __future__ import annotations

from math import ceil, gcd
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from advser.audio.torchaudio import functional

ZEROS: Final = 6
"""Zero crossings of the sinc on each side, torchaudio's default."""

ROLLOFF: Final = 0.99
"""Cut-off relative to half the lower rate, torchaudio's default."""

LARGEST: Final = 1 << 20
"""Values of torchaudio's kernel above which filters are computed point by point. 44,100 → 16,000 Hz has 0.1 M."""

_BLOCK: Final = 1 << 22
"""Products that exist at once."""


def resample(waveform: Tensor, source: int, target: int) -> Tensor:
    """Resample ``waveform`` (..., T) from ``source`` to ``target`` Hz; gradients flow through it.

    The result has ⌈T · target / source⌉ samples. torchaudio computes one filter for each of target / gcd positions,
    each as long as source / gcd samples and mostly zeros: 12 GB from 44,101 to 16,000 Hz. Here such rates cost as much
    as others, and give the same values up to rounding.
    """
    if source == target:
        return waveform
    divisor = gcd(source, target)
    source, target = source // divisor, target // divisor
    base = min(source, target) * ROLLOFF
    width = ceil(ZEROS * source / base)
    if target * (2 * width + source) <= LARGEST:
        resampled: Tensor = functional.resample(waveform, source, target)
        return resampled
    rows = waveform.reshape(-1, waveform.shape[-1])
    points = -(-rows.shape[-1] * target // source)
    padded = pad(rows, (width, width + 1))
    taps = torch.arange(2 * width + 2, device=waveform.device)
    size = max(1, _BLOCK // (len(taps) * max(1, len(rows))))
    parts = [
        _part(padded, torch.arange(first, min(first + size, points), device=waveform.device), taps, source, target)
        for first in range(0, points, size)
    ]
    return torch.cat([*parts, rows[:, :0]], 1).reshape(*waveform.shape[:-1], points)


def _part(padded: Tensor, points: Tensor, taps: Tensor, source: int, target: int) -> Tensor:
    """Return the samples (B, P) at ``points`` (P,), of rows (B, T) that are padded by half the ``taps``."""
    base = min(source, target) * ROLLOFF
    whole, rest = points * source // target, points * source % target
    # Offset of each tap from its point, in source samples; integers keep it exact in long recordings.
    offset = (taps - (len(taps) - 2) // 2) - rest[:, None].double() / target
    time = (offset * base / source).clamp(-ZEROS, ZEROS)
    kernel = torch.sinc(time) * torch.cos(time * torch.pi / ZEROS / 2).square() * base / source
    return (padded[:, whole[:, None] + taps] * kernel.to(padded.dtype)).sum(-1)
