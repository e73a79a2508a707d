"""The short-time spectrum and its magnitude against PyTorch's own, forwards, backwards and twice backwards."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from advser.models.spectrum import magnitude, short_time_spectrum


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(deadline=None, max_examples=60)
@given(size=st.integers(2, 40), hop=st.integers(1, 40), samples=st.integers(1, 150), seed=st.integers(0, 99))
def test_the_spectrum_and_its_gradient_are_those_of_stft(size: int, hop: int, samples: int, seed: int) -> None:
    sound, window = drawn(2, samples, seed=seed).requires_grad_(), drawn(size, seed=seed + 1)
    expected = torch.stft(sound, size, hop, window=window, pad_mode="constant", return_complex=True)
    found = short_time_spectrum(sound, window, hop)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    direction = drawn(*expected.shape, seed=seed + 2, dtype=torch.complex128)
    (wanted,) = torch.autograd.grad(expected, sound, direction)
    torch.testing.assert_close(torch.autograd.grad(found, sound, direction), (wanted,))


@pytest.mark.parametrize("power", [1, 2])
def test_gradients_are_true_and_can_be_taken_twice(power: int) -> None:
    window = torch.hann_window(9, dtype=torch.float64)

    def features(sound: Tensor) -> Tensor:
        return magnitude(short_time_spectrum(sound, window, 4), power)  # type: ignore[arg-type]

    sound = drawn(2, 23).requires_grad_()
    assert gradcheck(features, sound)
    assert gradgradcheck(features, sound)


@pytest.mark.parametrize("power", [1, 2])
def test_magnitudes_are_those_of_abs_and_silence_has_no_gradient(power: int) -> None:
    z = torch.cat([drawn(5, dtype=torch.complex64), torch.zeros(2)]).requires_grad_()
    found = magnitude(z, power)  # type: ignore[arg-type]
    torch.testing.assert_close(found, z.abs() ** power)
    (gradient,) = torch.autograd.grad(found.sum(), z)
    (expected,) = torch.autograd.grad((z.abs() ** power).sum(), z)
    torch.testing.assert_close(gradient, expected)
    assert gradient[5:].eq(0).all()
