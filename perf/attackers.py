"""Ten steps of iterative FGSM on a model: by the harness, by a bare loop, and by other libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advser.attacks.gradient_sign import IterativeFGSM
from advser.models.base import EmotionModel
from advser.models.cnn4 import CNN4
from advser.models.frontends import LogMel
from advser.models.precision import computing, is_faster_in_bf16, settled
from advser.models.terms import Domain, Precision, WantedPrecision
from advser.stages.harness import ClipBatch, Harness

STEPS, CLASSES, SECONDS = 10, 7, 3
EPSILON: dict[Domain, float] = {"waveform": 0.001, "spectrogram": 0.06}
PEERS = ("Foolbox", "torchattacks", "ART")
FROZEN = ", weights frozen"


class Linear(EmotionModel):
    """One linear layer on cnn4's spectrogram; it shows the cost of an attack beside the model."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.frontend = LogMel()
        self.head = nn.Linear(64 * self.frontend.frames, classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return the whole spectrogram, flat."""
        return features.flatten(1)


MODELS: dict[str, Callable[[], EmotionModel]] = {
    "cnn4": lambda: CNN4(CLASSES, width=0.25),
    "linear": lambda: Linear(CLASSES),
}


def precision(name: str, wanted: WantedPrecision = "auto") -> Precision:
    """Return what the harness computes the gradients of a model in, here."""
    return settled(wanted, "cpu") if is_faster_in_bf16(MODELS[name]()) else "fp32"


def sounds(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return waveforms (B, T), lengths (B,) and labels (B,): clips of 5/6 to 1 times `SECONDS`."""
    generator = torch.Generator().manual_seed(0)
    samples = 16_000 * SECONDS
    waveform = 0.1 * torch.randn(batch, samples, generator=generator).clamp(-3, 3)
    lengths = samples - torch.arange(batch) * (samples // 6) // batch
    waveform = (waveform * 32768).round() / 32768 * (torch.arange(samples) < lengths[:, None])
    return waveform, lengths, torch.arange(batch) % CLASSES


def ours(name: str, domain: Domain, batch: int, wanted: WantedPrecision = "auto") -> Mapping[str, Callable[[], Any]]:
    """Return the attack in the harness, the same steps written out in place, and a bare loop of its passes.

    All use the same precision, and the model as `advser.stages.train.load_model` returns it.
    """
    torch.manual_seed(0)
    model = MODELS[name]().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = model.eval().requires_grad_(requires_grad=False)
    waveform, lengths, labels = sounds(batch)
    epsilon = EPSILON[domain]
    attack = IterativeFGSM(epsilon=epsilon, alpha=epsilon / 4, steps=STEPS)
    budget = attack.budget(domain)
    harness = Harness(attack, model, domain, attack.access, "true", budget, precision=precision(name, wanted))
    with torch.no_grad():
        target, x, attack_labels = harness.open(ClipBatch(waveform, lengths, labels))
        x = x.clone()

    def attacked() -> None:
        with target:
            attack.perturb(target, x, attack_labels, torch.Generator())

    def gradient(at: Tensor) -> Tensor:
        variable = at.detach().requires_grad_()
        with computing(target.precision, x.device):
            logits = model.outputs(variable, lengths, domain).logits
        loss = cross_entropy(logits.float(), labels, reduction="sum")
        return torch.autograd.grad(loss, variable)[0]

    def bare() -> None:
        for _ in range(STEPS):
            gradient(x)

    def written_out() -> None:
        low, high = x - epsilon, x + epsilon
        perturbed = x
        for _ in range(STEPS):
            step = gradient(perturbed).sign_()
            perturbed = step.mul_(epsilon / 4).add_(perturbed).clamp_(low, high)

    return {"ours": attacked, "bare loop": bare, "its steps written out": written_out}


class Logits(nn.Module):
    """A model for other libraries: one tensor in, logits out."""

    def __init__(self, model: EmotionModel, domain: Domain, lengths: Tensor) -> None:
        super().__init__()
        self.model, self.domain, self.lengths = model, domain, lengths

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        return self.model.outputs(x, self.lengths[: len(x)], self.domain).logits


class Rescaled(nn.Module):
    """A model whose input on [0, 1], to which torchattacks clips, represents [−``reach``, ``reach``]."""

    def __init__(self, model: nn.Module, reach: float) -> None:
        super().__init__()
        self.model, self.reach = model, reach

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.model((x - 0.5) * (2 * self.reach))
        return logits


def theirs(name: str, domain: Domain, batch: int, *, frozen: bool = False) -> Mapping[str, Callable[[], Any]]:
    """Return the same attack by other libraries, on the same model in plain PyTorch.

    Args:
        name: name of the model.
        domain: domain of the attack.
        batch: number of clips.
        frozen: whether the weights take no gradient, against the libraries' documentation; the result's names end with
            `FROZEN` then.
    """
    torch.manual_seed(0)
    waveform, lengths, labels = sounds(batch)
    emotion_model = MODELS[name]().eval().requires_grad_(requires_grad=not frozen)
    with torch.no_grad():
        x = emotion_model.inputs(waveform, lengths, domain)
    reach = 2 * float(x.abs().max())
    model, epsilon = Logits(emotion_model, domain, lengths).eval(), EPSILON[domain]
    scaled = Rescaled(model, reach).eval(), x / (2 * reach) + 0.5, labels, epsilon / (2 * reach)
    attacks = (
        of_foolbox(model, x, labels, epsilon, reach),
        of_torchattacks(*scaled),
        of_art(model, x, labels, epsilon, reach),
    )
    return {f"{peer}{FROZEN if frozen else ''}": attack for peer, attack in zip(PEERS, attacks, strict=True)}


def of_foolbox(model: nn.Module, x: Tensor, labels: Tensor, epsilon: float, reach: float) -> Callable[[], Any]:
    """Return Foolbox's basic iterative method."""
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(-reach, reach), device="cpu")
    attack = foolbox.attacks.LinfBasicIterativeAttack(abs_stepsize=epsilon / 4, steps=STEPS, random_start=False)
    return lambda: attack(wrapped, x, foolbox.criteria.Misclassification(labels), epsilons=epsilon)


def of_torchattacks(model: nn.Module, x: Tensor, labels: Tensor, epsilon: float) -> Callable[[], Any]:
    """Return torchattacks' basic iterative method."""
    import torchattacks

    attack = torchattacks.BIM(model, eps=epsilon, alpha=epsilon / 4, steps=STEPS)
    return lambda: attack(x, labels)


def of_art(model: nn.Module, x: Tensor, labels: Tensor, epsilon: float, reach: float) -> Callable[[], Any]:
    """Return ART's basic iterative method."""
    from art.attacks.evasion import BasicIterativeMethod
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), CLASSES, clip_values=(-reach, reach)
    )
    attack = BasicIterativeMethod(
        classifier, eps=epsilon, eps_step=epsilon / 4, max_iter=STEPS, batch_size=len(x), verbose=False
    )
    array, targets = x.numpy(), np.eye(CLASSES)[labels.numpy()]
    return lambda: attack.generate(array, y=targets)
