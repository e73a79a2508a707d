"""Probes of a model's answers: are they one function of the clip alone, and are they logits?"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Final

import torch
from torch import Tensor

from advser.models.base import EmotionModel, FrontEnd
from advser.stages.probes.batch import Batch

NEIGHBOURS: Final = 3
"""Other clips in the batch, when a clip's dependence on them is probed."""

CLIPS_WITH_NEIGHBOURS: Final = 12
"""Clips whose dependence on their neighbours is probed."""

REPEATS: Final = 3
"""Forward passes that must agree."""


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
