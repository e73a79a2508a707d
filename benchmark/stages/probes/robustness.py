"""Probes of a model's robustness by short attacks."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from advser.attacks.square import Square
from advser.audio.clips import sound_mask
from advser.models.base import EmotionModel
from advser.stages.probes.batch import Batch
from advser.threat.admission import admit
from advser.threat.budget import Budget

STEPS: Final = 10
"""Steps that are doubled."""

HUGE: Final = (0.5, 0.1, 0.02)
"""Budgets ε, of which the first allows a perturbation louder than nearly all speech. One must mislead every clip."""


QUERIES: Final = 100
"""Forward passes of the short Square attack, for each clip."""


def least_robust(model: EmotionModel, batch: Batch, start: Tensor) -> float:
    """Return the share of clips that stay robust to iterative FGSM at every budget of `HUGE`, and every step size.

    A larger budget contains every smaller one, but an attack of few large steps may miss what a smaller one reaches.
    """
    share = 1.0
    for epsilon in HUGE:
        share = min(share, _share(_robust(model, batch, start, epsilon)))
        if not share:
            break
    return share


def robust_share(model: EmotionModel, batch: Batch, start: Tensor, epsilon: float, steps: int) -> float:
    """Return the share of clips that stay robust to iterative FGSM on the margin.

    The attack starts at ``start`` (B, T), near the clips.
    """
    return _share(_robust_to_steps(model, batch, start, epsilon, steps))


def advantage_of_scores(model: EmotionModel, batch: Batch, start: Tensor, generator: torch.Generator) -> int:
    """Return the number of clips that scores alone mislead and gradients do not, less those of the opposite.

    Scores: Square attack with `QUERIES` forward passes. Gradients: iterative FGSM, of both step sizes. The budget is
    the smallest of `HUGE`, within which gradients mislead nearly every clip of an honest model. Where they mislead all,
    scores have no advantage: 0, without a query.
    """
    epsilon = min(HUGE)
    gradients = ~_robust(model, batch, start, epsilon)
    if gradients.all():
        return 0
    with batch.target(model) as target:
        examples = Square(epsilon=epsilon, queries=QUERIES).perturb(target, batch.waveform, batch.labels, generator)
        scores = target.decisions(examples) != batch.labels
    return int((scores & ~gradients).sum()) - int((gradients & ~scores).sum())


def _share(robust: Tensor) -> float:
    return float(robust.double().mean())


def _robust(model: EmotionModel, batch: Batch, start: Tensor, epsilon: float) -> Tensor:
    """Return which clips (B,) stay robust to iterative FGSM of `STEPS` and of four times as many."""
    robust = torch.ones_like(batch.labels, dtype=torch.bool)
    for steps in (STEPS, 4 * STEPS):
        rows = robust.nonzero()[:, 0]
        if len(rows):
            robust[rows] = _robust_to_steps(model, batch.at(rows), start[rows], epsilon, steps)
    return robust


def _robust_to_steps(model: EmotionModel, batch: Batch, start: Tensor, epsilon: float, steps: int) -> Tensor:
    """Return which clips (B,) the model classifies correctly at every iterate.

    A misled clip is attacked no more, and neither is one that a step did not move: the next would not move it either,
    unless the model is randomised.
    """
    budget = Budget("linf", epsilon, "full-scale")
    rows, unmoved = torch.arange(len(batch.labels), device=batch.labels.device), []
    x, mask = start, sound_mask(batch.lengths, start.shape[1])
    with batch.target(model) as whole:
        for _ in range(steps):
            target, labels = whole.at(rows), batch.labels[rows]
            stepped = x + 2.5 * epsilon / steps * target.gradient(x, labels).sign()
            stepped = admit(stepped, batch.waveform[rows], mask[rows], "waveform", budget)
            robust = target.decisions(stepped) == labels
            moved = (stepped != x).any(1) | model.randomised
            unmoved.append(rows[robust & ~moved])
            rows, x = rows[robust & moved], stepped[robust & moved]
            if not len(rows):
                break
    return torch.zeros_like(batch.labels, dtype=torch.bool).index_fill(0, torch.cat([rows, *unmoved]), True)
