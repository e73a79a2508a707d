"""Probes of a trained model: is it one function of the sound, and is its gradient the derivative of its loss?

Carlini et al., "On evaluating adversarial robustness", 2019, and Athalye, Carlini, Wagner, "Obfuscated gradients give a
false sense of security", ICML 2018, describe the models that these probes expose.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

import torch
from torch import Tensor

from advser.attacks.controls import random_signs
from advser.attacks.steepest import random_start
from advser.audio.clips import sound_mask
from advser.audio.pcm import PCM_STEP
from advser.models.base import EmotionModel, FrontEnd
from advser.threat.admission import admit
from advser.threat.budget import Budget
from advser.threat.objectives import Loss, margin
from advser.threat.target import Target

BUDGET: Final = 0.001
"""ε of the probe for converged steps, full scale."""

STEPS: Final = 10
"""Steps that are doubled."""

HUGE: Final = (0.5, 0.1, 0.02)
"""Budgets ε, of which the first allows a perturbation louder than nearly all speech. One must mislead every clip."""

STRIDES: Final = tuple(10.0**-power for power in range(4, 11))
"""Distances over which finite differences are taken, full scale. They shrink until two neighbours agree."""

AGREEMENT: Final = 0.05
"""Relative difference up to which two finite differences agree."""

DIRECTIONS: Final = 8
"""Random directions in which the gradient is compared with finite differences."""

FALSE: Final = 0.1
"""Error of a derivative in float64 above which a gradient is false: 0 is exact, 1 is unrelated to the function.

Trained honest models have less than 0.01, the median over clips.
"""

FALSE_IN_FLOAT32: Final = 0.5
"""As `FALSE`, for a model that computes in float32 alone: digital silence and rounding disturb its differences."""

CUT: Final = 400
"""The last of this many parts is cut off a clip: 5 ms of two seconds, which change no word."""

NEIGHBOURS: Final = 3
"""Other clips in the batch, when a clip's dependence on them is probed."""

CLIPS_WITH_NEIGHBOURS: Final = 12
"""Clips whose dependence on their neighbours is probed."""

REPEATS: Final = 3
"""Forward passes that must agree."""


@dataclass(frozen=True)
class Batch:
    """Clips that a model is probed with.

    Attributes:
        waveform: (B, T) on [−1, 1].
        lengths: (B,) in samples.
        labels: classes (B,).
        objective: the loss whose gradient is probed; the margin, which does not saturate.
        reference: the model's embeddings (B, D) of the clean clips, for objectives that compare with them.
    """

    waveform: Tensor
    lengths: Tensor
    labels: Tensor
    objective: Loss = margin
    reference: Tensor | None = None

    def at(self, rows: Tensor) -> Batch:
        """Return some of the clips (indices, or a mask)."""
        reference = None if self.reference is None else self.reference[rows]
        return Batch(self.waveform[rows], self.lengths[rows], self.labels[rows], self.objective, reference)

    def nearby(self, model: EmotionModel, generator: torch.Generator) -> Batch:
        """Return the clips with uniform noise of up to `BUDGET`: where attacks work, off the 16-bit grid."""
        start = random_start(self.waveform, self.target(model), "linf", BUDGET, generator)
        return replace(self, waveform=start)

    @torch.no_grad()
    def informed(self, model: EmotionModel, objective: Loss, clean: Tensor) -> Batch:
        """Return the clips with an objective that also compares with the ``clean`` waveforms (B, T)."""
        return replace(self, objective=objective, reference=model.outputs(clean, self.lengths, "waveform").embedding)

    def target(self, model: EmotionModel) -> Target:
        """Return the white-box target of the waveforms."""
        mask = sound_mask(self.lengths, self.waveform.shape[1])
        return Target(model, self.lengths, "waveform", objective=self.objective, mask=mask, reference=self.reference)


@torch.no_grad()
def disagreement(model: EmotionModel, batch: Batch) -> float:
    """Return the largest difference of a logit between repeated forward passes, as a share of the logits' span."""
    answers = torch.stack([model(batch.waveform, batch.lengths) for _ in range(REPEATS)])
    return _share_of_span(answers - answers[0], answers)


@torch.no_grad()
def batch_dependence(model: EmotionModel, batch: Batch) -> float:
    """Return the largest difference of a logit between a clip alone and in a batch, as a share of the logits' span."""
    together = model(batch.waveform, batch.lengths)
    alone = [model(batch.waveform[[row]], batch.lengths[[row]])[0] for row in range(len(batch.labels))]
    return _share_of_span(together - torch.stack(alone), together)


@torch.no_grad()
def neighbour_dependence(model: EmotionModel, batch: Batch) -> float:
    """Return the largest difference of a clip's logit between different neighbours, as a share of the span.

    Each clip is first in a batch with the three clips after it, and with the three before it (the batch is circular).
    The model draws the same random numbers both times.
    """
    rows, offsets = torch.arange(len(batch.labels)), torch.arange(NEIGHBOURS + 1)
    pairs = []
    for row in rows[:CLIPS_WITH_NEIGHBOURS]:
        pair = []
        for members in (row + offsets, row - offsets):
            part = batch.at(members % len(rows))
            torch.manual_seed(int(row))
            pair.append(model(part.waveform, part.lengths)[0])
        pairs.append(torch.stack(pair))
    answers = torch.stack(pairs)
    return _share_of_span(answers[:, 0] - answers[:, 1], answers)


def _share_of_span(difference: Tensor, logits: Tensor) -> float:
    share = difference.abs().max() / (logits.max() - logits.min()).clamp_min(1e-30)
    return float(share.nan_to_num(torch.inf))


@torch.no_grad()
def probabilities(model: EmotionModel, batch: Batch) -> bool:
    """Return whether the outputs are probabilities: none is negative, and each clip's sum is 1."""
    logits = model(batch.waveform, batch.lengths).double()
    return bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-4).all())


def changed_state(model: EmotionModel, batch: Batch) -> list[str]:
    """Return the names of all state that a gradient and a forward pass in evaluation mode change; expected: none.

    State is weights, buffers, and the numbers and tensors that modules keep as plain attributes. The model has
    classified the clips before, so that its caches of their shapes exist.
    """
    before = _state(model)
    with batch.target(model) as target:
        target.decisions(batch.waveform)
        if model.differentiable:
            target.gradient(batch.waveform, batch.labels)
    now = _state(model)
    return [name for name in {**before, **now} if not _equal(before.get(name), now.get(name))]


def _state(model: EmotionModel) -> dict[str, Tensor | float]:
    state: dict[str, Tensor | float] = dict(chain(model.named_parameters(), model.named_buffers()))
    for name, module in model.named_modules():
        state |= {f"{name}.{key}": item for key, item in vars(module).items() if isinstance(item, Tensor | int | float)}
    return {name: item.detach().clone() if isinstance(item, Tensor) else item for name, item in state.items()}


def _equal(a: Tensor | float | None, b: Tensor | float | None) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return type(a) is type(b) and a == b


def without_gradient(model: EmotionModel, batch: Batch, loss: Loss | None = None) -> float:
    """Return the share of clips whose loss has a gradient that is 0 everywhere, or anywhere not finite.

    ``loss`` is by default the batch's ``objective``.
    """
    # Not by `Target.gradient`, which replaces non-finite values by 0.
    variable = batch.waveform.clone().requires_grad_()
    with batch.target(model):
        outputs = replace(model.outputs(variable, batch.lengths, "waveform"), reference=batch.reference)
        losses = (loss or batch.objective)(outputs, batch.labels)
        (gradient,) = torch.autograd.grad(losses.sum(), variable)
    gradient = gradient.flatten(1)
    return float((~gradient.isfinite().all(1) | (gradient == 0).all(1)).double().mean())


def in_double(model: EmotionModel, batch: Batch) -> tuple[EmotionModel, Batch]:
    """Return a copy of the model in float64 with the batch, or both as they are if it does not compute in float64."""
    precise, wide = deepcopy(model).double(), replace(batch, waveform=batch.waveform.double())
    if batch.reference is not None:
        wide = replace(wide, reference=batch.reference.double())
    try:
        with torch.no_grad(), wide.target(precise) as target:
            outputs = target.loss(wide.waveform, wide.labels)
    except RuntimeError:
        return model, batch
    return (precise, wide) if outputs.dtype == torch.float64 else (model, batch)


def derivative_error(model: EmotionModel, batch: Batch) -> Tensor:
    """Return |f − a| / max(|f|, |a|) of each clip (B,), finite difference f against automatic derivative a.

    Both are derivatives of the objective in the direction of the gradient's sign. f is the first difference that agrees
    with that of the next stride (`STRIDES`). 0: the gradient is the derivative; 1: it is unrelated; 2: it is the
    opposite. NaN where no two strides agree, and for clips without a gradient. Use a model `in_double`.
    """
    with batch.target(model) as target:
        gradient = target.gradient(batch.waveform, batch.labels)
        direction = gradient.sign()
    automatic = (gradient * direction).flatten(1).sum(1).double()
    difference = _settled(torch.stack([_change(model, batch, stride * direction) / (2 * stride) for stride in STRIDES]))
    error = (difference - automatic).abs() / torch.maximum(difference.abs(), automatic.abs())
    return torch.where(automatic > 0, error, torch.nan)


def _settled(differences: Tensor) -> Tensor:
    """Return per column the first value that the next one (down) agrees with; NaN where none does: (S, …) → (…)."""
    ahead, behind = differences[:-1], differences[1:]
    apart = (ahead - behind).abs() / torch.maximum(ahead.abs(), behind.abs())
    # Two differences of 0 agree: the function is flat there.
    agrees = apart.nan_to_num(0.0) <= AGREEMENT
    first = agrees.double().argmax(0, keepdim=True)
    return torch.where(agrees.any(0), behind.gather(0, first)[0], torch.nan)


def _change(model: EmotionModel, batch: Batch, step: Tensor) -> Tensor:
    """Return the difference of each clip's objective (B,) between a step (B, T) ahead and a step back."""
    ahead, back = (_first_loss(model, batch, batch.waveform + side * step) for side in (1, -1))
    return ahead - back


def _first_loss(model: EmotionModel, batch: Batch, x: Tensor) -> Tensor:
    # A randomised model draws the same numbers in each new target: it is then one function.
    with batch.target(model) as target:
        return target.loss(x, batch.labels).double()


def unexplained_change(model: EmotionModel, batch: Batch, generator: torch.Generator) -> float:
    """Return the share of random changes' effect on the margin that the gradient does not explain; median over clips.

    1 − r², where r is the cosine between finite differences in `DIRECTIONS` random directions (±1 per sample) and the
    gradient's prediction of them. 0: the gradient explains all; a part of the model that passes no gradient adds its
    share. Clips where the differences do not settle (`derivative_error`) are left out; NaN if none is left.
    """
    with batch.target(model) as target:
        gradient = target.gradient(batch.waveform, batch.labels)
        signs = random_signs((DIRECTIONS, *gradient.shape), gradient, generator)
    automatic = (gradient * signs).flatten(2).sum(2).double()
    differences = torch.stack(
        [torch.stack([_change(model, batch, stride * sign) / (2 * stride) for sign in signs]) for stride in STRIDES]
    )
    settled = _settled(differences)
    usable = gradient.flatten(1).any(1) & settled.isfinite().all(0)
    explained = torch.cosine_similarity(settled, automatic, dim=0).clamp_min(0).square()[usable]
    return float((1 - explained).median()) if usable.any() else float("nan")


def changed_by_inaudible_change(model: EmotionModel, batch: Batch, generator: torch.Generator) -> float:
    """Return the share of clips whose class changes under any of three inaudible changes.

    Random noise of one step of 16-bit PCM; 1 % less volume; the last 1 / `CUT` of the clip cut off.
    """
    x = batch.waveform
    signs = random_signs(tuple(x.shape), x, generator)
    inside = sound_mask(batch.lengths, x.shape[1])
    with torch.no_grad(), batch.target(model) as target:
        decisions = [target.decisions(changed * inside) for changed in (x + PCM_STEP * signs, 0.99 * x)]
    lengths = batch.lengths - (batch.lengths // CUT).clamp_min(1)
    cut = Batch(x * sound_mask(lengths, x.shape[1]), lengths, batch.labels)
    with torch.no_grad(), cut.target(model) as target:
        decisions.append(target.decisions(cut.waveform))
    return float((torch.stack(decisions) != batch.labels).any(0).double().mean())


def least_robust(model: EmotionModel, batch: Batch, start: Tensor) -> float:
    """Return the share of clips that stay robust to iterative FGSM at every budget of `HUGE`, and every step size.

    A larger budget contains every smaller one, but an attack of few large steps may miss what a smaller one reaches.
    """
    shares = [robust_share(model, batch, start, epsilon, steps) for epsilon in HUGE for steps in (STEPS, 4 * STEPS)]
    return min(shares)


def robust_share(model: EmotionModel, batch: Batch, start: Tensor, epsilon: float, steps: int) -> float:
    """Return the share of clips that the model classifies correctly at every iterate of iterative FGSM on the margin.

    The attack starts at ``start`` (B, T), near the clips.
    """
    budget = Budget("linf", epsilon, "full-scale")
    robust = torch.ones_like(batch.labels, dtype=torch.bool)
    x = start
    mask = sound_mask(batch.lengths, x.shape[1])
    with batch.target(model) as target:
        for _ in range(steps):
            stepped = x + 2.5 * epsilon / steps * target.gradient(x, batch.labels).sign()
            x = admit(stepped, batch.waveform, mask, "waveform", budget)
            robust &= target.decisions(x) == batch.labels
    return float(robust.double().mean())


@torch.no_grad()
def foreign_statistics(
    frontend: FrontEnd, stored: dict[str, Tensor], training: Iterable[tuple[Tensor, Tensor]]
) -> float:
    """Return the relative distance of stored normalisation statistics from those of the training clips, at most 1.

    Args:
        frontend: a new front end of the model's kind; it is fitted.
        stored: the trained front end's buffers.
        training: (waveform, lengths) batches of the clips that the model was trained on.
    """
    before = {name: value.clone() for name, value in frontend.named_buffers()}
    frontend.fit(training)
    fitted = {name: value for name, value in frontend.named_buffers() if not torch.equal(value, before[name])}
    differences = [_difference(stored[name].double(), value.double()) for name, value in fitted.items()]
    return max(differences, default=0.0)


def _difference(stored: Tensor, expected: Tensor) -> float:
    scale = torch.maximum(stored.abs(), expected.abs()).amax().clamp_min(1e-12)
    return float(((stored - expected).abs() / scale).amax())
