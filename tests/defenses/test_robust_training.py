"""Training on perturbed clips: each objective equals its formula and makes a model more robust."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
import toys
from torch import Tensor, nn
from torch.nn import functional

from advser.attacks.gradient_sign import IterativeFGSM
from advser.defenses.base import Defense, TrainingBatch, craft
from advser.defenses.fast_training import OVERFITTED, PERTURBATION, Fast, Free
from advser.defenses.minimax import Madry, Mart, Trades, boosted_cross_entropy, divergence
from advser.defenses.mixup import Mixup
from advser.defenses.undefended import Undefended
from advser.errors import ContractError
from advser.models.base import EmotionModel
from advser.plugins.parameters import build
from advser.plugins.registries import DEFENSES
from advser.threat.target import Target

FGSM = {"name": "fgsm", "params": {"epsilon": 0.05}}


def fgsm_by_hand(model: EmotionModel, batch: TrainingBatch, labels: Tensor, epsilon: float) -> Tensor:
    """Return features perturbed by FGSM against ``labels``, on a copy of the model in evaluation mode."""
    x = batch.features.clone().requires_grad_()
    logits = copy.deepcopy(model).eval().outputs(x, batch.lengths, "spectrogram").logits
    (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), x)
    return batch.features + epsilon * gradient.sign()


def probabilities(model: EmotionModel, x: Tensor, batch: TrainingBatch) -> Tensor:
    return model.outputs(x, batch.lengths, "spectrogram").logits.softmax(1)


def test_madry_is_the_cross_entropy_on_clips_crafted_with_the_true_labels() -> None:
    model = toys.model(toys.Linear)
    batch = toys.training_batch(model)
    p = probabilities(model, fgsm_by_hand(model, batch, batch.labels, 0.05), batch)
    expected = -p[torch.arange(6), batch.labels].log().mean()
    torch.testing.assert_close(build(Madry, {"attack": FGSM}, "defense").loss(model, batch, 0), expected)


@pytest.mark.parametrize("weight", [0.0, 1.0, 6.0])
def test_trades_adds_the_divergence_that_its_attack_maximises(weight: float) -> None:
    model = toys.model(toys.Linear)
    batch = toys.training_batch(model)
    attack = {"name": "ifgsm", "params": {"epsilon": 0.05, "steps": 1, "random_start": 0.02}}
    start = batch.features + IterativeFGSM(epsilon=0.05, steps=0, random_start=0.02).perturb(
        Target(model, batch.lengths, "spectrogram"),
        torch.zeros_like(batch.features),
        batch.labels,
        torch.Generator().manual_seed(0),
    )
    x = start.clone().requires_grad_()
    p = probabilities(model, batch.features, batch)
    gap = (p * (p.log() - probabilities(model, x, batch).log())).sum(1)
    (gradient,) = torch.autograd.grad(gap.sum(), x, retain_graph=True)
    crafted = craft(model, batch, build(IterativeFGSM, attack["params"], "attack"), "spectrogram", "soft")
    expected_x = (start + 2.5 * 0.05 * gradient.sign()).clamp(batch.features - 0.05, batch.features + 0.05)
    torch.testing.assert_close(crafted, expected_x, atol=1e-5, rtol=0)

    q = probabilities(model, crafted, batch)
    expected = -p[torch.arange(6), batch.labels].log().mean() + weight * (p * (p / q).log()).sum(1).mean()
    batch = toys.training_batch(model)
    defense = build(Trades, {"attack": attack, "weight": weight}, "defense")
    torch.testing.assert_close(defense.loss(model, batch, 0), expected)


@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_mart_weighs_the_divergence_by_the_uncertainty_of_the_clean_clip(weight: float) -> None:
    model = toys.model(toys.Linear)
    batch = toys.training_batch(model)
    p = probabilities(model, batch.features, batch)
    q = probabilities(model, fgsm_by_hand(model, batch, batch.labels, 0.05), batch)
    total = torch.tensor(0.0)
    for row, label in enumerate(batch.labels.tolist()):
        rival = max(q[row, other].item() for other in range(3) if other != label)
        boosted = -q[row, label].log() - torch.log(torch.tensor(1 - rival))
        total = total + boosted + weight * (p[row] * (p[row] / q[row]).log()).sum() * (1 - p[row, label])
    loss = build(Mart, {"attack": FGSM, "weight": weight}, "defense").loss(model, batch, 0)
    torch.testing.assert_close(loss, total / 6)


def test_losses_are_finite_for_a_confident_model() -> None:
    logits = torch.tensor([[300.0, 0.0, -300.0], [-300.0, 300.0, 0.0]], requires_grad=True)
    labels = torch.tensor([0, 0])
    boosted = boosted_cross_entropy(logits, labels)
    torch.testing.assert_close(boosted, torch.tensor([0.0, 600.0 + 300.0]))
    gap = divergence(logits, logits.flip(0))
    assert gap.isfinite().all()
    (boosted.sum() + gap.sum()).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    two = boosted_cross_entropy(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    torch.testing.assert_close(two, -2 * torch.tensor([1.0]).sigmoid().log())


def test_fast_is_a_single_long_step_from_a_random_start() -> None:
    model = toys.model(toys.Linear)
    batch = toys.training_batch(model)
    noise = (torch.rand(batch.features.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1) * 0.1
    moved = replace(batch, features=batch.features + noise)
    step = fgsm_by_hand(model, moved, batch.labels, 0.125)
    x = step.clamp(batch.features - 0.1, batch.features + 0.1)
    expected = functional.cross_entropy(model.outputs(x, batch.lengths, "spectrogram").logits, batch.labels)
    # Step 0 runs a check, which draws random numbers; step 1 does not.
    torch.testing.assert_close(Fast(epsilon=0.1).loss(model, batch, 1), expected)


class Bent(EmotionModel):
    """A model that is right at a distance of 0 and ±ε from silence, and wrong between them, where FGSM never looks."""

    epsilon: ClassVar[float] = 0.1

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.frontend = toys.Frames()
        self.head = nn.Linear(1, classes)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-60.0], [60.0], [0.0]])[:classes])
            self.head.bias.copy_(torch.tensor([27.0, -27.0, -60.0])[:classes])

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return (torch.pi * features / self.epsilon).sin().square().flatten(1).mean(1, keepdim=True)


def silent_batch(model: EmotionModel) -> TrainingBatch:
    waveform, lengths = torch.zeros(4, toys.SAMPLES), torch.full((4,), toys.SAMPLES)
    features = model.frontend(waveform, lengths)
    return TrainingBatch(
        waveform, lengths, torch.zeros(4, dtype=torch.long), features, torch.Generator().manual_seed(0)
    )


def test_fast_trains_on_pgd_from_a_failed_check_to_the_next_passed_check() -> None:
    bent, straight = Bent(3), toys.model(toys.Linear)
    defense = Fast(epsilon=0.1, check_every=10)
    unguarded = Fast(epsilon=0.1, check_every=10, tolerance=1e9)
    batch = silent_batch(bent)
    guarded_loss, plain_loss = defense.loss(bent, batch, 0), unguarded.loss(bent, silent_batch(bent), 0)
    assert batch.kept[OVERFITTED]
    assert guarded_loss > 2 * plain_loss
    # Between checks the result does not change, even for a different model.
    for step, overfitted in ((3, True), (9, True), (10, False), (11, False)):
        other = replace(toys.training_batch(straight), kept=batch.kept)
        assert defense.loss(straight, other, step).isfinite()
        assert bool(other.kept[OVERFITTED]) == overfitted


def test_the_check_does_not_change_dropout_and_running_statistics() -> None:
    model = toys.model(toys.Convolutional)
    twin, batch = copy.deepcopy(model), toys.training_batch(model)
    Fast(epsilon=0.1, check_every=1).loss(model, batch, 0)
    assert int(model.body[1].num_batches_tracked) == int(twin.body[1].num_batches_tracked) + 1
    assert all(module.training for module in model.modules())


def test_free_updates_the_perturbation_by_the_gradient_of_the_same_backward_pass() -> None:
    model = toys.model(toys.Linear)
    batch = toys.training_batch(model)
    defense = Free(epsilon=0.1, replays=3)
    assert defense.showings() == 3
    assert Undefended().showings() == 1
    delta = torch.zeros_like(batch.features)
    for step in range(3):
        x = (batch.features + delta).requires_grad_()
        expected = functional.cross_entropy(model.outputs(x, batch.lengths, "spectrogram").logits, batch.labels)
        (gradient,) = torch.autograd.grad(expected, x)
        loss = defense.loss(model, batch, step)
        loss.backward()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(batch.kept[PERTURBATION].detach(), delta)
        delta = (delta + 0.1 * gradient.sign()).clamp(-0.1, 0.1)
    # The next batch starts from the perturbation, cut or padded to the batch's own length.
    for samples in (toys.SAMPLES - 64, toys.SAMPLES + 64):
        shorter = replace(batch, features=torch.zeros(6, 32, samples // 32), kept=dict(batch.kept))
        resized = toys.Linear(3)
        resized.head = nn.Linear(samples, 3)
        Free(epsilon=0.1).loss(resized, shorter, 3)
        shared = min(samples, toys.SAMPLES) // 32
        torch.testing.assert_close(shorter.kept[PERTURBATION][..., :shared], delta[..., :shared])
        assert not shorter.kept[PERTURBATION][..., shared:].any()


def test_free_does_not_perturb_padding_and_rejects_random_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toys.model(toys.Waveform)
    batch = toys.training_batch(model)
    defense = Free(epsilon=0.1, domain="waveform")
    for step in range(2):
        defense.loss(model, batch, step).backward()
    padding = torch.arange(toys.SAMPLES) >= batch.lengths[:, None]
    assert batch.kept[PERTURBATION].any()
    assert not batch.kept[PERTURBATION][padding].any()
    monkeypatch.setattr(toys.Sound, "varies_in_training", True)
    with pytest.raises(ContractError, match=r"got 'waveform' with Sound, .* expected spectrogram"):
        defense.loss(model, batch, 2)


def test_mixup_mixes_features_and_losses_by_the_same_share() -> None:
    model = toys.model(toys.Linear)
    batch = toys.training_batch(model)
    with torch.no_grad():
        # A linear model's logits mix as the features do.
        logits = model.outputs(batch.features, batch.lengths, "spectrogram").logits
        loss = Mixup(alpha=1.0).loss(model, batch, 0)
    generator = torch.Generator().manual_seed(0)
    other = torch.randperm(6, generator=generator)
    assert not torch.equal(other, torch.arange(6))

    def mixed(share: float) -> Tensor:
        mixture = share * logits + (1 - share) * logits[other]
        losses = [functional.cross_entropy(mixture, labels) for labels in (batch.labels, batch.labels[other])]
        return share * losses[0] + (1 - share) * losses[1]

    shares = torch.linspace(0, 1, 20_001).tolist()
    assert min(abs(float(mixed(share) - loss)) for share in shares) < 1e-4
    for alpha, spread in ((1e-3, 0.5), (1e4, 0.0)):
        drawn = [Mixup(alpha=alpha)._share(generator) for _ in range(40)]
        assert all(abs(abs(share - 0.5) - spread) < 0.05 for share in drawn)
    drawn = [Mixup(alpha=1e-3)._share(generator) > 0.5 for _ in range(40)]
    assert 5 < sum(drawn) < 35


ROBUST: dict[str, dict[str, Any]] = {
    "madry": {"attack": {"name": "ifgsm", "params": {"epsilon": 0.07, "steps": 3, "random_start": 0.07}}},
    "trades": {"attack": {"name": "ifgsm", "params": {"epsilon": 0.07, "steps": 3, "random_start": 0.01}}},
    "mart": {"attack": {"name": "pgd", "params": {"epsilon": 0.07, "steps": 3}}},
    "fast": {"epsilon": 0.07},
    "free": {"epsilon": 0.07, "replays": 3},
}


def trained(defense: Defense) -> tuple[EmotionModel, TrainingBatch]:
    model = toys.model(toys.Linear)
    batch = toys.training_batch(model, clips=24)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(100):
        optimizer.zero_grad()
        defense.loss(model, batch, step).backward()
        optimizer.step()
    return model, batch


def accuracy_under_attack(defense: Defense) -> float:
    model, batch = trained(defense)
    x = craft(model, batch, IterativeFGSM(epsilon=0.05, steps=10), "spectrogram", batch.labels)
    decisions = model.eval().outputs(x, batch.lengths, "spectrogram").logits.argmax(1)
    return float((decisions == batch.labels).float().mean())


@pytest.mark.parametrize("name", ROBUST)
def test_a_defended_model_is_more_robust_than_an_undefended_model(name: str) -> None:
    defended = accuracy_under_attack(build(DEFENSES.get(name), ROBUST[name], name))
    assert defended > 0.6
    assert accuracy_under_attack(Undefended()) < 0.2
