"""The waveform attack of Wijayasingha 2019, whose gradient is a chain rule made by hand."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from scipy.signal import resample
from torch import Tensor
from torch.nn.functional import avg_pool1d

from advser.attacks.base import Attack
from advser.audio.clips import sound_mask
from advser.audio.pcm import SAMPLE_RATE
from advser.errors import AccessError
from advser.models.mel import MelFrontEnd
from advser.models.terms import Domain
from advser.plugins.parameters import budget, parameter
from advser.threat.target import Target

DELTA = 1e-3
"""δ of the source, which keeps the slope that is divided by from being 0."""


class ChainRule(Attack):
    """Steps of size α along the sign of what a hand-made chain rule takes for the gradient of the waveform.

    G (bands, frames) is the gradient of the loss with respect to the features, exact at each step, and 0 in frames that
    stem from no sound; from there to the waveform r the source writes its own rule, r₍ₖ₊₁₎ = r₍ₖ₎ + α · sign(g′), in
    two versions.

    ``published`` (the appendix): g′ⱼ = Σₗ G[l, j] · φₗⱼ / (Δr′ⱼ / Δt + δ) with φₗⱼ the modulus or the real part of
    r′ⱼ · exp(−2πi wₗ tⱼ), r′ⱼ the mean of the frame's window, wₗ the centre of the mel band in Hz, tⱼ = j · Δt, Δt the
    frame distance in s, Δr′ⱼ the difference to the frame after it, δ = 0.001. The source stretches g′ from frames to
    samples; here each frame acts at its own place, for the length of a frame distance, so that silence that is cut off
    and frames that are not seen get nothing, and copies of a frame add up: the reading that is kindest to the rule. It
    needs a model with a `MelFrontEnd`.

    ``coded``: r′ is the whole waveform, resampled by Fourier's method to as many points as there are frames; with
    D[a, b] = |r′_b · exp(2πi · b · f_a)| and q_b = 1 / (r′₍b₊₁₎ − r′_b + δ), g′ = Gᵀ(D q), resampled to the waveform's
    length. There b counts frames and f_a = 204 (a + 1) is whole, so that the exponential is 1 and every row of D is
    |r′|: g′ = c · Σₐ G[a, ·] with one number c for the clip. The last frame takes the difference before it, in both
    versions. It needs a model with a spectrogram.

    The rule does not hold. Its eq. 7 differentiates the short-time transform, an integral over the waveform, by its
    own variable: the transform is linear in r, and its Jacobian, window · exp(−iωn), has no factor r. Chaining through
    the scalar t by ∂r/∂t is not valid, and its quotient is singular where r has an extremum. The Jacobians of modulus,
    square, mel bank, logarithm, floor and normalisation are left out. What is left, in ``coded`` and with the modulus
    in ``published``, is one value a frame: a square wave at the frame rate, whose overall sign is close to random.
    Seen on 24 clips of EmoDB each: after one step of 0.004, the perturbation's cosine with the exact gradient has a
    mean size of .002 at most for either variant and phase, as that of `FrameNoise` has, which knows no model; that of
    FGSM is .51 (emodb-cnn) and .36 (cnn4).
    """

    citation: ClassVar[str] = "Wijayasingha: Hiding emotions in plain sight, 2019, appendix, and its code"
    domains: ClassVar[tuple[Domain, ...]] = ("waveform",)
    needs_spectrogram: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("scipy",)

    variant: Literal["published", "coded"] = parameter("coded", about="the rule of the appendix, or that of the code")
    phase: Literal["modulus", "real"] = parameter("modulus", about="φ of the published rule: modulus or real part")
    alpha: float = parameter(0.004, unit="full-scale", about="step size α", gt=0)
    steps: int = parameter(100, unit="steps", about="number of steps; 0 to 1000 in the source", ge=0)
    epsilon: float | None = budget(None, unit="full-scale", about="L∞ budget ε; none: no projection")

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Take the steps: one forward and one backward pass each."""
        perturbed, project = x, self.projection(x, target.domain)
        for _ in range(self.steps):
            # Where the slope is exactly −δ, the quotient is no number: no step is taken there.
            direction = self.gradient(target, perturbed, labels).nan_to_num().sign()
            perturbed = project(perturbed + self.alpha * direction)
        return perturbed

    @torch.no_grad()
    def gradient(self, target: Target, x: Tensor, labels: Tensor) -> Tensor:
        """Return g′ (B, T), what stands for the gradient of the loss with respect to waveforms ``x`` (B, T).

        Raises:
            AccessError: if the model lacks what the variant needs.
        """
        gradient = target.feature_gradient(x, labels)[1]
        return self._coded(target, x, gradient) if self.variant == "coded" else self._published(target, x, gradient)

    def _coded(self, target: Target, x: Tensor, gradient: Tensor) -> Tensor:
        frames = gradient.shape[2]
        found = torch.zeros_like(x)
        for row, length in enumerate(target.lengths.tolist()):
            r = _resampled(x[row, :length], frames)
            q = 1 / (_differences(r) + DELTA)
            found[row, :length] = _resampled((r.abs() * q).sum() * gradient[row].sum(0), length)
        return found

    def _published(self, target: Target, x: Tensor, gradient: Tensor) -> Tensor:
        frontend = target.frontend
        if not isinstance(frontend, MelFrontEnd):
            found = type(frontend).__name__
            raise AccessError(f"chain-rule, variant 'published': front end is '{found}', expected mel bands")
        window, hop = (round(length * SAMPLE_RATE / frontend.rate) for length in (frontend.n_fft, frontend.hop))
        distance = frontend.hop / frontend.rate
        places = frontend.positions(x, target.lengths).clamp_max(x.shape[1] - 1)
        r = _moving_sum(x, window).gather(1, places) / window
        if self.phase == "modulus":
            phi = r.abs()[:, None]
        else:
            times = torch.arange(places.shape[1], device=x.device, dtype=torch.float64) * distance
            phi = r[:, None] * (2 * torch.pi * frontend.centres[:, None] * times).cos().to(r)
        by_frame = (gradient * phi).sum(1) / (_differences(r) / distance + DELTA)
        impulses = torch.zeros_like(x).scatter_add(1, places, by_frame)
        return _moving_sum(impulses, hop) * sound_mask(target.lengths, x.shape[1])


def _resampled(values: Tensor, number: int) -> Tensor:
    return torch.from_numpy(resample(values.cpu().numpy(), number)).to(values)


def _differences(values: Tensor) -> Tensor:
    """Return (…, N) what each value lacks to the next; the last one as the one before it."""
    steps = values.diff()
    return torch.cat([steps, steps[..., -1:]], -1)


def _moving_sum(values: Tensor, width: int) -> Tensor:
    """Return the sums (B, T) of ``width`` values centred on each."""
    return avg_pool1d(values, width, stride=1, padding=width // 2)[:, : values.shape[1]] * width
