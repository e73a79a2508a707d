"""Admission: what of a perturbation is judged. Mask, project, clip and round, in this order."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from advser.audio.pcm import PCM_HIGHEST, PCM_LOWEST, PCM_STEP
from advser.models.terms import Domain
from advser.threat.budget import Budget


def admit(perturbed: Tensor, x: Tensor, mask: Tensor | None, domain: Domain, budget: Budget | None) -> Tensor:
    """Return what is admitted of a perturbation: ``x`` outside ``mask``, within the budget, and sound on [−1, 1].

    Args:
        perturbed: what an attack returned, in the shape of ``x``.
        x: the clean inputs (B, …).
        mask: broadcasts to ``x``; false in padding; None: there is none.
        domain: what ``x`` is.
        budget: the bound; None: there is none.
    """
    admitted = perturbed if mask is None else torch.where(mask, perturbed, x)
    admitted = admitted if budget is None else budget.project(admitted, x)
    return admitted.clamp(-1, 1) if domain == "waveform" else admitted


def round_within(perturbed: Tensor, original: Tensor, budget: Budget | None) -> Tensor:
    """Round to the 16-bit grid, within a budget around ``original``, which lies on the grid already; both (B, T).

    Rounding to the nearest step alone could leave an L∞ budget by half a step, and one in L2 by half a step a sample.
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
    """Return whole steps (B, T), in clips whose L2 norm is above ``bound`` (B,) with some of them rounded towards 0.

    Rounded up stay those that were wanted most, by their remainder, as long as the norm is within the bound.
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
    """Return what is judged of a perturbation: what `admit` admits, and of sound what 16-bit PCM leaves.

    The arguments are those of `advser.threat.admission.admit`; waveforms ``x`` lie on the 16-bit grid.
    """
    admitted = admit(perturbed, x, mask, domain, budget)
    if domain == "spectrogram":
        return admitted
    return round_within(admitted, x, budget)
