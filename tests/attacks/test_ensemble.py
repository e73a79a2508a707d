"""The ensemble of attacks: shared budgets, the worst case clip by clip, and effort only where it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
import toys
from torch import Tensor, nn

from advser.attacks.base import Attack
from advser.attacks.best import Best
from advser.attacks.ensemble import Ensemble
from advser.attacks.gradient_sign import FGSM, IterativeFGSM
from advser.defenses.smoothing import Smoothing
from advser.errors import InputError
from advser.plan.jobs import inner_attacks
from advser.plugins.parameters import budget, build, validated
from advser.plugins.registries import ATTACKS
from advser.threat.model import Access
from advser.threat.objectives import cross_entropy, evasion, margin
from advser.threat.target import Target

QUICK: list[dict[str, Any]] = [
    {"name": "fgsm"},
    {"name": "apgd", "params": {"loss": "margin", "steps": 8}},
    {"name": "square", "params": {"queries": 30}},
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(**params: Any) -> Ensemble:
    return build(Ensemble, params, "ensemble")


def batch(clips: int = 24) -> tuple[Target, Tensor, Tensor]:
    model = toys.model(toys.Convolutional, classes=4).eval()
    x, lengths, _ = toys.sounds(clips, seed=5)
    return Target(model, lengths, "waveform"), x, model(x, lengths).argmax(1)


class Alarm(nn.Module):
    """A detector that is sure of whatever is not as it was."""

    def __init__(self, clean: Tensor) -> None:
        super().__init__()
        self.clean = clean

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return 100 * (x != self.clean).flatten(1).any(1).double()


def test_every_attack_has_the_ensembles_budget() -> None:
    ensemble = made(epsilon=0.003)
    assert [one.name for one in ensemble.attacks] == ["apgd", "apgd", "apgd", "apgd-targeted", "square"]
    assert {one.params["epsilon"] for one in ensemble.attacks} == {0.003}
    in_l2 = made(epsilon=1, norm="l2")
    assert [one.params["norm"] for one in in_l2.attacks] == ["l2"] * len(in_l2.attacks)
    assert all(one.build().budget("waveform") == in_l2.budget("waveform") for one in in_l2.attacks)
    complete = validated(Ensemble, {"epsilon": 0.003, "attacks": QUICK}, "ensemble")
    assert validated(Ensemble, complete, "ensemble") == complete


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "epsilon: Field required"),
        ({"epsilon": 0.1, "norm": "l1"}, "norm: Input should be"),
        ({"epsilon": 0.1, "attacks": "fgsm"}, "attacks: "),
        ({"epsilon": 0.1, "attacks": [{"name": "fgsmm"}]}, "attacks.0: unknown attack 'fgsmm'"),
        ({"epsilon": 0.1, "attacks": [{"name": "apgd", "params": {"steps": 0}}]}, "attacks.0: attack 'apgd': steps"),
        (
            {"epsilon": 0.1, "attacks": [{"name": "fgsm", "params": {"epsilon": 0.2}}]},
            "'fgsm': epsilon: got 0.2, expected that of the whole, 0.1",
        ),
        ({"epsilon": 0.1, "norm": "l2", "attacks": [{"name": "fgsm"}]}, "found attack 'fgsm', expected with norm l2: "),
        ({"epsilon": 0.1, "attacks": [{"name": "generator"}]}, "attacks.0: name: got 'generator'"),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(**params)


def test_inner_attacks_are_part_of_what_decides_the_result() -> None:
    assert inner_attacks(made(epsilon=0.1)) == ("apgd", "apgd", "apgd", "apgd-targeted", "square")
    nested = made(epsilon=0.1, attacks=[{"name": "ensemble", "params": {"epsilon": 0.1, "attacks": QUICK}}])
    assert inner_attacks(nested) == ("ensemble", "fgsm", "apgd", "square")


def test_a_clip_stands_only_if_it_stands_under_every_attack() -> None:
    target, x, labels = batch()
    with target:
        steps = {"name": "ifgsm", "params": {"steps": 5}}
        ensemble = made(epsilon=0.001, attacks=[QUICK[0], steps, QUICK[2]])
        clean = target.loss(x, labels, margin)
        alone = [
            target.loss(ensemble.judged(one.build().perturb(target, x, labels, generator()), x, target), labels, margin)
            for one in ensemble.attacks
        ]
        found = target.loss(ensemble.perturb(target, x, labels, generator()), labels, margin)
    # Square draws other squares where fewer clips stand, so that only the other two can be foretold.
    fallen = torch.stack(alone[:2]).amax(0) > 0
    assert 0 < fallen.sum() < len(fallen)
    assert ((found > 0) >= fallen).all()
    assert (found >= clean).all()
    assert (found >= torch.stack(alone[:2]).amax(0) - 1e-6)[~fallen].all()


class Counting(Attack):
    """Returns the clip, and remembers which clips it was given."""

    access: ClassVar[Access] = "white-box"
    epsilon: float = budget(about="budget")
    given: ClassVar[list[int]] = []

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        self.given.append(len(x))
        return x


class Undone(Attack):
    """Has every clip misread by less than rounding to 16 bits leaves."""

    epsilon: float = budget(about="budget")

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return x + 0.4 / 32768


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Counting.given.clear()
    monkeypatch.setitem(ATTACKS._decorated, "test-counting", Counting)
    monkeypatch.setitem(ATTACKS._decorated, "test-undone", Undone)
    return iter(())


@pytest.mark.parametrize(("objective", "asked"), [("adaptive", True), ("cross-entropy", False)])
def test_by_default_it_climbs_the_suites_loss_too_and_none_twice(objective: str, asked: bool) -> None:
    model = toys.model(toys.Convolutional).eval()
    waveform, lengths, labels = toys.sounds(4)
    calls = []

    def own(outputs: Any, labels: Tensor) -> Tensor:
        calls.append(outputs.logits.requires_grad)
        return cross_entropy(outputs, labels)

    # A copy of the cross-entropy is another loss; its own name is the same one.
    loss = own if objective == "adaptive" else cross_entropy
    with Target(model, lengths, "waveform", objective=loss) as target:
        attack = build(Ensemble, {"epsilon": 1e-6}, "ensemble")
        attack.perturb(target, waveform, labels, torch.Generator().manual_seed(0))
        passes = target.backwards.max()
    steps = build(ATTACKS.get("apgd"), {"epsilon": 1e-6}, "apgd").steps + 1
    assert any(calls) == asked
    targets = len(model(waveform, lengths)[0]) - 1
    assert passes == steps * (2 + asked + targets)


@pytest.mark.usefixtures("registered")
def test_only_clips_that_still_stand_are_attacked() -> None:
    target, x, labels = batch()
    labels[:3] = (labels[:3] + 1) % 4  # misread when clean
    attacks = [{"name": "test-counting"}, {"name": "apgd", "params": {"steps": 5}}, {"name": "test-counting"}]
    with target:
        found = made(epsilon=0.002, attacks=attacks).perturb(target, x, labels, generator())
        standing = int((target.loss(found, labels, margin) <= 0).sum())
    assert Counting.given == [len(x) - 3, standing]
    assert 0 < standing < len(x) - 3
    assert torch.equal(found[:3], x[:3])
    assert target.backwards.tolist() == [0] * 3 + [6] * (len(x) - 3)
    Counting.given.clear()
    evading, _, _ = batch()
    evading.objective = evasion
    with evading:
        made(epsilon=0.002, attacks=attacks).perturb(evading, x, labels, generator())
    assert Counting.given == [len(x) - 3, standing], "without a detector there is nothing to evade"
    Counting.given.clear()
    assert evading._model is not None
    evading._model.detector = toys.Deaf()
    with evading:
        made(epsilon=0.002, attacks=attacks).perturb(evading, x, labels, generator())
    assert Counting.given == [len(x), len(x)], "an objective beyond misreading is never reached"


def test_a_misread_example_comes_before_a_higher_loss() -> None:
    """Evasion: the sum of a clean clip, which no detector minds, may be above that of one that is misread."""
    target, x, labels = batch()
    assert target._model is not None
    target._model.detector = Alarm(target._model.frontend(x, target.lengths))
    attack, everything = IterativeFGSM(epsilon=0.01, steps=10), torch.arange(len(x))
    with target:
        misread = attack.judged(attack.perturb(target, x, labels, generator()), x, target)
        fell = target.loss(misread, labels, margin) > 0
        assert fell.sum() >= 3
        assert (target.loss(x, labels, evasion) > target.loss(misread, labels, evasion)).all()
        for order in ((x, misread), (misread, x)):
            best = Best(attack, target, x, labels, evasion)
            for offered in order:
                best.offer(everything, offered)
            assert torch.equal(best.examples, torch.where(fell[:, None], misread, x))


@pytest.mark.usefixtures("registered")
def test_a_clip_has_fallen_only_if_rounding_leaves_it_so() -> None:
    class Fragile(toys.Linear):
        """Misreads whatever is not on the 16-bit grid."""

        def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
            off = ((features * 32768).round() / 32768 - features).abs().flatten(1).amax(1, keepdim=True) > 1e-6
            return torch.where(off, 100.0, -100.0).expand(-1, toys.SAMPLES)

    model = toys.model(Fragile, classes=2)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(-1, toys.SAMPLES))
    x, lengths, _ = toys.sounds()
    labels = torch.zeros(6, dtype=torch.long)
    attacks = [{"name": "test-undone"}, {"name": "test-counting"}]
    with Target(model, lengths, "waveform") as target:
        assert (target.decisions(Undone(epsilon=0.1).perturb(target, x, labels, generator())) == 1).all()
        found = made(epsilon=0.1, attacks=attacks).perturb(target, x, labels, generator())
    assert Counting.given == [6]
    assert torch.equal(found, x)


def test_an_attack_of_another_domain_is_refused() -> None:
    model = toys.model(toys.Convolutional).eval()
    waveform, lengths, labels = toys.sounds()
    x = model.frontend(waveform, lengths).detach()
    ensemble = made(epsilon=0.1, attacks=[{"name": "chain-rule"}])
    with (
        Target(model, lengths, "spectrogram") as target,
        pytest.raises(InputError, match="attack 'chain-rule': domain: got spectrogram, expected waveform"),
    ):
        ensemble.perturb(target, x, labels, generator())


def test_it_is_at_least_as_strong_as_iterated_steps() -> None:
    target, x, labels = batch(32)
    with target:
        ours, theirs = (
            (target.loss(attack.perturb(target, x, labels, generator()), labels, margin) <= 0).sum()
            for attack in (made(epsilon=0.002, attacks=QUICK), IterativeFGSM(epsilon=0.002, steps=8))
        )
    assert ours <= theirs


class Masked(toys.Linear):
    """Hears its features in whole steps of 1/16: the gradient is 0 nearly everywhere, but no decision is safer."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return super().embed((features * 16).round() / 16, lengths)


def test_what_masks_its_gradient_looks_robust_to_fgsm_and_is_broken_by_the_ensemble() -> None:
    model = toys.model(Masked, classes=4).eval()
    x, lengths, _ = toys.sounds(16, seed=5)
    with torch.no_grad():
        labels = model(x, lengths).argmax(1)
    budget = {"epsilon": 0.06}
    quick = [*QUICK[:2], {"name": "square", "params": {"queries": 150}}]
    with Target(model, lengths, "waveform") as target:
        single = build(FGSM, budget, "fgsm").perturb(target, x, labels, generator())
        assert (target.decisions(single) == labels).all(), "the gradient that FGSM follows is 0"
        broken = made(**budget, attacks=quick).perturb(target, x, labels, generator())
        assert (target.decisions(broken) == labels).double().mean() < 0.2


def test_before_a_model_that_draws_at_random_no_lucky_answer_ends_the_search() -> None:
    model = Smoothing(sigma=0.05, draws=4).wrap(toys.model(toys.Linear, classes=4).eval()).eval()
    x, lengths, _ = toys.sounds(32, seed=5)

    def answers(at: Tensor) -> Tensor:
        """Mean logits over many draws."""
        torch.manual_seed(1)
        return torch.stack([model.outputs(at, lengths, "waveform").logits.exp() for _ in range(100)]).mean(0)

    labels = answers(x).argmax(1)
    left = {}
    ensemble = made(epsilon=0.004, attacks=QUICK)
    for attack in (ensemble, build(IterativeFGSM, {"epsilon": 0.004}, "ifgsm")):
        with Target(model, lengths, "waveform", attack.access) as target:
            found = attack.perturb(target, x, labels, generator())
        left[attack is ensemble] = int((answers(found).argmax(1) == labels).sum())
    assert left[True] <= left[False]
