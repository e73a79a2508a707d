"""Helpers for tests of networks: small models, and counts of layers and parameters."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from advser.models.base import EmotionModel


def network(kind: type[EmotionModel], classes: int = 3, **params: object) -> EmotionModel:
    """Return a small model with weights from a fixed seed, in evaluation mode."""
    torch.manual_seed(0)
    return kind(classes, **params).eval()  # type: ignore[call-arg]


def parameter_count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def layer_counts(model: nn.Module) -> Counter[str]:
    return Counter(type(module).__name__ for module in model.modules() if not list(module.children()))


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]
