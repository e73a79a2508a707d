"""The short-time spectrum and its magnitude, with gradients as cheap as the functions themselves.

PyTorch computes the gradient of a real Fourier transform by a complex transform of twice the length, and that of
overlapping frames sample by sample. With it, a forward and a backward pass of a mel front end take up to twice as long.
Second derivatives are supported; ``torch.func`` is not.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad


def short_time_spectrum(samples: Tensor, window: Tensor, hop: int) -> Tensor:
    """Return complex spectra (B, bins, N) of frames centred on every ``hop``-th of ``samples`` (B, T).

    Frames are as long as ``window`` (n,). There are n // 2 + 1 bins and N = 1 + (T − n mod 2) // ``hop`` frames. The
    sound is padded with zeros.
    """
    spectrum: Tensor = _ShortTime.apply(samples, window, hop)  # type: ignore[no-untyped-call]
    return spectrum


def magnitude(spectrum: Tensor, power: Literal[1, 2]) -> Tensor:
    """Return the magnitude of complex values to the power of 1 or 2, in the same shape; its gradient at 0 is 0.

    The range in float32 is 1e-19 to 1e19; smaller magnitudes count as 0.
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
        # The inverse counts each bin twice, for its positive and its negative frequency, except 0 and Nyquist.
        share = torch.full((size // 2 + 1,), 0.5, dtype=window.dtype, device=window.device)
        share[:: size // 2 if size % 2 == 0 else size] = 1.0
        frames = torch.fft.irfft(gradient.transpose(1, 2) * share, size, norm="forward") * window
        sound = _overlapped(frames, ctx.hop)
        missing = size // 2 + ctx.samples - sound.shape[1]
        return pad(sound, (-(size // 2), missing)), None, None


def _overlapped(frames: Tensor, hop: int) -> Tensor:
    """Return the overlap-add (B, T) of ``frames`` (B, N, n) at a distance of ``hop`` samples."""
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
        # Where the size is 0, z is 0 too. A division by 0 would make the second derivative NaN.
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
