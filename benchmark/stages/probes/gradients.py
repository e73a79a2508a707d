"""Probes of a trained model's gradient: is it the derivative of the loss?

Carlini et al., "On evaluating adversarial robustness", 2019, and Athalye, Carlini, Wagner, "Obfuscated gradients give a
false sense of security", ICML 2018, describe the models that these probes expose.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from advser.attacks.controls import random_signs
from advser.models.base import EmotionModel
from advser.stages.probes.batch import Batch
from advser.threat.objectives import Loss

STRIDES: Final = (1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
"""Distances over which finite differences are taken, full scale. They shrink until two neighbours agree."""

STRIDES_IN_FLOAT32: Final = (1e-4, 1e-5, 1e-6)
"""As `STRIDES`, for a model that computes in float32 alone."""

AGREEMENT: Final = 0.05
"""Relative difference up to which two finite differences agree."""

DIRECTIONS: Final = 4
"""Random directions in which the gradient is compared with finite differences."""

VISIBLE: Final = 10
"""Rounding steps of the objective that a change must reach to be measured."""

FALSE: Final = 0.1
"""Error of a derivative in float64 above which a gradient is false: 0 is exact, 1 is unrelated to the function.

Trained honest models have less than 0.01, the median over clips.
"""

FALSE_IN_FLOAT32: Final = 0.5
"""As `FALSE`, for a model that computes in float32 alone: digital silence and rounding disturb its differences."""


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
    difference = _finite_difference(model, batch, direction, automatic, _rounding(model, batch))
    error = (difference - automatic).abs() / torch.maximum(difference.abs(), automatic.abs())
    return torch.where(automatic > 0, error, torch.nan)


def _rounding(model: EmotionModel, batch: Batch) -> Tensor:
    """Return the rounding step of each clip's objective (B,)."""
    return torch.finfo(batch.waveform.dtype).eps * _first_loss(model, batch, batch.waveform).abs()


def _finite_difference(
    model: EmotionModel, batch: Batch, direction: Tensor, automatic: Tensor, rounding: Tensor
) -> Tensor:
    """Return the derivative of each clip's objective (B,) in a direction (B, T), by finite differences.

    It is the difference over the first stride that agrees with that over the stride before; NaN where no two agree, and
    where a change as large as the ``automatic`` derivative (B,) would be lost in ``rounding`` (`_rounding`).
    """
    strides = STRIDES if batch.waveform.dtype == torch.float64 else STRIDES_IN_FLOAT32
    before = _quotient(model, batch, direction, strides[0])
    settled = torch.full_like(before, torch.nan)
    for stride in strides[1:]:
        # A randomised model draws other numbers for fewer clips.
        rows = (settled.isnan() | model.randomised).nonzero()[:, 0]
        now = before.index_copy(0, rows, _quotient(model, batch.at(rows), direction[rows], stride))
        apart = (before - now).abs() / torch.maximum(before.abs(), now.abs())
        # Two differences of 0 agree: the function is flat there.
        agrees = settled.isnan() & (apart.nan_to_num(0.0) <= AGREEMENT)
        agrees &= torch.maximum(automatic.abs(), now.abs()) * stride > VISIBLE * rounding
        settled, before = torch.where(agrees, now, settled), now
        if not settled.isnan().any():
            break
    return settled


def _quotient(model: EmotionModel, batch: Batch, direction: Tensor, stride: float) -> Tensor:
    """Return the change of each clip's objective (B,) from a stride back to a stride ahead, over their distance."""
    ahead, back = (_first_loss(model, batch, batch.waveform + side * stride * direction) for side in (1, -1))
    return (ahead - back) / (2 * stride)


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
    directions, rounding = zip(signs, automatic, strict=True), _rounding(model, batch)
    settled = torch.stack([_finite_difference(model, batch, sign, slope, rounding) for sign, slope in directions])
    usable = gradient.flatten(1).any(1) & settled.isfinite().all(0)
    explained = torch.cosine_similarity(settled, automatic, dim=0).clamp_min(0).square()[usable]
    return float((1 - explained).median()) if usable.any() else float("nan")
