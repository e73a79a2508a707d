"""torchaudio works beside any build of torch, with gradients, in a fresh process."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import torch
from advser.audio.torchaudio import functional, transforms

x = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)).requires_grad_()
mel = transforms.MelSpectrogram(16000, n_fft=400, hop_length=160, n_mels=20)(x)
assert mel.shape == (2, 20, 26), mel.shape
(gradient,) = torch.autograd.grad(mel.add(1e-6).log().sum(), x)
assert gradient.isfinite().all() and gradient.abs().sum() > 0

half = functional.resample(x, 16000, 8000)
assert half.shape == (2, 2000), half.shape
(gradient,) = torch.autograd.grad(half.square().sum(), x)
assert gradient.isfinite().all() and gradient.abs().sum() > 0

import torchaudio
assert torchaudio.transforms is transforms
"""


def test_gradients_flow_through_torchaudio_in_a_fresh_process() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
