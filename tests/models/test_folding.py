"""Batch normalisation folded into convolutions: equal outputs by fewer passes, and the context restores the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from advser.models.cnn4 import CNN4
from advser.models.folding import folded, normalise_as_trained
from advser.models.resnet50 import ResNet50
from advser.models.tiny import Tiny
from advser.models.vgg16 import VGG16
from advser.threat.target import Target

MODELS: dict[str, Callable[[], nn.Module]] = {
    "cnn4": lambda: CNN4(3, width=0.05, frames=32),
    "vgg16": lambda: VGG16(3, width=0.05, frames=32),
    "resnet50": lambda: ResNet50(3, width=0.05, frames=32),
    "tiny": lambda: Tiny(3, frames=32),
}


class Operations(TorchDispatchMode):
    """Count the operations that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]
        self.counts[function.overloadpacket.__name__] += 1
        return function(*arguments, **(keywords or {}))


def trained(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a model in evaluation mode whose normalisations differ from the identity."""
    torch.manual_seed(0)
    model = make()
    normalise_as_trained(model)
    return model.eval()


def normalisations(run: Callable[[], object]) -> int:
    """Return the number of batch normalisations that ``run`` computes."""
    with Operations() as operations:
        run()
    return sum(number for name, number in operations.counts.items() if "batch_norm" in name)


@pytest.mark.parametrize("name", MODELS)
def test_a_target_computes_no_normalisation_and_returns_the_logits_of_the_model(name: str) -> None:
    model = trained(MODELS[name])
    features, lengths = torch.randn(2, 64, 32), torch.tensor([8000, 8000])
    expected = model.outputs(features, lengths, "spectrogram").logits
    assert normalisations(lambda: model.outputs(features, lengths, "spectrogram")) > 0
    with Target(model, lengths, "spectrogram") as target:
        torch.testing.assert_close(target.logits(features), expected, rtol=1e-4, atol=1e-4)
        assert normalisations(lambda: target.gradient(features, torch.tensor([0, 1]))) == 0


@pytest.mark.parametrize("name", MODELS)
def test_the_context_restores_all_modules_weights_and_buffers(name: str) -> None:
    model = trained(MODELS[name])

    def state() -> dict[str, tuple[int, ...]]:
        values = {**dict(model.named_modules()), **dict(model.named_parameters()), **dict(model.named_buffers())}
        return {name: (id(value), getattr(value, "_version", 0)) for name, value in values.items()}

    before = state()
    with pytest.raises(KeyboardInterrupt), folded(model):
        assert state() != before
        raise KeyboardInterrupt
    assert state() == before


def hooked(kind: str) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    getattr(model[0], f"register_{kind}")(lambda *_: None)
    return model


def shared() -> nn.Module:
    convolution = nn.Conv2d(2, 2, 3, padding=1)
    return nn.Sequential(nn.Conv2d(1, 2, 3), convolution, nn.BatchNorm2d(2), nn.ReLU(), convolution)


class Halved(nn.Conv2d):
    """A subclass that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


class Twice(nn.Sequential):
    """A subclass that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :1]) * 2


UNFOLDABLE: dict[str, Callable[[], nn.Module]] = {
    "forward hook": lambda: hooked("forward_hook"),
    "forward pre-hook": lambda: hooked("forward_pre_hook"),
    "backward hook": lambda: hooked("full_backward_hook"),
    "backward pre-hook": lambda: hooked("full_backward_pre_hook"),
    "convolution used twice": shared,
    "subclass of a convolution": lambda: nn.Sequential(Halved(1, 2, 3), nn.BatchNorm2d(2)),
    "subclass of a sequence": lambda: Twice(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)),
    "no statistics": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)),
    "no neighbours": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2)),
}


@pytest.mark.parametrize("name", UNFOLDABLE)
def test_modules_that_may_compute_something_else_are_not_folded(name: str) -> None:
    model, x = trained(UNFOLDABLE[name]), torch.randn(2, 1, 8, 8)
    expected = model(x)
    with folded(model):
        assert torch.equal(model(x), expected)
        assert normalisations(lambda: model(x)) == 1


class Sliced(Tiny):
    """A model that uses part of a sequence."""

    folds: ClassVar[bool] = False

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        first = self.body[0][:1](features.unsqueeze(1))
        return super().embed(features, lengths) + first.mean()


def test_a_model_that_uses_part_of_a_sequence_is_not_folded() -> None:
    model = trained(lambda: Sliced(3, frames=32))
    features, lengths = torch.randn(2, 64, 32), torch.tensor([8000, 8000])
    expected = model.outputs(features, lengths, "spectrogram").logits
    with Target(model, lengths, "spectrogram") as target:
        assert torch.equal(target.logits(features), expected)
    with folded(model):
        assert not torch.allclose(model.outputs(features, lengths, "spectrogram").logits, expected, atol=1e-3)


def test_access_to_a_folded_weight_raises_an_error() -> None:
    model = trained(lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    with folded(model), pytest.raises(AttributeError, match="weight"):
        model[0].weight  # noqa: B018
