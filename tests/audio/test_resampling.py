"""Resampling: rates without a common divisor cost as little as others, and give the same values."""

from __future__ import annotations

import resource
from time import process_time

import numpy as np
import pytest
import torch

from advser.audio import resampling
from advser.audio.files import resample as resample_array
from advser.audio.pcm import SAMPLE_RATE
from advser.audio.resampling import resample
from advser.audio.torchaudio import functional
from advser.defenses.processing import Resampling

COPRIME = [(44_101, SAMPLE_RATE), (16_001, SAMPLE_RATE), (11_127, SAMPLE_RATE), (SAMPLE_RATE, 44_101), (192_001, 7_999)]


@pytest.mark.parametrize(("source", "target"), COPRIME)
def test_coprime_rates_take_little_time_and_memory(source, target):
    sound = np.sin(2 * np.pi * 440 * np.arange(2 * source) / source).astype(np.float32)
    start, before = process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resampled = resample_array(sound, source, target)
    assert process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
    assert len(resampled) == 2 * target
    expected = np.sin(2 * np.pi * 440 * np.arange(2 * target) / target)
    middle = slice(target // 10, -target // 10)
    assert np.abs(resampled - expected)[middle].max() < 2e-3


@pytest.mark.parametrize(("source", "target"), [(44_100, 16_000), (8_000, 16_000), (16_000, 11_025), (521, 160)])
@pytest.mark.parametrize("shape", [(3000,), (2, 1001), (1, 2, 7), (3, 1)])
def test_both_ways_give_the_same_values(source, target, shape, monkeypatch):
    sound = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = functional.resample(sound, source, target)
    assert torch.equal(resample(sound, source, target), expected)
    monkeypatch.setattr(resampling, "LARGEST", 0)
    for block in (resampling._BLOCK, 300):
        monkeypatch.setattr(resampling, "_BLOCK", block)
        # torchaudio computes the positions of its filters in float32.
        assert torch.allclose(resample(sound, source, target), expected, atol=1e-4)


def test_the_defense_is_exact_in_its_gradient_at_a_coprime_rate():
    waveform = torch.randn(2, 400, generator=torch.Generator().manual_seed(0)).requires_grad_()
    lengths, direction = torch.tensor([400, 300]), torch.ones(2, 400)
    processed = Resampling(rate=7_999).process(waveform, lengths)
    assert processed.shape == waveform.shape
    (gradient,) = torch.autograd.grad((processed * direction).sum(), waveform)
    # A linear map: f(x) · d = x · ∇.
    assert (waveform * gradient).sum().item() == pytest.approx((processed * direction).sum().item(), abs=1e-3)
    near = Resampling(rate=8_000).process(waveform, lengths)
    assert torch.allclose(processed, near, atol=0.05)
