"""Ten steps of iterative FGSM: ours, the bare loop of forward and input gradient, and two libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import foolbox
import numpy as np
import pytest
import torch
from measuring import Figure, Table, interleaved
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advser.attacks.gradient_sign import IterativeFGSM
from advser.models.base import EmotionModel, FrontEnd
from advser.models.cnn4 import CNN4
from advser.stages.craft import Harness
from advser.target import Target
from advser.threat import Domain

STEPS, CLASSES, SECONDS = 10, 7, 3
EPSILON: dict[Domain, float] = {"waveform": 0.001, "spectrogram": 0.06}


class Frames(FrontEnd):
    """The waveform cut into frames (B, 160, T / 160)."""

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Cut."""
        return waveform.unfold(1, 160, 160).transpose(1, 2)


class Linear(EmotionModel):
    """A linear layer on the frames' mean: what an attack costs beside the model."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.frontend = Frames()
        self.head = nn.Linear(160, classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean over frames."""
        return features.mean(2)


MODELS: dict[str, Callable[[], EmotionModel]] = {
    "cnn4": lambda: CNN4(CLASSES, width=0.25, frames=160),
    "linear": lambda: Linear(CLASSES),
}


class Logits(nn.Module):
    """A model as other libraries want it: one tensor in, logits out."""

    def __init__(self, model: EmotionModel, domain: Domain, lengths: Tensor) -> None:
        super().__init__()
        self.model, self.domain, self.lengths = model, domain, lengths

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        return self.model.outputs(x, self.lengths[: len(x)], self.domain).logits


def frozen(name: str) -> EmotionModel:
    """Return a model as the store gives it to an attack (`advser.stages.train.load_model`)."""
    torch.manual_seed(0)
    model = MODELS[name]().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().requires_grad_(requires_grad=False)


def plain(name: str, domain: Domain, lengths: Tensor) -> Logits:
    """Return the same model as a user of another library has it."""
    torch.manual_seed(0)
    return Logits(MODELS[name]().eval(), domain, lengths).eval()


def sounds(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return waveforms, lengths and labels."""
    generator = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(batch, 16_000 * SECONDS, generator=generator).clamp(-3, 3)
    waveform = (waveform * 32768).round() / 32768
    return waveform, torch.full((batch,), waveform.shape[1]), torch.arange(batch) % CLASSES


def bare(model: EmotionModel, x: Tensor, lengths: Tensor, labels: Tensor, domain: Domain) -> Callable[[], object]:
    """Return what cannot be saved: as many forward passes and gradients of the input."""

    def run() -> None:
        for _ in range(STEPS):
            variable = x.clone().requires_grad_()
            loss = cross_entropy(model.outputs(variable, lengths, domain).logits, labels, reduction="sum")
            torch.autograd.grad(loss, variable)

    return run


def attacked(harness: Harness, target: Target, x: Tensor, labels: Tensor) -> Tensor:
    """Attack as the harness does: before its target, which counts and forbids."""
    with target:
        return harness.attack.perturb(target, x, labels, torch.Generator())


def of_foolbox(model: Logits, x: Tensor, labels: Tensor, epsilon: float) -> Callable[[], object]:
    """Return Foolbox's basic iterative method."""
    bounds = (float(x.min()) - 1, float(x.max()) + 1)
    wrapped = foolbox.PyTorchModel(model, bounds=bounds, device="cpu")
    attack = foolbox.attacks.LinfBasicIterativeAttack(abs_stepsize=epsilon / 4, steps=STEPS, random_start=False)
    return lambda: attack(wrapped, x, foolbox.criteria.Misclassification(labels), epsilons=epsilon)


def of_art(model: Logits, x: Tensor, labels: Tensor, epsilon: float) -> Callable[[], object]:
    """Return ART's basic iterative method."""
    from art.attacks.evasion import BasicIterativeMethod
    from art.estimators.classification import PyTorchClassifier

    bounds = (float(x.min()) - 1, float(x.max()) + 1)
    classifier = PyTorchClassifier(model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), CLASSES, clip_values=bounds)
    attack = BasicIterativeMethod(
        classifier, eps=epsilon, eps_step=epsilon / 4, max_iter=STEPS, batch_size=len(x), verbose=False
    )
    array, targets = x.numpy(), np.eye(CLASSES)[labels.numpy()]
    return lambda: attack.generate(array, y=targets)


@pytest.mark.parametrize("batch", [1, 8, 32])
@pytest.mark.parametrize("domain", ["waveform", "spectrogram"])
@pytest.mark.parametrize(("name", "goal"), [("cnn4", 1.05), ("linear", 1.3)])
def test_attack_loop(name: Literal["cnn4", "linear"], goal: float, domain: Domain, batch: int, table: Table) -> None:
    """Add four lines: ours against the bare loop, Foolbox and ART."""
    model, (waveform, lengths, labels) = frozen(name), sounds(batch)
    epsilon = EPSILON[domain]
    harness = Harness(IterativeFGSM(epsilon=epsilon, alpha=epsilon / 4, steps=STEPS), model, domain, "true")
    with torch.no_grad():
        target, x, given = harness.before(waveform, lengths, labels)
        x = x.clone()
    theirs = plain(name, domain, lengths)
    perturb: dict[str, Callable[[], Any]] = {
        "ours": lambda: attacked(harness, target, x, given),
        "bare loop": bare(model, x, lengths, labels, domain),
        "Foolbox": of_foolbox(theirs, x, labels, epsilon),
        "ART": of_art(theirs, x, labels, epsilon),
    }
    taken = interleaved(perturb, rounds=5 if name == "cnn4" else 9)
    what = f"{name}, {domain}, batch {batch}"
    for against, wanted in {"bare loop": goal, "Foolbox": 0.5, "ART": 0.5}.items():
        table.add(Figure("attack loop", what, taken["ours"] * 1e3, taken[against] * 1e3, against, "ms", wanted))
