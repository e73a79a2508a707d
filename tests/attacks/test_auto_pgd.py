"""Auto-PGD, untargeted and targeted: its schedule, losses, results and costs."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
import toys
from auto_pgd_batch import Batch, generator
from torch import Tensor

from advser.attacks.auto_pgd import APGD, APGDTargeted, checkpoints, towards
from advser.attacks.base import Attack
from advser.attacks.best import Best
from advser.attacks.ensemble import Ensemble
from advser.attacks.gradient_sign import FGSM, PGD, IterativeFGSM
from advser.attacks.square import Square
from advser.models.base import EmotionModel, Outputs
from advser.threat.admission import round_within
from advser.threat.budget import Budget, per_clip
from advser.threat.model import Norm
from advser.threat.objectives import Loss, cross_entropy, difference_of_logits_ratio, evasion, margin
from advser.threat.passes import Ascent
from advser.threat.target import Target

CLASSES = (2, 3, 4, 7)


def test_the_checkpoints_equal_the_sources() -> None:
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [0, 1]
    for steps in range(1, 40):
        assert checkpoints(steps)[-1] <= steps


@pytest.mark.parametrize("classes", CLASSES)
def test_the_ratio_of_logit_differences_ignores_their_scale(classes: int) -> None:
    logits = torch.randn(20, classes, generator=generator())
    labels = torch.arange(20) % classes
    ratios = difference_of_logits_ratio(Outputs(logits, logits), labels)
    if classes == 2:
        assert torch.equal(ratios, margin(Outputs(logits, logits), labels))
        return
    ranked = logits.sort(1, descending=True).values
    by_hand = [
        (max(row[:label].tolist() + row[label + 1 :].tolist()) - float(row[label])) / float(order[0] - order[2])
        for row, label, order in zip(logits, labels.tolist(), ranked, strict=True)
    ]
    torch.testing.assert_close(ratios, torch.tensor(by_hand))
    larger = difference_of_logits_ratio(Outputs(50 * logits, logits), labels)
    torch.testing.assert_close(larger, ratios)


@pytest.mark.parametrize("classes", CLASSES)
def test_the_targeted_loss_is_above_0_where_the_target_class_beats_the_label(classes: int) -> None:
    logits = torch.randn(40, classes, generator=generator())
    labels = torch.arange(40) % classes
    aims = (labels + 1) % classes
    losses = towards(Outputs(logits, logits), labels, aims)
    rows = torch.arange(40)
    assert torch.equal(losses > 0, logits[rows, aims] > logits[rows, labels])
    assert (losses > 0).any()
    larger = towards(Outputs(50 * logits, logits), labels, aims)
    torch.testing.assert_close(larger, losses if classes >= 4 else 50 * losses)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize(
    "attack",
    [
        APGD(epsilon=0.05, steps=15),
        APGD(epsilon=0.05, steps=15, loss="cross-entropy"),
        APGD(epsilon=0.05, steps=15, loss="margin"),
        APGD(epsilon=0.05, steps=15, loss="dlr"),
        APGDTargeted(epsilon=0.05, steps=15),
    ],
    ids=["objective", "cross-entropy", "margin", "dlr", "targeted"],
)
def test_it_is_at_least_as_strong_as_fixed_steps_for_any_number_of_classes(attack: Attack, classes: int) -> None:
    batch = Batch(classes)
    robust = batch.robust(attack)
    # + 2, because the cross-entropy of fixed steps may mislead one or two other clips.
    assert robust <= batch.robust(IterativeFGSM(epsilon=0.05, steps=15)) + 2
    assert robust < batch.robust(FGSM(epsilon=0.01)), "the attack misleads no more clips than a small step"


@pytest.mark.parametrize("classes", CLASSES)
def test_square_and_ensemble_work_with_any_number_of_classes(classes: int) -> None:
    batch = Batch(classes)
    square = Square(epsilon=0.2, queries=30)
    ensemble = Ensemble(
        epsilon=0.05,
        attacks=[
            {"name": "apgd", "params": {"loss": "dlr", "steps": 5}},
            {"name": "apgd-targeted", "params": {"steps": 5}},
            {"name": "square", "params": {"queries": 5}},
        ],
    )
    assert batch.robust(square) < len(batch.x)
    assert batch.robust(ensemble) <= batch.robust(APGD(epsilon=0.05, loss="dlr", steps=5))


@pytest.mark.parametrize("norm", get_args(Norm))
def test_on_a_linear_model_it_gains_epsilon_times_the_dual_norm(norm: Norm) -> None:
    model = toys.model(toys.Linear, classes=2)
    x, lengths, _ = toys.sounds()
    x = x * 0.2  # away from full scale
    weight = model.head.weight.detach()
    labels = torch.arange(6) % 2
    lengths[:] = toys.SAMPLES
    norms = model.frontend(x, lengths).flatten(1).norm(dim=1)
    epsilon = 0.004
    dual = (weight[0] - weight[1]).norm(p=1 if norm == "linf" else 2) * (norms if norm == "relative-l2" else 1)
    with Target(model, lengths, "waveform") as target:
        attack = Unrounded(epsilon=epsilon, norm=norm, steps=40, loss="margin")
        perturbed = attack.admitted(attack.perturb(target, x, labels, generator()), x, target)
        gained = target.loss(perturbed, labels, margin) - target.loss(x, labels, margin)
    torch.testing.assert_close(gained, (epsilon * dual).expand(6), rtol=1e-3, atol=1e-5)


class Unrounded(APGD):
    """Auto-PGD without rounding to 16-bit PCM."""

    def judged(self, perturbed: Tensor, x: Tensor, target: Target) -> Tensor:
        return self.admitted(perturbed, x, target)


class Watched(Target):
    """Records its inputs and answers."""

    answers: list[tuple[Tensor, Ascent]]

    def ascent(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> Ascent:
        self.answers = [*getattr(self, "answers", []), (x, self.altered(super().ascent(x, labels, loss)))]
        return self.answers[-1][1]

    def altered(self, values: Ascent) -> Ascent:
        return values


class Fickle(Watched):
    """Misclassifies clips at random, whatever their loss."""

    def altered(self, values: Ascent) -> Ascent:
        draw = torch.rand(len(values.loss), generator=generator(len(getattr(self, "answers", []))))
        return replace(values, margin=draw - 0.8)


@pytest.mark.parametrize("loss", ["cross-entropy", "margin", "dlr"])
def test_a_run_returns_a_misclassified_iterate_or_else_the_highest_loss(loss: str) -> None:
    batch = Batch(4)
    attack = APGD(epsilon=0.03, steps=12, loss=loss)
    with batch.target(Fickle) as target:
        assert isinstance(target, Fickle)
        result = attack._climb(target, batch.x, batch.labels, attack._aim(target), generator())
    margins = torch.stack([values.margin for _, values in target.answers])
    losses = torch.stack([values.loss for _, values in target.answers])
    ranks = losses.double() + 1e3 * (margins > 0)
    best = torch.stack([x for x, _ in target.answers])[ranks.argmax(0), torch.arange(len(result))]
    assert torch.equal(result, best)
    assert len(target.answers) == 13
    assert (losses.argmax(0) != ranks.argmax(0)).any()


def test_overshooting_steps_are_halved_and_the_search_restarts_from_the_best_point() -> None:
    batch = Batch(3)
    attack = APGD(epsilon=0.2, steps=60)
    with batch.target(Watched) as target:
        assert isinstance(target, Watched)
        attack._climb(target, batch.x, batch.labels, cross_entropy, generator())
    points = torch.stack([x for x, _ in target.answers])
    moved = points.diff(dim=0).flatten(2).abs().amax(2)
    assert moved[:5].amin() > 4 * moved[-5:].amax(), "the step size did not shrink"
    losses = torch.stack([values.loss for _, values in target.answers])
    assert (losses[-1] >= 0.99 * losses.amax(0)).all()


def test_each_clip_has_its_best_example_of_all_restarts() -> None:
    batch = Batch(7, "waveform")
    attack = APGD(epsilon=0.0005, steps=3, restarts=4)
    everything = torch.arange(len(batch.x))
    # Evasion of a detector, so that the search ends for no clip and all clips take all restarts.
    with batch.target(objective=evasion) as target:
        target._model.detector = toys.Deaf()
        shared, runs = generator(), []
        for _ in range(4):
            best = Best(attack, target, batch.x, batch.labels, evasion)
            best.offer(everything, attack._climb(target, batch.x, batch.labels, evasion, shared))
            runs.append(best.losses)
        losses = target.loss(attack.perturb(target, batch.x, batch.labels, generator()), batch.labels)
    torch.testing.assert_close(losses, torch.stack(runs).amax(0))
    assert len(set(torch.stack(runs).argmax(0).tolist())) > 1, "every clip is best in the same run"


def test_misled_clips_take_no_further_run() -> None:
    batch = Batch(4, "waveform")
    with batch.target() as target:
        attack = APGD(epsilon=0.002, steps=5, restarts=3)
        misled = batch.margins(batch.perturb(APGD(epsilon=0.002, steps=5))) > 0
        attack.perturb(target, batch.x, batch.labels, generator())
    assert 0 < misled.sum() < len(misled)
    assert (target.backwards[misled] == 6).all()
    assert (target.backwards[~misled] > 6).all()
    with batch.target(objective=evasion) as target:
        target._model.detector = toys.Deaf()
        attack.perturb(target, batch.x, batch.labels, generator())
    assert (target.backwards == 18).all(), "with a detector, the search ends for no clip"


def test_perturbed_sound_is_rounded() -> None:
    batch = Batch(3, "waveform")
    perturbed = batch.perturb(APGD(epsilon=0.001, steps=4))
    assert torch.equal(perturbed, round_within(perturbed, batch.x, Budget("linf", 0.001, "full-scale")))
    assert not torch.equal(perturbed, batch.x)


@pytest.mark.parametrize(("classes", "targets", "runs"), [(2, 9, 1), (4, 9, 3), (7, 2, 2)])
def test_targets_are_the_other_classes_in_the_order_of_the_clean_logits(classes: int, targets: int, runs: int) -> None:
    batch = Batch(classes)
    with batch.target() as target:
        logits = target.logits(batch.x)
        attack = APGDTargeted(epsilon=0.01, steps=2, targets=targets)
        losses = [loss_of(torch.arange(len(batch.x))) for loss_of in attack._runs(target, batch.x, batch.labels)]
    assert len(losses) == runs
    rows = torch.arange(len(batch.x))
    aims = torch.stack([loss.keywords["aims"] for loss in losses])
    assert (aims != batch.labels).all()
    reached = logits[rows, aims]
    assert (reached.diff(dim=0) <= 0).all()
    others = logits.scatter(1, batch.labels[:, None], -torch.inf)
    assert torch.equal(reached[0], others.amax(1))


def test_targeted_runs_return_the_highest_margin_of_any_class() -> None:
    batch = Batch(7, "waveform", clips=48)
    first_target, all_targets = (
        batch.margins(batch.perturb(APGDTargeted(epsilon=0.001, steps=4, targets=number))) for number in (1, 6)
    )
    assert (all_targets >= first_target - 1e-6).all()
    assert (all_targets > first_target + 1e-4).any()


@pytest.mark.parametrize("norm", ["l2", "relative-l2"])
@pytest.mark.parametrize("kind", [PGD, IterativeFGSM, APGD, APGDTargeted])
def test_l2_attacks_use_half_of_the_budget_and_leave_the_padding(norm: Norm, kind: type[Attack]) -> None:
    model: EmotionModel = toys.model(toys.Convolutional)
    x, lengths, labels = toys.sounds()
    x = x * 0.2
    mask = torch.arange(toys.SAMPLES) < lengths[:, None]
    size = x.norm(dim=1) if norm == "relative-l2" else torch.ones(6)
    attack = kind(epsilon=0.05, norm=norm, steps=6)
    with Target(model, lengths, "waveform", mask=mask) as target:
        perturbed = attack.perturb(target, x, labels, generator())
        noise = torch.randn(x.shape, generator=generator()) * mask
        noisy = x + noise / per_clip(noise.norm(dim=1), x) * per_clip(0.05 * size, x)
        risen = target.loss(perturbed, labels, margin) - target.loss(noisy, labels, margin)
    change = perturbed - x
    assert torch.equal(change[~mask], torch.zeros_like(change[~mask]))
    assert (change.norm(dim=1) <= 0.05 * size * 1.01).all()
    assert (change.norm(dim=1) >= 0.05 * size * 0.5).all()
    assert (risen > 0).all()
