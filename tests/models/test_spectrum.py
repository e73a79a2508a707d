"""The short-time spectrum and its magnitude equal PyTorch's own, with first and second derivatives."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from advser.models.spectrum import magnitude, short_time_spectrum


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(deadline=None, max_examples=60)
@given(size=st.integers(2, 40), hop=st.integers(1, 40), samples=st.integers(1, 150), seed=st.integers(0, 99))
def test_the_spectrum_and_its_gradient_are_those_of_stft(size: int, hop: int, samples: int, seed: int) -> None:
    sound, window = normal(2, samples, seed=seed).requires_grad_(), normal(size, seed=seed + 1)
    expected = torch.stft(sound, size, hop, window=window, pad_mode="constant", return_complex=True)
    spectrum = short_time_spectrum(sound, window, hop)
    torch.testing.assert_close(spectrum, expected, rtol=0, atol=0)
    direction = normal(*expected.shape, seed=seed + 2, dtype=torch.complex128)
    expected_gradient = torch.autograd.grad(expected, sound, direction)
    torch.testing.assert_close(torch.autograd.grad(spectrum, sound, direction), expected_gradient)


Power = Literal[1, 2]


@pytest.mark.parametrize("power", [1, 2])
def test_first_and_second_derivatives_are_exact(power: Power) -> None:
    window = torch.hann_window(9, dtype=torch.float64)

    def features(sound: Tensor) -> Tensor:
        return magnitude(short_time_spectrum(sound, window, 4), power)

    sound = normal(2, 23).requires_grad_()
    assert gradcheck(features, sound)
    assert gradgradcheck(features, sound)


@pytest.mark.parametrize("power", [1, 2])
def test_second_derivatives_are_finite_in_silence(power: Power) -> None:
    sound = torch.cat([normal(1, 40), torch.zeros(1, 40)], 1).requires_grad_()
    weight = normal(3, 5).requires_grad_()
    window = torch.hann_window(8, dtype=torch.float64)

    def penalty(features: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad((weight @ features).tanh().sum(), sound, create_graph=True)
        return gradient.square().sum()

    gradient = torch.autograd.grad(penalty(magnitude(short_time_spectrum(sound, window, 4), power)), weight)
    spectrum = torch.stft(sound, 8, 4, window=window, pad_mode="constant", return_complex=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(penalty(spectrum.abs() ** power), weight))


@pytest.mark.parametrize("power", [1, 2])
def test_magnitudes_are_those_of_abs_and_silence_has_no_gradient(power: Power) -> None:
    z = torch.cat([normal(5, dtype=torch.complex64), torch.zeros(2)]).requires_grad_()
    size = magnitude(z, power)
    torch.testing.assert_close(size, z.abs() ** power)
    (gradient,) = torch.autograd.grad(size.sum(), z)
    (expected,) = torch.autograd.grad((z.abs() ** power).sum(), z)
    torch.testing.assert_close(gradient, expected)
    assert gradient[5:].eq(0).all()
