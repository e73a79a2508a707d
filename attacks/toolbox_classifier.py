"""A clip before its target, as a classifier of the Adversarial Robustness Toolbox (ART).

Needs ART: import this module where it is used, not above.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from art.estimators import BaseEstimator, LossGradientsMixin, NeuralNetworkMixin
from art.estimators.classification import ClassGradientsMixin
from art.estimators.classification.classifier import ClassifierMixin
from numpy.typing import NDArray
from torch import Tensor

from advser.models.base import Outputs
from advser.threat.budget import Budget
from advser.threat.target import Target

Array = NDArray[np.float32]
Answer = Callable[[Target, Tensor], Tensor]
"""From the target of n copies of a clip, and n inputs, to n rows of scores (n, C)."""


class ClipClassifier(
    ClassGradientsMixin,
    ClassifierMixin,
    LossGradientsMixin,
    NeuralNetworkMixin,
    BaseEstimator,
):
    """One clip of a batch: ART's questions go to the target, which grants them or not, and counts them.

    ART sees images of one channel, (n, 1, bands, frames) or (n, 1, 1, samples), without the clip's padding, as
    float32. Values lie on [−1, 1] in a waveform; in a spectrogram in the clip's own range, widened by ε, or by one
    standard deviation if there is no L∞ budget.

    Args:
        target: of the batch.
        x: the batch.
        row: the clip's place in it.
        budget: the attack's budget.
        answer: what ART is told of inputs.
        classes: number of columns of the answer.
    """

    def __init__(
        self, target: Target, x: Tensor, row: int, budget: Budget | None, answer: Answer, classes: int
    ) -> None:
        clip = x[row]
        mask = torch.ones_like(clip, dtype=torch.bool) if target.mask is None else target.mask.expand_as(x)[row]
        self.row, self._target, self._clip, self._answer = row, target, clip, answer
        self._sounding = mask.reshape(-1, clip.shape[-1]).any(0)
        room = budget.epsilon if budget is not None and budget.norm == "linf" else 1.0
        bounds = (-1.0, 1.0) if target.domain == "waveform" else (float(clip.min()) - room, float(clip.max()) + room)
        super().__init__(model=None, clip_values=bounds, channels_first=True)
        self.nb_classes = classes

    @property
    def clean(self) -> Array:
        """The clean clip, as a batch of one."""
        return self._to_art(self._clip[None])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, (1, bands, frames) or (1, 1, samples)."""
        return self.clean.shape[1:]

    def inputs(self, images: Array) -> Tensor:
        """Return what the target is asked about (n, …): the clip's padding around each image."""
        whole = self._clip.repeat(len(images), *[1] * self._clip.ndim)
        values = torch.from_numpy(np.ascontiguousarray(images)).to(whole)
        whole[..., self._sounding] = values.reshape(len(images), *self._clip.shape[:-1], -1)
        return whole

    def predict(self, x: Array, batch_size: int = 128, **_: Any) -> Array:
        """Return the answer (n, C) to images."""
        inputs = torch.split(self.inputs(x), batch_size)
        return _array(torch.cat([self._answer(self._target_of(part), part) for part in inputs]))

    def compute_loss(self, x: Array, y: Array, **_: Any) -> Array:
        """Return the loss (n,) of images; ``y`` are classes (n,) or one-hot (n, C)."""
        inputs = self.inputs(x)
        return _array(self._target_of(inputs).loss(inputs, self._labels(y)))

    def loss_gradient(self, x: Array, y: Array, **_: Any) -> Array:
        """Return the gradient of the loss with respect to images, in their shape."""
        inputs = self.inputs(x)
        return self._to_art(self._target_of(inputs).gradient(inputs, self._labels(y)))

    def class_gradient(self, x: Array, label: Any = None, **_: Any) -> Array:
        """Return the gradients (n, C, …) of all logits with respect to images, or (n, 1, …) of those of ``label``."""
        wanted = range(self.nb_classes) if label is None else [label]
        inputs = self.inputs(x)
        places = [torch.from_numpy(np.broadcast_to(one, len(x)).copy()).long().to(inputs.device) for one in wanted]
        target = self._target_of(inputs)
        return np.stack([self._to_art(target.gradient(inputs, place, _logit)) for place in places], 1)

    def fit(self, x: Array, y: Array, **_: Any) -> None:
        """Refuse: a target is not trained."""
        raise NotImplementedError("a target is not trained")

    def get_activations(self, x: Array, layer: Any, batch_size: int, framework: bool = False) -> Array:
        """Refuse: a target shows no layers."""
        raise NotImplementedError("a target shows no layers")

    def _target_of(self, inputs: Tensor) -> Target:
        return self._target.at(torch.full((len(inputs),), self.row, device=inputs.device))

    def _labels(self, y: Array) -> Tensor:
        labels = torch.from_numpy(np.asarray(y)).to(self._clip.device)
        return labels.argmax(1) if labels.ndim > 1 else labels.long()

    def _to_art(self, values: Tensor) -> Array:
        images = values[..., self._sounding]
        return _array(images.reshape(len(images), 1, -1, images.shape[-1]))


def _logit(outputs: Outputs, labels: Tensor) -> Tensor:
    return outputs.logits.gather(1, labels[:, None]).squeeze(1)


def _array(values: Tensor) -> Array:
    return values.cpu().numpy().astype(np.float32)
