"""The convolution block of small networks."""

from __future__ import annotations

from torch import nn


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Return convolution 3×3 of stride 2, batch normalisation and ReLU: halves height and width."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
