"""The short-time spectrum and its magnitude, with gradients that cost as much as they themselves do.

PyTorch takes the gradient of a real Fourier transform by a complex one of twice the length, and that of overlapping
frames sample by sample: a forward and a backward pass of a mel front end take up to twice as long by it. Gradients can
be taken of gradients; ``torch.func`` does not know these functions.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad


def short_time_spectrum(samples: Tensor, window: Tensor, hop: int) -> Tensor:
    """Return spectra (B, bins, N), complex, of frames centred on every ``hop``-th of ``samples`` (B, T).

    Frames are as long as ``window`` (n,), bins n // 2 + 1, N is 1 + (T − n mod 2) // ``hop``; beyond its ends sound is
    silent.
    """
    spectrum: Tensor = _ShortTime.apply(samples, window, hop)  # type: ignore[no-untyped-call]
    return spectrum


def magnitude(spectrum: Tensor, power: Literal[1, 2]) -> Tensor:
    """Return the magnitude of complex values, to the power of 1 or 2, in their shape; at 0 its gradient is 0.

    In float32 magnitudes are told from 1e-19 to 1e19; what is below counts as 0.
    """
    size: Tensor = (_Magnitude if power == 1 else _Power).apply(spectrum)  # type: ignore[no-untyped-call]
    return size


class _ShortTime(torch.autograd.Function):
    """The short-time Fourier transform, and its adjoint."""

    @staticmethod
    def forward(ctx: Any, samples: Tensor, window: Tensor, hop: int) -> Tensor:
        ctx.save_for_backward(window)
        ctx.hop, ctx.samples = hop, samples.shape[1]
        return torch.stft(samples, len(window), hop, window=window, pad_mode="constant", return_complex=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (window,) = ctx.saved_tensors
        size = len(window)
        # The inverse takes every bin for two, of positive and of negative frequency, but those that are their own.
        share = torch.full((size // 2 + 1,), 0.5, dtype=window.dtype, device=window.device)
        share[:: size // 2 if size % 2 == 0 else size] = 1.0
        frames = torch.fft.irfft(gradient.transpose(1, 2) * share, size, norm="forward") * window
        sound = _overlapped(frames, ctx.hop)
        missing = size // 2 + ctx.samples - sound.shape[1]
        return pad(sound, (-(size // 2), missing)), None, None


def _overlapped(frames: Tensor, hop: int) -> Tensor:
    """Return the sum (B, T) of ``frames`` (B, N, n), each ``hop`` samples after the one before it."""
    count, size = frames.shape[1:]
    parts = -(-size // hop)
    blocks = pad(frames, (0, parts * hop - size)).view(len(frames), count, parts, hop)
    sound = frames.new_zeros(len(frames), count + parts - 1, hop)
    for part in range(parts):
        sound[:, part : part + count] += blocks[:, :, part]
    return sound.flatten(1)


class _Magnitude(torch.autograd.Function):
    """|z|."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        size = _squared(z).sqrt_()
        ctx.save_for_backward(z, size)
        return size

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        z, size = ctx.saved_tensors
        # Where it is 0, so is z; a quotient of 0 would make the gradient's own gradient no number.
        direction: Tensor = z * (gradient / torch.where(size > 0, size, 1.0))
        return direction


class _Power(torch.autograd.Function):
    """|z|²."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return _squared(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        rise: Tensor = z * (2 * gradient)
        return rise


def _squared(z: Tensor) -> Tensor:
    return z.real.square().addcmul_(z.imag, z.imag)
