"""The precision of models' computations: float32, or bfloat16 by PyTorch's autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from advser.models.terms import Precision, WantedPrecision


def settled(wanted: WantedPrecision, device: str) -> Precision:
    """Return the precision that ``wanted`` selects on the processor of ``device``."""
    if wanted != "auto":
        return wanted
    return "bf16" if computes_in_bf16(device) else "fp32"


def computes_in_bf16(device: str) -> bool:
    """Return whether the processor of ``device`` computes in bfloat16 natively."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def is_faster_in_bf16(model: nn.Module) -> bool:
    """Return whether a pass of ``model`` is faster in bfloat16: unless its only weights are those of a linear layer.

    A linear layer reads as much as it computes, so that the conversion costs more than it saves. On the spectrogram of
    `cnn4` a gradient takes 1.7 times as long for one clip, and 1.2 times for 16.
    """
    own = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    return len(own) != 1 or not isinstance(own[0], nn.Linear)


def computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which models compute in ``precision``; fp32 does not change the surrounding autocast."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
