"""Admission: mask, project, clip and round a perturbation, in this order. The harness judges the result."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from advser.audio.pcm import PCM_HIGHEST, PCM_LOWEST, PCM_STEP
from advser.models.terms import Domain
from advser.threat.budget import Budget


def admit(perturbed: Tensor, x: Tensor, mask: Tensor | None, domain: Domain, budget: Budget | None) -> Tensor:
    """Return a perturbation with ``x`` outside ``mask``, within the budget, and sound on [−1, 1].

    Args:
        perturbed: the attack's result, in the shape of ``x``.
        x: the clean inputs (B, …).
        mask: broadcasts to ``x``; false in padding; None: no padding.
        domain: whether ``x`` are waveforms or spectrograms.
        budget: the bound; None: no bound.
    """
    admitted = perturbed if mask is None else torch.where(mask, perturbed, x)
    admitted = admitted if budget is None else budget.project(admitted, x)
    return admitted.clamp(-1, 1) if domain == "waveform" else admitted


def round_within(perturbed: Tensor, original: Tensor, budget: Budget | None) -> Tensor:
    """Round to the 16-bit grid, within a budget around ``original``, which lies on the grid; both (B, T).

    Rounding to the nearest step alone may exceed an L∞ budget by half a step, and an L2 budget by half a step per
    sample.
    """
    wanted = (perturbed - original) / PCM_STEP
    steps = torch.round(wanted)
    if budget is not None and budget.norm == "linf":
        bound = np.floor(budget.epsilon / PCM_STEP + 1e-6)
        steps = steps.clamp(-bound, bound)
    elif budget is not None:
        steps = _shortened(steps, wanted, budget.bound(original).double() / PCM_STEP)
    return (original + steps * PCM_STEP).clamp(PCM_LOWEST * PCM_STEP, PCM_HIGHEST * PCM_STEP)


def _shortened(steps: Tensor, wanted: Tensor, bound: Tensor) -> Tensor:
    """Return whole steps (B, T); in clips whose L2 norm exceeds ``bound`` (B,), some are rounded towards 0.

    Steps with the largest remainder stay rounded up, as long as the norm is within the bound.
    """
    whole = wanted.double().trunc()
    up = steps.double() - whole
    order = (wanted - whole).abs().argsort(dim=1, descending=True, stable=True)
    # |w| + 1 in place of |w| adds 2 |w| + 1 to the squared norm.
    added = torch.where(up != 0, 2 * whole.abs() + 1, 0.0)
    squared = whole.square().sum(1, keepdim=True) + added.gather(1, order).cumsum(1)
    fits = torch.zeros_like(up, dtype=torch.bool).scatter(1, order, squared <= bound[:, None].square() * (1 + 1e-9))
    return (whole + torch.where(fits, up, 0.0)).to(steps)


def admissible(perturbed: Tensor, x: Tensor, mask: Tensor | None, domain: Domain, budget: Budget | None) -> Tensor:
    """Return `admit` of a perturbation, and waveforms on the 16-bit grid: what the harness stores and judges.

    The arguments are those of `admit`; waveforms ``x`` lie on the 16-bit grid.
    """
    admitted = admit(perturbed, x, mask, domain, budget)
    if domain == "spectrogram":
        return admitted
    return round_within(admitted, x, budget)
