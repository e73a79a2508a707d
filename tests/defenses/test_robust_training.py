"""Training on perturbed clips: each objective against its formula, and what each is there for."""

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
from advser.defenses.fast_training import LOST, PERTURBATION, Fast, Free
from advser.defenses.minimax import Madry, Mart, Trades, boosted_cross_entropy, divergence
from advser.defenses.mixup import Mixup
from advser.defenses.undefended import Undefended
from advser.errors import ContractError
from advser.models.base import EmotionModel
from advser.plugins.parameters import build
from advser.plugins.registries import DEFENSES
from advser.threat.target import Target

FGSM = {"name": "fgsm", "params": {"epsilon": 0.05}}


def by_hand(made: EmotionModel, batch: TrainingBatch, labels: Tensor, epsilon: float) -> Tensor:
    """FGSM on the features against labels, on a copy in evaluation mode."""
    x = batch.features.clone().requires_grad_()
    logits = copy.deepcopy(made).eval().outputs(x, batch.lengths, "spectrogram").logits
    (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), x)
    return batch.features + epsilon * gradient.sign()


def probabilities(made: EmotionModel, x: Tensor, batch: TrainingBatch) -> Tensor:
    return made.outputs(x, batch.lengths, "spectrogram").logits.softmax(1)


def test_madry_is_the_cross_entropy_on_what_is_crafted_with_the_true_labels() -> None:
    made = toys.model(toys.Linear)
    batch = toys.training_batch(made)
    p = probabilities(made, by_hand(made, batch, batch.labels, 0.05), batch)
    expected = -p[torch.arange(6), batch.labels].log().mean()
    torch.testing.assert_close(build(Madry, {"attack": FGSM}, "defense").loss(made, batch, 0), expected)


@pytest.mark.parametrize("weight", [0.0, 1.0, 6.0])
def test_trades_adds_the_divergence_that_its_attack_maximises(weight: float) -> None:
    made = toys.model(toys.Linear)
    batch = toys.training_batch(made)
    attack = {"name": "ifgsm", "params": {"epsilon": 0.05, "steps": 1, "random_start": 0.02}}
    start = batch.features + IterativeFGSM(epsilon=0.05, steps=0, random_start=0.02).perturb(
        Target(made, batch.lengths, "spectrogram"),
        torch.zeros_like(batch.features),
        batch.labels,
        torch.Generator().manual_seed(0),
    )
    x = start.clone().requires_grad_()
    p = probabilities(made, batch.features, batch)
    gap = (p * (p.log() - probabilities(made, x, batch).log())).sum(1)
    (gradient,) = torch.autograd.grad(gap.sum(), x, retain_graph=True)
    found = craft(made, batch, build(IterativeFGSM, attack["params"], "attack"), "spectrogram", "soft")
    crafted = (start + 2.5 * 0.05 * gradient.sign()).clamp(batch.features - 0.05, batch.features + 0.05)
    torch.testing.assert_close(found, crafted, atol=1e-5, rtol=0)

    q = probabilities(made, found, batch)
    expected = -p[torch.arange(6), batch.labels].log().mean() + weight * (p * (p / q).log()).sum(1).mean()
    batch = toys.training_batch(made)
    defense = build(Trades, {"attack": attack, "weight": weight}, "defense")
    torch.testing.assert_close(defense.loss(made, batch, 0), expected)


@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_mart_weighs_the_divergence_by_how_unsure_the_clean_clip_is(weight: float) -> None:
    made = toys.model(toys.Linear)
    batch = toys.training_batch(made)
    p = probabilities(made, batch.features, batch)
    q = probabilities(made, by_hand(made, batch, batch.labels, 0.05), batch)
    total = torch.tensor(0.0)
    for row, label in enumerate(batch.labels.tolist()):
        rival = max(q[row, other].item() for other in range(3) if other != label)
        boosted = -q[row, label].log() - torch.log(torch.tensor(1 - rival))
        total = total + boosted + weight * (p[row] * (p[row] / q[row]).log()).sum() * (1 - p[row, label])
    found = build(Mart, {"attack": FGSM, "weight": weight}, "defense").loss(made, batch, 0)
    torch.testing.assert_close(found, total / 6)


def test_losses_stay_finite_where_the_model_is_sure() -> None:
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


def test_fast_is_one_long_step_from_a_random_start() -> None:
    made = toys.model(toys.Linear)
    batch = toys.training_batch(made)
    noise = (torch.rand(batch.features.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1) * 0.1
    moved = replace(batch, features=batch.features + noise)
    step = by_hand(made, moved, batch.labels, 0.125)
    x = step.clamp(batch.features - 0.1, batch.features + 0.1)
    expected = functional.cross_entropy(made.outputs(x, batch.lengths, "spectrogram").logits, batch.labels)
    # The first step checks, and draws for it.
    torch.testing.assert_close(Fast(epsilon=0.1).loss(made, batch, 1), expected)


class Bent(EmotionModel):
    """Right at a distance of 0 and of ±ε from silence, wrong half way, which FGSM's long step jumps over."""

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


def silent_batch(made: EmotionModel) -> TrainingBatch:
    waveform, lengths = torch.zeros(4, toys.SAMPLES), torch.full((4,), toys.SAMPLES)
    features = made.frontend(waveform, lengths)
    return TrainingBatch(
        waveform, lengths, torch.zeros(4, dtype=torch.long), features, torch.Generator().manual_seed(0)
    )


def test_fast_falls_back_on_pgd_where_its_one_step_has_lost_touch_until_the_next_check() -> None:
    bent, straight = Bent(3), toys.model(toys.Linear)
    defense = Fast(epsilon=0.1, check_every=10)
    unguarded = Fast(epsilon=0.1, check_every=10, tolerance=1e9)
    batch = silent_batch(bent)
    guarded_loss, plain_loss = defense.loss(bent, batch, 0), unguarded.loss(bent, silent_batch(bent), 0)
    assert batch.kept[LOST]
    assert guarded_loss > 2 * plain_loss
    # Between checks it stays as it was, whatever the model has become.
    for step, lost in ((3, True), (9, True), (10, False), (11, False)):
        other = replace(toys.training_batch(straight), kept=batch.kept)
        assert defense.loss(straight, other, step).isfinite()
        assert bool(other.kept[LOST]) == lost


def test_the_guard_leaves_dropout_and_running_statistics_alone() -> None:
    made = toys.model(toys.Convolutional)
    twin, batch = copy.deepcopy(made), toys.training_batch(made)
    Fast(epsilon=0.1, check_every=1).loss(made, batch, 0)
    assert int(made.body[1].num_batches_tracked) == int(twin.body[1].num_batches_tracked) + 1
    assert all(module.training for module in made.modules())


def test_free_moves_the_perturbation_with_the_gradient_that_the_weights_had() -> None:
    made = toys.model(toys.Linear)
    batch = toys.training_batch(made)
    defense = Free(epsilon=0.1, replays=3)
    assert defense.showings() == 3
    assert Undefended().showings() == 1
    delta = torch.zeros_like(batch.features)
    for step in range(3):
        x = (batch.features + delta).requires_grad_()
        expected = functional.cross_entropy(made.outputs(x, batch.lengths, "spectrogram").logits, batch.labels)
        (gradient,) = torch.autograd.grad(expected, x)
        loss = defense.loss(made, batch, step)
        loss.backward()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(batch.kept[PERTURBATION].detach(), delta)
        delta = (delta + 0.1 * gradient.sign()).clamp(-0.1, 0.1)
    # The next batch begins with it, cut or filled up to its own length.
    for samples in (toys.SAMPLES - 64, toys.SAMPLES + 64):
        shorter = replace(batch, features=torch.zeros(6, 32, samples // 32), kept=dict(batch.kept))
        model = toys.Linear(3)
        model.head = nn.Linear(samples, 3)
        Free(epsilon=0.1).loss(model, shorter, 3)
        shared = min(samples, toys.SAMPLES) // 32
        torch.testing.assert_close(shorter.kept[PERTURBATION][..., :shared], delta[..., :shared])
        assert not shorter.kept[PERTURBATION][..., shared:].any()


def test_free_leaves_padding_alone_and_refuses_a_front_end_that_varies(monkeypatch: pytest.MonkeyPatch) -> None:
    made = toys.model(toys.Waveform)
    batch = toys.training_batch(made)
    defense = Free(epsilon=0.1, domain="waveform")
    for step in range(2):
        defense.loss(made, batch, step).backward()
    padding = torch.arange(toys.SAMPLES) >= batch.lengths[:, None]
    assert batch.kept[PERTURBATION].any()
    assert not batch.kept[PERTURBATION][padding].any()
    monkeypatch.setattr(toys.Sound, "varies_in_training", True)
    with pytest.raises(ContractError, match="allowed"):
        defense.loss(made, batch, 2)


def test_mixup_mixes_features_and_losses_by_the_same_share() -> None:
    made = toys.model(toys.Linear)
    batch = toys.training_batch(made)
    with torch.no_grad():
        # Of a linear model the logits mix as the features do.
        logits = made.outputs(batch.features, batch.lengths, "spectrogram").logits
        found = Mixup(alpha=1.0).loss(made, batch, 0)
    generator = torch.Generator().manual_seed(0)
    other = torch.randperm(6, generator=generator)
    assert not torch.equal(other, torch.arange(6))

    def mixed(share: float) -> Tensor:
        both = share * logits + (1 - share) * logits[other]
        losses = [functional.cross_entropy(both, labels) for labels in (batch.labels, batch.labels[other])]
        return share * losses[0] + (1 - share) * losses[1]

    shares = torch.linspace(0, 1, 20_001).tolist()
    assert min(abs(float(mixed(share) - found)) for share in shares) < 1e-4
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
    made = toys.model(toys.Linear)
    batch = toys.training_batch(made, clips=24)
    optimizer = torch.optim.Adam(made.parameters(), 0.01)
    for step in range(100):
        optimizer.zero_grad()
        defense.loss(made, batch, step).backward()
        optimizer.step()
    return made, batch


def right_under_attack(defense: Defense) -> float:
    made, batch = trained(defense)
    x = craft(made, batch, IterativeFGSM(epsilon=0.05, steps=10), "spectrogram", batch.labels)
    decided = made.eval().outputs(x, batch.lengths, "spectrogram").logits.argmax(1)
    return float((decided == batch.labels).float().mean())


@pytest.mark.parametrize("name", ROBUST)
def test_a_model_so_trained_withstands_an_attack_better_than_a_plain_one(name: str) -> None:
    defended = right_under_attack(build(DEFENSES.get(name), ROBUST[name], name))
    assert defended > 0.6
    assert right_under_attack(Undefended()) < 0.2
