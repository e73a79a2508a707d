"""The mel front ends, and clips for their tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import soundfile
import torch
from places import DEMO
from torch import Tensor
from torch.nn.functional import pad

from advser.models.frontends import DecibelMel, LogMel
from advser.models.mel import MelFrontEnd

Make = Callable[[], MelFrontEnd]
FRONT_ENDS: dict[str, Make] = {"log-mel": lambda: LogMel(96), "decibel-mel": DecibelMel}

every_front_end = pytest.mark.parametrize("make", FRONT_ENDS.values(), ids=FRONT_ENDS)


def collate(clips: list[Tensor], spare: int = 0) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(clip) for clip in clips])
    room = int(lengths.max()) + spare
    return torch.stack([pad(clip, (0, room - len(clip))) for clip in clips]), lengths


def speech_clips() -> list[Tensor]:
    names = ("m1_anger_1", "f1_sadness_2", "f3_neutral_3", "m2_happiness_4")
    return [torch.from_numpy(soundfile.read(DEMO / f"{name}.flac", dtype="float32")[0]) for name in names]


def fitted(make: Make, clips: list[Tensor]) -> MelFrontEnd:
    frontend = make().eval()
    frontend.fit([collate(clips)])
    return frontend


def sawtooth(samples: int, noise: float = 0.003) -> Tensor:
    """Return a voice-like tone with faint noise (T,), float64."""
    time = torch.arange(samples, dtype=torch.float64) / 16000
    generator = torch.Generator().manual_seed(3)
    tone = 0.3 * torch.remainder(130 * time + 2 * torch.sin(3 * time), 1) - 0.15
    return tone + noise * torch.randn(samples, dtype=torch.float64, generator=generator)
