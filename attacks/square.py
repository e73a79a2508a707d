"""Square attack: random search with the model's scores alone."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.controls import random_signs
from advser.models.terms import Domain
from advser.plugins.parameters import parameter
from advser.plugins.roles import budget
from advser.threat.admission import admit
from advser.threat.budget import per_clip
from advser.threat.model import Access
from advser.threat.objectives import classes, margin
from advser.threat.target import Target

HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the queries after which the squares' area is halved: 10, 50, 200, … of 10,000 in the source."""


class Square(Attack):
    """Square attack, L∞: squares of ±ε at random positions, each kept if it raises the clip's margin loss.

    In a spectrogram, a square has the side √(share · bands · frames) and one random sign. In a waveform, it is a
    segment of share · samples. The search starts from stripes of random sign, one per frame (or sample), if they raise
    the loss. The share shrinks as in the source. As in its code, a square that would change nothing gets the opposite
    sign. The margin loss is the highest other logit minus the label's logit, and needs at least two classes. The search
    ends for a clip once its margin is above 0: a clip that is misclassified when clean stays unchanged. Soft labels
    count as their most probable class. No clip's loss ends below its clean loss.
    """

    citation: ClassVar[str] = (
        "Andriushchenko, Croce, Flammarion, Hein: Square attack: a query-efficient black-box adversarial attack via "
        "random search, ECCV 2020, alg. 1 and 2"
    )
    access: ClassVar[Access] = "scores"

    epsilon: float = budget(unit="full-scale or z", about="L∞ budget ε")
    queries: int = parameter(1000, unit="forward passes per clip", about="most queries, including the clean clip", ge=1)
    share: float = parameter(0.8, unit="share of the input", about="area of the first squares, p", gt=0, le=1)

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return each clip's best example of the search."""
        labels = classes(labels)
        mask = torch.ones_like(x, dtype=torch.bool) if target.mask is None else target.mask.expand_as(x)
        best, highest = x, target.loss(x, labels, margin)
        for query in range(1, self.queries):
            rows = (highest <= 0 if not target.randomised else torch.ones_like(highest)).nonzero().squeeze(1)
            if not len(rows):
                break
            squares = self._squares(query, mask, generator) if query > 1 else self._stripes(x, generator)
            candidates = self._with_squares(best, x, squares, mask, target.domain)
            # A square that changes nothing would waste a query.
            idle = (candidates == best).flatten(1).all(1)
            opposite = self._with_squares(best, x, -squares, mask, target.domain)
            candidates = torch.where(per_clip(idle, x), opposite, candidates)
            loss = highest.index_copy(0, rows, target.at(rows).loss(candidates[rows], labels[rows], margin))
            best = torch.where(per_clip(loss > highest, x), candidates, best)
            highest = torch.maximum(loss, highest)
        return best

    def _with_squares(self, best: Tensor, x: Tensor, squares: Tensor, mask: Tensor, domain: Domain) -> Tensor:
        candidates = torch.where(squares == 0, best, x + self.epsilon * squares)
        return admit(candidates, x, mask, domain, self.budget(domain))

    def _stripes(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return random signs that broadcast to ``x``, one per position in time."""
        return random_signs((len(x), *[1] * (x.ndim - 2), x.shape[-1]), x, generator)

    def _squares(self, query: int, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return one random square per clip, in the shape of ``mask``: its sign inside, 0 outside."""
        share = self.share / 2 ** sum(query / self.queries > halving for halving in HALVINGS)
        sides = [mask.flatten(2).any(2).sum(1)] if mask.ndim > 2 else []
        sides.append(mask.flatten(1, -2).any(1).sum(1) if mask.ndim > 2 else mask.sum(1))
        wanted = (share * torch.stack(sides).prod(0)) ** (1 / len(sides))
        square = per_clip(random_signs((len(mask),), wanted, generator), mask)
        for dimension, side in enumerate(sides, start=1):
            inside = _segment(wanted.round().clamp_min(1).minimum(side), side, mask.shape[dimension], generator)
            shape = [len(mask), *[1] * (mask.ndim - 1)]
            shape[dimension] = -1
            square = square * inside.view(shape)
        return square


def _segment(length: Tensor, side: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return (B, ``size``): true in a segment of ``length`` (B,) at a random position in the first ``side`` (B,)."""
    draw = torch.rand(len(side), generator=generator, device=side.device, dtype=torch.float64)
    start = (draw * (side - length + 1)).floor()
    place = torch.arange(size, device=side.device)
    return (place >= start[:, None]) & (place < (start + length)[:, None])
