"""Auto-PGD: projected gradient ascent with momentum that chooses its step size, untargeted and targeted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, ClassVar, Final, Literal

import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.best import Best, stronger
from advser.attacks.steepest import ascended, random_start
from advser.models.base import Outputs
from advser.plugins.parameters import budget, budget_norm, parameter
from advser.threat.budget import per_clip, scale
from advser.threat.model import Norm
from advser.threat.objectives import TINY, Loss, classes, cross_entropy, difference_of_logits_ratio, margin
from advser.threat.target import Ascent, Target

SOURCE: Final = (
    "Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks, "
    "ICML 2020"
)

MOMENTUM: Final = 0.75
"""α of the source: the share of the new step, the rest being that of the last one."""

LOSSES: Final[dict[str, Loss]] = {
    "cross-entropy": cross_entropy,
    "margin": margin,
    "dlr": difference_of_logits_ratio,
}


OBJECTIVE: Final = "objective"
"""What `APGD.loss` is called if the suite says which it is."""


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which the step size is reconsidered, 0 first (sec. 3.1 of the source).

    p₀ = 0, p₁ = .22, p₍ⱼ₊₁₎ = pⱼ + max(pⱼ − p₍ⱼ₋₁₎ − .03, .06), of the number of steps, rounded up.
    """
    parts = [0.0, 0.22]
    while parts[-1] < 1:
        parts.append(parts[-1] + max(parts[-1] - parts[-2] - 0.03, 0.06))
    # What was added up to a whole number of steps must not be rounded up to the next.
    return sorted({ceil(part * steps - 1e-9) for part in parts if part <= 1})


@dataclass(frozen=True)
class _Point:
    """Inputs (B, …) and what a pass told of them."""

    x: Tensor
    told: Ascent

    def where(self, rows: Tensor, other: _Point) -> _Point:
        """Return these points, but the other's in the clips that ``rows`` (B,) is true of."""
        told, others = self.told, other.told
        return _Point(
            torch.where(per_clip(rows, self.x), other.x, self.x),
            Ascent(
                torch.where(rows, others.loss, told.loss),
                torch.where(per_clip(rows, told.gradient), others.gradient, told.gradient),
                torch.where(rows, others.margin, told.margin),
            ),
        )

    def stronger(self, other: _Point) -> Tensor:
        """Tell where this is misread and the other is not, or has the higher loss if they do not differ in that."""
        return stronger(self.told.margin, self.told.loss, other.told.margin, other.told.loss)


class AutoPGD(Attack, ABC):
    """What the untargeted and the targeted attack share: algorithm 1 of the source."""

    epsilon: float = budget(unit="full-scale, z or clip", about="budget ε")
    norm: Norm = budget_norm(about="norm of the budget")
    steps: int = parameter(100, unit="steps", about="steps a run", ge=1)
    restarts: int = parameter(1, unit="runs", about="random starts", ge=1)
    rho: float = parameter(0.75, unit="share of steps", about="steps that must raise the loss, ρ", ge=0, le=1)

    @abstractmethod
    def _aim(self, target: Target) -> Loss:
        """Return the loss that examples are compared by (`Best`)."""

    @abstractmethod
    def _runs(self, target: Target, x: Tensor, labels: Tensor) -> Iterator[Callable[[Tensor], Loss]]:
        """Yield for each run what returns the loss that it ascends for some clips of the batch (indices (b,))."""

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Make the runs: all clips in the first, in each further one those that have not fallen yet."""
        if self.epsilon == 0:
            return x
        best = Best(self, target, x, labels, self._aim(target))
        for loss_of in self._runs(target, x, labels):
            rows = best.standing
            if not len(rows):
                break
            part, start = target.at(rows), x[rows]
            best.offer(rows, self._climb(part, start, labels[rows], loss_of(rows), generator))
        return best.examples

    def _climb(self, target: Target, x: Tensor, labels: Tensor, loss: Loss, generator: torch.Generator) -> Tensor:
        """Return the best iterate of each clip in one run: algorithm 1, steps + 1 forward and backward passes."""
        start = self.admitted(random_start(x, target, self.norm, self.epsilon, generator), x, target)
        now = top = strongest = _Point(start, target.ascent(start, labels, loss))
        before = start
        size = 2 * self.epsilon * scale(x, self.norm)
        rises, halved, last_top = torch.zeros_like(size), torch.ones_like(size, dtype=torch.bool), top.told.loss
        corners = checkpoints(self.steps)
        for step in range(1, self.steps + 1):
            moved = self.admitted(ascended(now.x, now.told.gradient, size, self.norm), x, target)
            momentum = MOMENTUM * (moved - now.x) + (1 - MOMENTUM) * (now.x - before)
            moved = moved if step == 1 else self.admitted(now.x + momentum, x, target)
            before, old, now = now.x, now, _Point(moved, target.ascent(moved, labels, loss))
            rises = rises + (now.told.loss > old.told.loss)
            top = top.where(now.told.loss > top.told.loss, now)
            strongest = strongest.where(now.stronger(strongest), now)
            if step in corners:
                length = step - corners[corners.index(step) - 1]
                stuck = (rises < self.rho * length) | (~halved & (top.told.loss <= last_top))
                size = torch.where(stuck, size / 2, size)
                now = now.where(stuck, top)
                rises, halved, last_top = torch.zeros_like(rises), stuck, top.told.loss
        # Before a model that draws at random a single misreading may be luck.
        return top.x if target.randomised else strongest.x


class APGD(AutoPGD):
    """Auto-PGD: steepest ascent with momentum whose step size is halved where the loss no longer rises.

    z = Π(x₍ₖ₎ + η · d(∇L(x₍ₖ₎))), x₍ₖ₊₁₎ = Π(x₍ₖ₎ + ¾ (z − x₍ₖ₎) + ¼ (x₍ₖ₎ − x₍ₖ₋₁₎)), with d the direction of
    steepest ascent in the norm and η = 2 ε at first. At checkpoints η is halved, and the search goes on from the point
    of the highest loss, in clips whose loss rose in fewer than ρ of the steps since the last one, or whose highest loss
    has not changed since and η neither.

    Losses: the suite's ``objective``, ``cross-entropy``, ``margin``, or ``dlr``, the margin over the difference of the
    highest and third-highest logit, which is the margin where there are two classes. An iterate that is misread beats
    any that is not, but before a model that draws at random. Where the loss aims at misreading alone, a further restart
    costs only the clips that are still read as their label after 16-bit rounding, and of these runs the example of the
    highest margin is kept; of another objective every clip has all restarts. A run costs steps + 1 forward
    and backward passes and a forward pass that judges it.
    """

    citation: ClassVar[str] = f"{SOURCE}, alg. 1, eq. 6"

    loss: Literal["objective", "cross-entropy", "margin", "dlr"] = parameter(OBJECTIVE, about="the loss it ascends")

    @classmethod
    def ascends(cls, params: Mapping[str, Any]) -> bool:
        """Tell whether ``loss`` leaves the choice to the suite."""
        return bool(params.get("loss", OBJECTIVE) == OBJECTIVE)

    def _aim(self, target: Target) -> Loss:
        return LOSSES.get(self.loss, target.objective)

    def _runs(self, target: Target, x: Tensor, labels: Tensor) -> Iterator[Callable[[Tensor], Loss]]:
        for _ in range(self.restarts):
            yield lambda rows: self._aim(target)


class APGDTargeted(AutoPGD):
    """Targeted Auto-PGD: `APGD` towards one class after another, those first that the clean logits rank highest.

    With four classes and more it ascends the targeted DLR, (z_t − z_y) / (z₍₁₎ − (z₍₃₎ + z₍₄₎) / 2) with z₍ᵢ₎ the i-th
    highest logit; with fewer, where there is no z₍₄₎, z_t − z_y. It never tries more than the other classes there are.
    What counts is that the clip is misread, as whatever class: such iterates beat all others, clips that are misread
    after 16-bit rounding cost no further run, and of all runs the example of the highest margin is kept. Soft labels
    count as their most probable class; the suite's ``objective`` is not asked.
    """

    citation: ClassVar[str] = f"{SOURCE}, eq. 7"

    targets: int = parameter(9, unit="classes", about="most classes it is drawn to; at most those there are", ge=1)

    @classmethod
    def ascends(cls, params: Mapping[str, Any]) -> bool:
        """It does not: it has its own loss for each class."""
        return False

    def _aim(self, target: Target) -> Loss:
        return margin

    def _runs(self, target: Target, x: Tensor, labels: Tensor) -> Iterator[Callable[[Tensor], Loss]]:
        logits = target.logits(x)
        others = logits.scatter(1, classes(labels)[:, None], -torch.inf)
        ranked = others.argsort(1, descending=True)[:, : min(self.targets, logits.shape[1] - 1)]
        for _ in range(self.restarts):
            for aims in ranked.T:
                yield partial(_towards_of, aims)


def _towards_of(aims: Tensor, rows: Tensor) -> Loss:
    return partial(towards, aims=aims[rows])


def towards(outputs: Outputs, labels: Tensor, aims: Tensor) -> Tensor:
    """Return the targeted DLR of each clip (B,) for target classes ``aims`` (B,), below four classes z_t − z_y."""
    logits = outputs.logits
    pull = (logits.gather(1, aims[:, None]) - logits.gather(1, classes(labels)[:, None])).squeeze(1)
    if logits.shape[1] < 4:
        return pull
    highest = logits.topk(4, dim=1).values
    return pull / (highest[:, 0] - highest[:, 2:].mean(1) + TINY)
