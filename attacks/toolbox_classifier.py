"""A clip's target as a classifier of the Adversarial Robustness Toolbox (ART).

Import this module inside functions: it needs ART, which is optional.
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
"""Function of the target of n copies of a clip, and n inputs (n, …); returns scores (n, C)."""


class ClipClassifier(
    ClassGradientsMixin,
    ClassifierMixin,
    LossGradientsMixin,
    NeuralNetworkMixin,
    BaseEstimator,
):
    """A clip of a batch as ART's classifier; the target restricts and counts all access.

    ART gets one-channel images, (n, 1, bands, frames) or (n, 1, 1, samples), without the clip's padding, as float32.
    Values lie on [−1, 1] in a waveform. In a spectrogram they lie in the clip's own range, widened by ε, or by one
    standard deviation without an L∞ budget.

    Args:
        target: target of the batch.
        x: inputs of the batch (B, …).
        row: index of the clip in the batch.
        budget: the attack's budget.
        answer: returns the scores that ART gets.
        classes: number of columns of the scores.
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
        """The clean clip, as a batch of 1."""
        return self._to_art(self._clip[None])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, (1, bands, frames) or (1, 1, samples)."""
        return self.clean.shape[1:]

    def inputs(self, images: Array) -> Tensor:
        """Return the target's inputs (n, …): each image within the clip's padding."""
        whole = self._clip.repeat(len(images), *[1] * self._clip.ndim)
        values = torch.from_numpy(np.ascontiguousarray(images)).to(whole)
        whole[..., self._sounding] = values.reshape(len(images), *self._clip.shape[:-1], -1)
        return whole

    def predict(self, x: Array, batch_size: int = 128, **_: Any) -> Array:
        """Return the scores (n, C) of images."""
        inputs = torch.split(self.inputs(x), batch_size)
        return _array(torch.cat([self._answer(self._target_of(part), part) for part in inputs]))

    def compute_loss(self, x: Array, y: Array, **_: Any) -> Array:
        """Return the loss (n,) of images; ``y`` are classes (n,) or one-hot (n, C)."""
        inputs = self.inputs(x)
        return _array(self._target_of(inputs).loss(inputs, self._labels(y)))

    def loss_gradient(self, x: Array, y: Array, **_: Any) -> Array:
        """Return the gradient of the loss with respect to images, in the shape of ``x``."""
        inputs = self.inputs(x)
        return self._to_art(self._target_of(inputs).gradient(inputs, self._labels(y)))

    def class_gradient(self, x: Array, label: Any = None, **_: Any) -> Array:
        """Return the gradients of all logits (n, C, …), or of the logits of ``label`` (n, 1, …)."""
        columns = range(self.nb_classes) if label is None else [label]
        inputs = self.inputs(x)
        labels = [torch.from_numpy(np.broadcast_to(column, len(x)).copy()).long() for column in columns]
        target = self._target_of(inputs)
        gradients = [target.gradient(inputs, label.to(inputs.device), _logit) for label in labels]
        return np.stack([self._to_art(gradient) for gradient in gradients], 1)

    def fit(self, x: Array, y: Array, **_: Any) -> None:
        """Raise NotImplementedError: a target cannot be trained."""
        raise NotImplementedError("fit: got a target, expected a model that can be trained")

    def get_activations(self, x: Array, layer: Any, batch_size: int, framework: bool = False) -> Array:
        """Raise NotImplementedError: a target has no accessible layers."""
        raise NotImplementedError("get_activations: got a target, expected a model with accessible layers")

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
