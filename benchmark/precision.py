"""In which precision models compute, beside float32: bfloat16, by PyTorch's autocast, where the processor has it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from advser.training import Precision, Wanted


def settled(wanted: Wanted, device: str) -> Precision:
    """Return what ``wanted`` comes to on the processor of ``device``."""
    if wanted != "auto":
        return wanted
    return "bf16" if bf16_pays(device) else "fp32"


def bf16_pays(device: str) -> bool:
    """Tell whether the processor of ``device`` computes in bfloat16 natively."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Have models compute in a precision; float32 leaves what is set around it."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
