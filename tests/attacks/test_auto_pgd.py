"""Auto-PGD, untargeted and targeted: its schedule, its losses, what it keeps, and what it spends."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
import toys
from torch import Tensor

from advser.attacks.auto_pgd import APGD, APGDTargeted, checkpoints, towards
from advser.attacks.base import Attack
from advser.attacks.best import Best
from advser.attacks.ensemble import Ensemble
from advser.attacks.gradient_sign import FGSM, PGD, IterativeFGSM
from advser.attacks.square import Square
from advser.models.base import EmotionModel, Outputs
from advser.models.terms import Domain
from advser.threat.admission import round_within
from advser.threat.budget import Budget, per_clip
from advser.threat.model import Norm
from advser.threat.objectives import Loss, cross_entropy, difference_of_logits_ratio, evasion, margin
from advser.threat.target import Ascent, Target

CLASSES = (2, 3, 4, 7)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Batch:
    """Clips that a toy model reads as their labels, and attacks on them."""

    def __init__(self, classes: int, domain: Domain = "spectrogram", clips: int = 24) -> None:
        self.model = toys.model(toys.Convolutional, classes=classes).eval()
        waveform, self.lengths, _ = toys.sounds(clips, seed=5)
        self.domain = domain
        with torch.no_grad():
            self.x = self.model.inputs(waveform, self.lengths, domain)
            self.labels = self.model.outputs(self.x, self.lengths, domain).logits.argmax(1)

    def target(self, kind: type[Target] = Target, **given: Loss) -> Target:
        return kind(self.model, self.lengths, self.domain, **given)

    def perturb(self, attack: Attack, **given: Loss) -> Tensor:
        with self.target(**given) as target:
            return attack.perturb(target, self.x, self.labels, generator())

    def margins(self, perturbed: Tensor) -> Tensor:
        with self.target() as target:
            return target.loss(perturbed, self.labels, margin)

    def right(self, attack: Attack) -> int:
        return int((self.margins(self.perturb(attack)) <= 0).sum())


def test_the_checkpoints_are_those_of_the_source() -> None:
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [0, 1]
    for steps in range(1, 40):
        assert checkpoints(steps)[-1] <= steps


@pytest.mark.parametrize("classes", CLASSES)
def test_the_ratio_of_logit_differences_ignores_their_scale(classes: int) -> None:
    logits = torch.randn(20, classes, generator=generator())
    labels = torch.arange(20) % classes
    found = difference_of_logits_ratio(Outputs(logits, logits), labels)
    if classes == 2:
        assert torch.equal(found, margin(Outputs(logits, logits), labels))
        return
    ranked = logits.sort(1, descending=True).values
    by_hand = [
        (max(row[:label].tolist() + row[label + 1 :].tolist()) - float(row[label])) / float(order[0] - order[2])
        for row, label, order in zip(logits, labels.tolist(), ranked, strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(by_hand))
    larger = difference_of_logits_ratio(Outputs(50 * logits, logits), labels)
    torch.testing.assert_close(larger, found)


@pytest.mark.parametrize("classes", CLASSES)
def test_the_targeted_loss_is_above_0_where_the_target_class_beats_the_label(classes: int) -> None:
    logits = torch.randn(40, classes, generator=generator())
    labels = torch.arange(40) % classes
    aims = (labels + 1) % classes
    found = towards(Outputs(logits, logits), labels, aims)
    rows = torch.arange(40)
    assert torch.equal(found > 0, logits[rows, aims] > logits[rows, labels])
    assert (found > 0).any()
    larger = towards(Outputs(50 * logits, logits), labels, aims)
    torch.testing.assert_close(larger, found if classes >= 4 else 50 * found)


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
def test_it_is_at_least_as_strong_as_fixed_steps_with_any_number_of_classes(attack: Attack, classes: int) -> None:
    batch = Batch(classes)
    found = batch.right(attack)
    # Two clips, since the cross-entropy that fixed steps ascend may mislead one or the other.
    assert found <= batch.right(IterativeFGSM(epsilon=0.05, steps=15)) + 2
    assert found < batch.right(FGSM(epsilon=0.01)), "nothing fell that a small step leaves"


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
    assert batch.right(square) < len(batch.x)
    assert batch.right(ensemble) <= batch.right(APGD(epsilon=0.05, loss="dlr", steps=5))


@pytest.mark.parametrize("norm", get_args(Norm))
def test_on_a_linear_model_it_gains_epsilon_times_the_dual_norm(norm: Norm) -> None:
    made = toys.model(toys.Linear, classes=2)
    x, lengths, _ = toys.sounds()
    x = x * 0.2  # away from full scale
    weight = made.head.weight.detach()
    labels = torch.arange(6) % 2
    lengths[:] = toys.SAMPLES
    apart = made.frontend(x, lengths).flatten(1).norm(dim=1)
    epsilon = 0.004
    dual = (weight[0] - weight[1]).norm(p=1 if norm == "linf" else 2) * (apart if norm == "relative-l2" else 1)
    with Target(made, lengths, "waveform") as target:
        found = APGD(epsilon=epsilon, norm=norm, steps=40, loss="margin").admitted(
            Unrounded(epsilon=epsilon, norm=norm, steps=40, loss="margin").perturb(target, x, labels, generator()),
            x,
            target,
        )
        gained = target.loss(found, labels, margin) - target.loss(x, labels, margin)
    torch.testing.assert_close(gained, (epsilon * dual).expand(6), rtol=1e-3, atol=1e-5)


class Unrounded(APGD):
    """Auto-PGD that is not held to whole PCM steps."""

    def judged(self, perturbed: Tensor, x: Tensor, target: Target) -> Tensor:
        return self.admitted(perturbed, x, target)


class Watched(Target):
    """Keeps what it was asked about and what it said."""

    seen: list[tuple[Tensor, Ascent]]

    def ascent(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> Ascent:
        self.seen = [*getattr(self, "seen", []), (x, self.told(super().ascent(x, labels, loss)))]
        return self.seen[-1][1]

    def told(self, truly: Ascent) -> Ascent:
        return truly


class Fickle(Watched):
    """Has clips misread at random, whatever their loss."""

    def told(self, truly: Ascent) -> Ascent:
        draw = torch.rand(len(truly.loss), generator=generator(len(getattr(self, "seen", []))))
        return replace(truly, margin=draw - 0.8)


@pytest.mark.parametrize("loss", ["cross-entropy", "margin", "dlr"])
def test_a_run_keeps_a_misread_iterate_before_any_other_and_then_the_highest_loss(loss: str) -> None:
    batch = Batch(4)
    attack = APGD(epsilon=0.03, steps=12, loss=loss)
    with batch.target(Fickle) as target:
        assert isinstance(target, Fickle)
        kept = attack._climb(target, batch.x, batch.labels, attack._aim(target), generator())
    margins = torch.stack([told.margin for _, told in target.seen])
    losses = torch.stack([told.loss for _, told in target.seen])
    ranks = losses.double() + 1e3 * (margins > 0)
    best = torch.stack([x for x, _ in target.seen])[ranks.argmax(0), torch.arange(len(kept))]
    assert torch.equal(kept, best)
    assert len(target.seen) == 13
    assert (losses.argmax(0) != ranks.argmax(0)).any()


def test_steps_that_overshoot_are_halved_and_the_search_goes_on_from_the_best_point() -> None:
    batch = Batch(3)
    attack = APGD(epsilon=0.2, steps=60)
    with batch.target(Watched) as target:
        assert isinstance(target, Watched)
        attack._climb(target, batch.x, batch.labels, cross_entropy, generator())
    points = torch.stack([x for x, _ in target.seen])
    moved = points.diff(dim=0).flatten(2).abs().amax(2)
    assert moved[:5].amin() > 4 * moved[-5:].amax(), "the step size did not shrink"
    losses = torch.stack([told.loss for _, told in target.seen])
    assert (losses[-1] >= 0.99 * losses.amax(0)).all()


def test_each_clip_keeps_its_best_of_all_restarts() -> None:
    batch = Batch(7, "waveform")
    attack = APGD(epsilon=0.0005, steps=3, restarts=4)
    everything = torch.arange(len(batch.x))
    # An objective beyond misreading, so that no clip falls and all restarts are made of all clips.
    with batch.target(objective=evasion) as target:
        target._model.detector = toys.Deaf()
        shared, runs = generator(), []
        for _ in range(4):
            best = Best(attack, target, batch.x, batch.labels, evasion)
            best.offer(everything, attack._climb(target, batch.x, batch.labels, evasion, shared))
            runs.append(best.losses)
        found = target.loss(attack.perturb(target, batch.x, batch.labels, generator()), batch.labels)
    torch.testing.assert_close(found, torch.stack(runs).amax(0))
    assert len(set(torch.stack(runs).argmax(0).tolist())) > 1, "every clip is best in the same run"


def test_clips_that_fell_cost_no_further_run() -> None:
    batch = Batch(4, "waveform")
    with batch.target() as target:
        attack = APGD(epsilon=0.002, steps=5, restarts=3)
        fell = batch.margins(batch.perturb(APGD(epsilon=0.002, steps=5))) > 0
        attack.perturb(target, batch.x, batch.labels, generator())
    assert 0 < fell.sum() < len(fell)
    assert (target.backwards[fell] == 6).all()
    assert (target.backwards[~fell] > 6).all()
    with batch.target(objective=evasion) as target:
        target._model.detector = toys.Deaf()
        attack.perturb(target, batch.x, batch.labels, generator())
    assert (target.backwards == 18).all(), "a loss that aims at more than misreading never has enough"


def test_what_is_returned_of_sound_is_what_rounding_leaves() -> None:
    batch = Batch(3, "waveform")
    found = batch.perturb(APGD(epsilon=0.001, steps=4))
    assert torch.equal(found, round_within(found, batch.x, Budget("linf", 0.001, "full-scale")))
    assert not torch.equal(found, batch.x)


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


def test_targeted_runs_keep_the_highest_margin_whatever_class_it_is_of() -> None:
    batch = Batch(7, "waveform", clips=48)
    one, all_of_them = (batch.margins(batch.perturb(APGDTargeted(epsilon=0.001, steps=4, targets=n))) for n in (1, 6))
    assert (all_of_them >= one - 1e-6).all()
    assert (all_of_them > one + 1e-4).any()


@pytest.mark.parametrize("norm", ["l2", "relative-l2"])
@pytest.mark.parametrize("kind", [PGD, IterativeFGSM, APGD, APGDTargeted])
def test_l2_budgets_are_spent_and_kept_away_from_the_padding(norm: Norm, kind: type[Attack]) -> None:
    made: EmotionModel = toys.model(toys.Convolutional)
    x, lengths, labels = toys.sounds()
    x = x * 0.2
    mask = torch.arange(toys.SAMPLES) < lengths[:, None]
    size = x.norm(dim=1) if norm == "relative-l2" else torch.ones(6)
    attack = kind(epsilon=0.05, norm=norm, steps=6)
    with Target(made, lengths, "waveform", mask=mask) as target:
        perturbed = attack.perturb(target, x, labels, generator())
        noise = torch.randn(x.shape, generator=generator()) * mask
        noisy = x + noise / per_clip(noise.norm(dim=1), x) * per_clip(0.05 * size, x)
        risen = target.loss(perturbed, labels, margin) - target.loss(noisy, labels, margin)
    change = perturbed - x
    assert torch.equal(change[~mask], torch.zeros_like(change[~mask]))
    assert (change.norm(dim=1) <= 0.05 * size * 1.01).all()
    assert (change.norm(dim=1) >= 0.05 * size * 0.5).all()
    assert (risen > 0).all()


class Recording(Target):
    """Keeps what it is asked the gradient at."""

    asked: list[Tensor]

    def ascent(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> Ascent:
        # One list for this target and those of its clips.
        self.asked.append(x)
        return super().ascent(x, labels, loss)


def algorithm_1(batch: Batch, clip: int, start: Tensor, attack: APGD) -> tuple[list[Tensor], list[float]]:
    """The iterates of one clip and the step sizes, written down from the paper line by line."""
    labels, x0, rows = batch.labels[clip : clip + 1], batch.x[clip : clip + 1], torch.tensor([clip])
    sizes = [2 * attack.epsilon]
    with batch.target() as whole:
        target = whole.at(rows)

        def f(x: Tensor) -> tuple[float, Tensor]:
            told = target.ascent(x, labels, cross_entropy)
            return float(told.loss), told.gradient

        def p(x: Tensor) -> Tensor:
            # The same operations, so that no rounding turns the sign of a gradient near 0.
            return attack.admitted(x, x0, target)

        xs = [start]
        value, gradient = f(start)
        xs.append(p(start + sizes[0] * gradient.sign()))
        best, best_x, values = value, start, [value]
        if f(xs[1])[0] > best:
            best, best_x = f(xs[1])[0], xs[1]
        values.append(f(xs[1])[0])
        current, previous, w = xs[1], start, checkpoints(attack.steps)
        best_at, size_at = {0: value}, {0: sizes[0]}
        rose = [values[1] > values[0]]
        for k in range(1, attack.steps):
            # The check of step k comes after x_k, as in line 9; a checkpoint at 1 would be the first.
            z = p(current + sizes[-1] * f(current)[1].sign())
            following = p(current + (0.75 * (z - current) + 0.25 * (current - previous)))
            previous, rise_from = current, f(current)[0]
            current = following
            xs.append(current)
            value = f(current)[0]
            rose.append(value > rise_from)
            if value > best:
                best, best_x = value, current
            sizes.append(sizes[-1])
            if k + 1 in w:
                last = w[w.index(k + 1) - 1]
                first = sum(rose[last : k + 1]) < attack.rho * (k + 1 - last)
                second = size_at[last] == sizes[-1] and best_at[last] == best
                # At the very first checkpoint there was no step size before: the halving of an unseen one counts.
                second = second and last != 0
                size_at[k + 1], best_at[k + 1] = sizes[-1], best
                if first or second:
                    sizes[-1] /= 2
                    current = best_x
    return xs, sizes


# With ρ = 0 the first condition never holds, so that all is up to the second.
@pytest.mark.parametrize("rho", [0.75, 0.0])
@pytest.mark.parametrize("clip", range(6))
def test_every_iterate_is_that_of_algorithm_1(clip: int, rho: float) -> None:
    batch = Batch(4)
    attack = APGD(epsilon=0.4, steps=40, loss="cross-entropy", rho=rho)
    one = torch.tensor([clip])
    with batch.target(Recording) as whole:
        target = whole.at(one)
        assert isinstance(target, Recording)
        target.asked = []
        attack.perturb(target, batch.x[one], batch.labels[one], generator())
        asked = target.asked
    iterates, sizes = algorithm_1(batch, clip, asked[0], attack)
    assert len(asked) == len(iterates) == attack.steps + 1
    assert sizes[-1] < sizes[0]
    for number, (mine, theirs) in enumerate(zip(asked, iterates, strict=True)):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0, msg=lambda text, n=number: f"iterate {n}: {text}")
