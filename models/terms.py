"""Terms that models, attacks and suites share; importing them does not import torch."""

from __future__ import annotations

from typing import Literal, get_args

Domain = Literal["waveform", "spectrogram"]


DOMAINS: tuple[Domain, ...] = get_args(Domain)


Precision = Literal["fp32", "bf16"]
"""float32, or bfloat16 by PyTorch's autocast."""


WantedPrecision = Literal["auto", "fp32", "bf16"]
"""A suite's value for a precision: ``auto`` is bf16 if the processor supports it natively, else fp32."""
