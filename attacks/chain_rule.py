"""The waveform attack of Wijayasingha 2019, whose gradient is a hand-derived chain rule."""

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
from advser.plugins.parameters import parameter
from advser.plugins.roles import budget, gradient_steps, step_size
from advser.threat.target import Target

DELTA = 1e-3
"""δ of the source, which keeps the denominator from being 0."""


class ChainRule(Attack):
    """Steps of size α along the sign of a hand-derived chain rule in place of the waveform's gradient.

    r₍ₖ₊₁₎ = r₍ₖ₎ + α · sign(g′), where r is the waveform. G (bands, frames) is the exact gradient of the loss with
    respect to the features at each step, and 0 in frames without sound. The source derives g′ from G in two variants.

    ``published`` (the appendix): g′ⱼ = Σₗ G[l, j] · φₗⱼ / (Δr′ⱼ / Δt + δ) with φₗⱼ the modulus or the real part of
    r′ⱼ · exp(−2πi wₗ tⱼ), r′ⱼ the mean of the frame's window, wₗ the centre of the mel band in Hz, tⱼ = j · Δt, Δt the
    frame distance in s, Δr′ⱼ the difference to the next frame, δ = 0.001. The source stretches g′ from frames to
    samples. Here each frame applies at its own position for one frame distance: trimmed silence and frames outside the
    model's input get 0, and copies of a frame add up. This is the interpretation most favourable to the rule. The
    variant needs a model with a `MelFrontEnd`.

    ``coded``: r′ is the whole waveform, resampled by Fourier's method to one point per frame. With
    D[a, b] = |r′_b · exp(2πi · b · f_a)| and q_b = 1 / (r′₍b₊₁₎ − r′_b + δ), g′ = Gᵀ(D q), resampled to the waveform's
    length. Here b counts frames and f_a = 204 (a + 1) is an integer, so the exponential is 1 and every row of D is
    |r′|: g′ = c · Σₐ G[a, ·] with a single number c per clip. In both variants the last frame uses the difference of
    the frame before it. The variant needs a model with a spectrogram.

    The rule is wrong. Its eq. 7 differentiates the short-time transform, an integral over the waveform, by its
    own variable: the transform is linear in r, and its Jacobian, window · exp(−iωn), has no factor r. Chaining through
    the scalar t by ∂r/∂t is not valid, and its quotient is singular where r has an extremum. The Jacobians of modulus,
    square, mel bank, logarithm, floor and normalisation are missing. In ``coded``, and in ``published`` with the
    modulus, the result is one value per frame: a square wave at the frame rate, whose overall sign is close to random.
    Measured on 24 clips of EmoDB per model, after one step of 0.004: the mean absolute cosine between perturbation and
    exact gradient is at most .002 for each variant and phase, like that of `FrameNoise`, which uses no model. For FGSM
    it is .51 (emodb-cnn) and .36 (cnn4).
    """

    citation: ClassVar[str] = "Wijayasingha: Hiding emotions in plain sight, 2019, appendix, and its code"
    domains: ClassVar[tuple[Domain, ...]] = ("waveform",)
    needs_spectrogram: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("scipy",)

    variant: Literal["published", "coded"] = parameter("coded", about="rule of the appendix or of the code")
    phase: Literal["modulus", "real"] = parameter("modulus", about="φ of the published variant: modulus or real part")
    alpha: float = step_size(0.004, unit="full-scale")
    steps: int = gradient_steps(100, about="number of steps; 0 to 1000 in the source", ge=0)
    epsilon: float | None = budget(None, unit="full-scale", about="L∞ budget ε; none: no projection")

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` after all steps; each takes one forward and one backward pass."""
        perturbed, project = x, self.projection(x, target.domain)
        for _ in range(self.steps):
            # Where the slope is exactly −δ, the quotient is not finite: the step is 0 there.
            direction = self.gradient(target, perturbed, labels).nan_to_num().sign()
            perturbed = project(perturbed + self.alpha * direction)
        return perturbed

    @torch.no_grad()
    def gradient(self, target: Target, x: Tensor, labels: Tensor) -> Tensor:
        """Return g′ (B, T), the rule's substitute for the gradient of the loss with respect to waveforms ``x`` (B, T).

        Raises:
            AccessError: if the model does not have the front end that the variant needs.
        """
        gradient = target.feature_gradient(x, labels)[1]
        return self._coded(target, x, gradient) if self.variant == "coded" else self._published(target, x, gradient)

    def _coded(self, target: Target, x: Tensor, gradient: Tensor) -> Tensor:
        frames = gradient.shape[2]
        substitute = torch.zeros_like(x)
        for row, length in enumerate(target.lengths.tolist()):
            r = _resampled(x[row, :length], frames)
            q = 1 / (_differences(r) + DELTA)
            substitute[row, :length] = _resampled((r.abs() * q).sum() * gradient[row].sum(0), length)
        return substitute

    def _published(self, target: Target, x: Tensor, gradient: Tensor) -> Tensor:
        frontend = target.frontend
        if not isinstance(frontend, MelFrontEnd):
            name = type(frontend).__name__
            raise AccessError(f"chain-rule, variant 'published': got the front end '{name}', expected a MelFrontEnd")
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
    """Return the difference (…, N) of each value to the next; the last difference is repeated."""
    steps = values.diff()
    return torch.cat([steps, steps[..., -1:]], -1)


def _moving_sum(values: Tensor, width: int) -> Tensor:
    """Return the sums (B, T) of ``width`` values centred on each."""
    return avg_pool1d(values, width, stride=1, padding=width // 2)[:, : values.shape[1]] * width
