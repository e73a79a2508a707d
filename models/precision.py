"""In which precision models compute, beside float32: bfloat16, by PyTorch's autocast, where the processor has it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from advser.models.terms import Precision, WantedPrecision


def settled(wanted: WantedPrecision, device: str) -> Precision:
    """Return what ``wanted`` comes to on the processor of ``device``."""
    if wanted != "auto":
        return wanted
    return "bf16" if computes_in_bf16(device) else "fp32"


def computes_in_bf16(device: str) -> bool:
    """Tell whether the processor of ``device`` computes in bfloat16 natively."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def pays(model: nn.Module) -> bool:
    """Tell whether a pass of ``model`` is quicker in bfloat16: it is more than a linear layer to some logits.

    Such a layer reads as much as it computes, and converting that takes longer than is saved: on the spectrogram that
    `cnn4` sees, a gradient takes 1.7 times as long for one clip, 1.2 times for 16.
    """
    own = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    return len(own) != 1 or not isinstance(own[0], nn.Linear)


def computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Have models compute in a precision; float32 leaves what is set around it."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
