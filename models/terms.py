"""Terms that models, attacks and suites share; importing them imports no torch."""

from __future__ import annotations

from typing import Literal, get_args

Domain = Literal["waveform", "spectrogram"]


DOMAINS: tuple[Domain, ...] = get_args(Domain)


Precision = Literal["fp32", "bf16"]
"""float32, or bfloat16 by PyTorch's autocast."""


WantedPrecision = Literal["auto", "fp32", "bf16"]
"""What a suite may say of a precision: ``auto`` is bf16 where the processor computes in it."""
