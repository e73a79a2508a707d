"""What an audit asks a trained model itself: is it one function of the sound, and what is its gradient worth?

The models that these questions find out are described by Carlini et al., "On evaluating adversarial robustness", 2019,
and by Athalye, Carlini, Wagner, "Obfuscated gradients give a false sense of security", ICML 2018.
"""

from __future__ import annotations

from collections.abc import Iterable
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

HUGE: Final = 0.5
"""ε under which every clip must fall, full scale: the perturbation is louder than nearly all speech."""

STRIDES: Final = (1e-6, 1e-5, 1e-4, 1e-3)
"""Distances over which finite differences are taken, full scale; the one that fits best counts."""

DIRECTIONS: Final = 8
"""Random directions in which the gradient is held against finite differences."""

FALSE: Final = 0.5
"""Error of a derivative above which a gradient is false: 0 is right, 1 has nothing to do with the function."""

CUT: Final = 400
"""Of this many parts the last is taken off a clip: 5 ms of two seconds, which change nothing of what it says."""

BESIDE: Final = 3
"""Other clips beside one, when it is asked whether they matter."""

CLIPS_IN_COMPANY: Final = 12
"""Clips of which that is asked."""

REPEATS: Final = 3
"""Forward passes that must agree."""


@dataclass(frozen=True)
class Batch:
    """Clips that a model is asked about.

    Attributes:
        waveform: (B, T) on [−1, 1].
        lengths: (B,) in samples.
        labels: classes (B,).
        objective: the loss whose gradient is asked for; the margin, which does not saturate.
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

    def beside(self, model: EmotionModel, generator: torch.Generator) -> Batch:
        """Return the clips with uniform noise of up to `BUDGET` in them: where attacks are, off the 16-bit grid."""
        start = random_start(self.waveform, self.target(model), "linf", BUDGET, generator)
        return replace(self, waveform=start)

    @torch.no_grad()
    def knowing(self, model: EmotionModel, objective: Loss, clean: Tensor) -> Batch:
        """Return the clips with another objective, for which the model hears the ``clean`` waveforms (B, T) too."""
        return replace(self, objective=objective, reference=model.outputs(clean, self.lengths, "waveform").embedding)

    def target(self, model: EmotionModel) -> Target:
        """Return the target before the sound, white-box."""
        mask = sound_mask(self.lengths, self.waveform.shape[1])
        return Target(model, self.lengths, "waveform", objective=self.objective, mask=mask, reference=self.reference)


@torch.no_grad()
def disagreement(model: EmotionModel, batch: Batch) -> float:
    """Return the largest difference of a logit between repeated forward passes, as a share of the logits' span."""
    answers = torch.stack([model(batch.waveform, batch.lengths) for _ in range(REPEATS)])
    return _share_of_span(answers - answers[0], answers)


@torch.no_grad()
def company(model: EmotionModel, batch: Batch) -> float:
    """Return the largest difference of a logit between a clip alone and in a batch, as a share of the logits' span."""
    together = model(batch.waveform, batch.lengths)
    alone = [model(batch.waveform[[row]], batch.lengths[[row]])[0] for row in range(len(batch.labels))]
    return _share_of_span(together - torch.stack(alone), together)


@torch.no_grad()
def companions(model: EmotionModel, batch: Batch) -> float:
    """Return the largest difference of a logit of a clip between other clips beside it, as a share of the span.

    Each clip stands first among the three that follow it, and among the three before it, in the batch (round again at
    its ends), and the model draws the same random numbers both times.
    """
    rows, beside = torch.arange(len(batch.labels)), torch.arange(BESIDE + 1)
    found = []
    for row in rows[:CLIPS_IN_COMPANY]:
        first = []
        for others in (row + beside, row - beside):
            among = batch.at(others % len(rows))
            torch.manual_seed(int(row))
            first.append(model(among.waveform, among.lengths)[0])
        found.append(torch.stack(first))
    answers = torch.stack(found)
    return _share_of_span(answers[:, 0] - answers[:, 1], answers)


def _share_of_span(difference: Tensor, logits: Tensor) -> float:
    share = difference.abs().max() / (logits.max() - logits.min()).clamp_min(1e-30)
    return float(share.nan_to_num(torch.inf))


@torch.no_grad()
def probabilities(model: EmotionModel, batch: Batch) -> bool:
    """Tell whether the outputs are probabilities: none negative, and each clip's sum 1."""
    logits = model(batch.waveform, batch.lengths).double()
    return bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-4).all())


def changed_state(model: EmotionModel, batch: Batch) -> list[str]:
    """Return what a gradient and a forward pass in evaluation mode change of a model; should be none.

    Weights, buffers, and the numbers and tensors that its modules keep as plain attributes. The model has heard the
    clips before: what it keeps of their shapes is there.
    """
    before = _state(model)
    with batch.target(model) as target:
        target.decisions(batch.waveform)
        if model.differentiable:
            target.gradient(batch.waveform, batch.labels)
    now = _state(model)
    return [name for name in {**before, **now} if not _equal(before.get(name), now.get(name))]


def _state(model: EmotionModel) -> dict[str, Tensor | float]:
    kept: dict[str, Tensor | float] = dict(chain(model.named_parameters(), model.named_buffers()))
    for name, module in model.named_modules():
        kept |= {f"{name}.{key}": one for key, one in vars(module).items() if isinstance(one, Tensor | int | float)}
    return {name: one.detach().clone() if isinstance(one, Tensor) else one for name, one in kept.items()}


def _equal(one: Tensor | float | None, other: Tensor | float | None) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and one == other


def without_gradient(model: EmotionModel, batch: Batch, loss: Loss | None = None) -> float:
    """Return the share of clips whose loss has a gradient that is 0 everywhere, or anywhere not finite.

    ``loss`` is by default the batch's ``objective``.
    """
    # Not by `Target.gradient`, which gives attacks 0 in place of what is not finite.
    variable = batch.waveform.clone().requires_grad_()
    with batch.target(model):
        outputs = replace(model.outputs(variable, batch.lengths, "waveform"), reference=batch.reference)
        losses = (loss or batch.objective)(outputs, batch.labels)
        (gradient,) = torch.autograd.grad(losses.sum(), variable)
    gradient = gradient.flatten(1)
    return float((~gradient.isfinite().all(1) | (gradient == 0).all(1)).double().mean())


def derivative_error(model: EmotionModel, batch: Batch) -> Tensor:
    """Return |f − a| / max(|f|, |a|) of each clip (b,), finite difference f against automatic derivative a.

    Both are of the objective, in the direction of the gradient's sign; that of `STRIDES` counts at which they agree
    best. 0: the gradient is the derivative; 1: it has nothing to do with it; 2: it is the opposite. Clips without a
    gradient are left out.
    """
    with batch.target(model) as target:
        gradient = target.gradient(batch.waveform, batch.labels)
        direction = gradient.sign()
    automatic = (gradient * direction).flatten(1).sum(1).double()
    errors = []
    for stride in STRIDES:
        difference = _change(model, batch, stride * direction) / (2 * stride)
        errors.append((difference - automatic).abs() / torch.maximum(difference.abs(), automatic.abs()))
    return torch.stack(errors).nan_to_num(torch.inf).amin(0)[automatic > 0]


def _change(model: EmotionModel, batch: Batch, step: Tensor) -> Tensor:
    """Return by how much the objective of each clip (B,) differs a step ahead and a step (B, T) back."""
    there, back = (_first_loss(model, batch, batch.waveform + side * step) for side in (1, -1))
    return there - back


def _first_loss(model: EmotionModel, batch: Batch, x: Tensor) -> Tensor:
    # A model that draws at random draws the same before each new target: it is one function that is asked about.
    with batch.target(model) as target:
        return target.loss(x, batch.labels).double()


def unexplained_change(model: EmotionModel, batch: Batch, generator: torch.Generator) -> float:
    """Return the median over clips of the share of random changes' effect on the margin that the gradient leaves out.

    1 − r², where r is the cosine between the finite differences in `DIRECTIONS` random directions (of ±1 a sample) and
    what the gradient says of them; that of `STRIDES` counts at which they agree best. 0: the gradient is all there is;
    a part of the model that lets no gradient through adds its share. NaN if no clip has a gradient.
    """
    with batch.target(model) as target:
        gradient = target.gradient(batch.waveform, batch.labels)
        signs = random_signs((DIRECTIONS, *gradient.shape), gradient, generator)
    automatic = (gradient * signs).flatten(2).sum(2).double()
    shares = []
    for stride in STRIDES:
        differences = torch.stack([_change(model, batch, stride * one) for one in signs])
        explained = torch.cosine_similarity(differences, automatic, dim=0).nan_to_num(0).clamp_min(0).square()
        shares.append(1 - explained)
    known = torch.stack(shares)[:, gradient.flatten(1).any(1)]
    return float(known.median(1).values.min()) if known.shape[1] else float("nan")


def changed_unheard(model: EmotionModel, batch: Batch, generator: torch.Generator) -> float:
    """Return the share of clips that any of three changes has read as another class.

    Random noise of one step of 16-bit PCM; 1 % less volume; the last 1 / 400 of the clip cut off.
    """
    x = batch.waveform
    signs = random_signs(tuple(x.shape), x, generator)
    inside = sound_mask(batch.lengths, x.shape[1])
    with torch.no_grad(), batch.target(model) as target:
        read = [target.decisions(changed * inside) for changed in (x + PCM_STEP * signs, 0.99 * x)]
    lengths = batch.lengths - (batch.lengths // CUT).clamp_min(1)
    cut = Batch(x * sound_mask(lengths, x.shape[1]), lengths, batch.labels)
    with torch.no_grad(), cut.target(model) as target:
        read.append(target.decisions(cut.waveform))
    return float((torch.stack(read) != batch.labels).any(0).double().mean())


def standing(model: EmotionModel, batch: Batch, start: Tensor, epsilon: float, steps: int) -> float:
    """Return the share of clips that every iterate of iterative FGSM on the margin leaves read rightly.

    ``start`` (B, T) is where it starts, around the clips.
    """
    budget = Budget("linf", epsilon, "full-scale")
    upright = torch.ones_like(batch.labels, dtype=torch.bool)
    x = start
    mask = sound_mask(batch.lengths, x.shape[1])
    with batch.target(model) as target:
        for _ in range(steps):
            stepped = x + 2.5 * epsilon / steps * target.gradient(x, batch.labels).sign()
            x = admit(stepped, batch.waveform, mask, "waveform", budget)
            upright &= target.decisions(x) == batch.labels
    return float(upright.double().mean())


@torch.no_grad()
def foreign_statistics(
    frontend: FrontEnd, stored: dict[str, Tensor], training: Iterable[tuple[Tensor, Tensor]]
) -> float:
    """Return how far stored normalisation statistics are from those of the training clips, relative, at most 1.

    Args:
        frontend: a new front end like the model's; it is fitted.
        stored: the trained front end's buffers.
        training: (waveform, lengths) batches of the clips that the model was trained on.
    """
    before = {name: value.clone() for name, value in frontend.named_buffers()}
    frontend.fit(training)
    fitted = {name: value for name, value in frontend.named_buffers() if not torch.equal(value, before[name])}
    differences = [_difference(stored[name].double(), value.double()) for name, value in fitted.items()]
    return max(differences, default=0.0)


def _difference(found: Tensor, expected: Tensor) -> float:
    scale = torch.maximum(found.abs(), expected.abs()).amax().clamp_min(1e-12)
    return float(((found - expected).abs() / scale).amax())
