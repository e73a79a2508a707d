"""The ensemble of attacks: shared budgets, the worst case per clip, and no work on misled clips."""

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
from advser.plugins.parameters import build, validated
from advser.plugins.registries import ATTACKS
from advser.plugins.roles import budget
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


def ensemble_of(**params: Any) -> Ensemble:
    return build(Ensemble, params, "ensemble")


def batch(clips: int = 24) -> tuple[Target, Tensor, Tensor]:
    model = toys.model(toys.Convolutional, classes=4).eval()
    x, lengths, _ = toys.sounds(clips, seed=5)
    return Target(model, lengths, "waveform"), x, model(x, lengths).argmax(1)


class Alarm(nn.Module):
    """A detector that detects every change."""

    def __init__(self, clean: Tensor) -> None:
        super().__init__()
        self.clean = clean

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return 100 * (x != self.clean).flatten(1).any(1).double()


def test_every_attack_has_the_ensembles_budget() -> None:
    ensemble = ensemble_of(epsilon=0.003)
    assert [attack.name for attack in ensemble.attacks] == ["apgd", "apgd", "apgd", "apgd-targeted", "square"]
    assert {attack.params["epsilon"] for attack in ensemble.attacks} == {0.003}
    in_l2 = ensemble_of(epsilon=1, norm="l2")
    assert [attack.params["norm"] for attack in in_l2.attacks] == ["l2"] * len(in_l2.attacks)
    assert all(attack.build().budget("waveform") == in_l2.budget("waveform") for attack in in_l2.attacks)
    complete = validated(Ensemble, {"epsilon": 0.003, "attacks": QUICK}, "ensemble")
    assert validated(Ensemble, complete, "ensemble") == complete


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "epsilon: got nothing"),
        ({"epsilon": 0.1, "norm": "l1"}, "norm: got 'l1', expected 'linf'"),
        ({"epsilon": 0.1, "attacks": "fgsm"}, "attacks: "),
        ({"epsilon": 0.1, "attacks": [{"name": "fgsmm"}]}, "attacks.0: unknown attack 'fgsmm'"),
        ({"epsilon": 0.1, "attacks": [{"name": "apgd", "params": {"steps": 0}}]}, "attacks.0: attack 'apgd': steps"),
        (
            {"epsilon": 0.1, "attacks": [{"name": "fgsm", "params": {"epsilon": 0.2}}]},
            "'fgsm': epsilon: got 0.2, expected the whole attack's 0.1",
        ),
        ({"epsilon": 0.1, "norm": "l2", "attacks": [{"name": "fgsm"}]}, "got attack 'fgsm', expected .* in norm l2"),
        ({"epsilon": 0.1, "attacks": [{"name": "generator"}]}, "attacks.0: name: got 'generator'"),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ensemble_of(**params)


def test_inner_attacks_are_listed_at_any_depth() -> None:
    assert inner_attacks(ensemble_of(epsilon=0.1)) == ("apgd", "apgd", "apgd", "apgd-targeted", "square")
    nested = ensemble_of(epsilon=0.1, attacks=[{"name": "ensemble", "params": {"epsilon": 0.1, "attacks": QUICK}}])
    assert inner_attacks(nested) == ("ensemble", "fgsm", "apgd", "square")


def test_a_clip_is_robust_only_if_it_is_robust_to_every_attack() -> None:
    target, x, labels = batch()
    with target:
        steps = {"name": "ifgsm", "params": {"steps": 5}}
        ensemble = ensemble_of(epsilon=0.001, attacks=[QUICK[0], steps, QUICK[2]])
        clean = target.loss(x, labels, margin)
        alone = [
            target.loss(
                ensemble.judged(inner.build().perturb(target, x, labels, generator()), x, target), labels, margin
            )
            for inner in ensemble.attacks
        ]
        margins = target.loss(ensemble.perturb(target, x, labels, generator()), labels, margin)
    # Square's draws depend on the number of robust clips, so that only the other two attacks are comparable.
    misled = torch.stack(alone[:2]).amax(0) > 0
    assert 0 < misled.sum() < len(misled)
    assert ((margins > 0) >= misled).all()
    assert (margins >= clean).all()
    assert (margins >= torch.stack(alone[:2]).amax(0) - 1e-6)[~misled].all()


class Counting(Attack):
    """Returns the clips, and records their number."""

    access: ClassVar[Access] = "white-box"
    epsilon: float = budget(about="budget")
    sizes: ClassVar[list[int]] = []

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        self.sizes.append(len(x))
        return x


class Unstable(Attack):
    """Misleads the model by less than 16-bit rounding preserves."""

    epsilon: float = budget(about="budget")

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return x + 0.4 / 32768


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Counting.sizes.clear()
    monkeypatch.setitem(ATTACKS._decorated, "test-counting", Counting)
    monkeypatch.setitem(ATTACKS._decorated, "test-unstable", Unstable)
    return iter(())


@pytest.mark.parametrize(("objective", "extra"), [("adaptive", True), ("cross-entropy", False)])
def test_by_default_it_ascends_the_suites_loss_too_and_none_twice(objective: str, extra: bool) -> None:
    model = toys.model(toys.Convolutional).eval()
    waveform, lengths, labels = toys.sounds(4)
    calls = []

    def own(outputs: Any, labels: Tensor) -> Tensor:
        calls.append(outputs.logits.requires_grad)
        return cross_entropy(outputs, labels)

    # A copy of the cross-entropy counts as a different loss.
    loss = own if objective == "adaptive" else cross_entropy
    with Target(model, lengths, "waveform", objective=loss) as target:
        attack = build(Ensemble, {"epsilon": 1e-6}, "ensemble")
        attack.perturb(target, waveform, labels, torch.Generator().manual_seed(0))
        passes = target.backwards.max()
    steps = build(ATTACKS.get("apgd"), {"epsilon": 1e-6}, "apgd").steps + 1
    assert any(calls) == extra
    targets = len(model(waveform, lengths)[0]) - 1
    assert passes == steps * (2 + extra + targets)


@pytest.mark.usefixtures("registered")
def test_only_robust_clips_are_attacked() -> None:
    target, x, labels = batch()
    labels[:3] = (labels[:3] + 1) % 4  # misclassified when clean
    attacks = [{"name": "test-counting"}, {"name": "apgd", "params": {"steps": 5}}, {"name": "test-counting"}]
    with target:
        perturbed = ensemble_of(epsilon=0.002, attacks=attacks).perturb(target, x, labels, generator())
        robust = int((target.loss(perturbed, labels, margin) <= 0).sum())
    assert Counting.sizes == [len(x) - 3, robust]
    assert 0 < robust < len(x) - 3
    assert torch.equal(perturbed[:3], x[:3])
    assert target.backwards.tolist() == [0] * 3 + [6] * (len(x) - 3)
    Counting.sizes.clear()
    evading, _, _ = batch()
    evading.objective = evasion
    with evading:
        ensemble_of(epsilon=0.002, attacks=attacks).perturb(evading, x, labels, generator())
    assert Counting.sizes == [len(x) - 3, robust], "without a detector, evasion is misclassification"
    Counting.sizes.clear()
    assert evading._model is not None
    evading._model.detector = toys.Deaf()
    with evading:
        ensemble_of(epsilon=0.002, attacks=attacks).perturb(evading, x, labels, generator())
    assert Counting.sizes == [len(x), len(x)], "with a detector, the search ends for no clip"


def test_a_misclassified_example_is_preferred_to_a_higher_loss() -> None:
    """A clean clip, which no detector detects, may have a higher evasion loss than a misclassified example."""
    target, x, labels = batch()
    assert target._model is not None
    target._model.detector = Alarm(target._model.frontend(x, target.lengths))
    attack, everything = IterativeFGSM(epsilon=0.01, steps=10), torch.arange(len(x))
    with target:
        perturbed = attack.judged(attack.perturb(target, x, labels, generator()), x, target)
        misled = target.loss(perturbed, labels, margin) > 0
        assert misled.sum() >= 3
        assert (target.loss(x, labels, evasion) > target.loss(perturbed, labels, evasion)).all()
        for order in ((x, perturbed), (perturbed, x)):
            best = Best(attack, target, x, labels, evasion)
            for examples in order:
                best.offer(everything, examples)
            assert torch.equal(best.examples, torch.where(misled[:, None], perturbed, x))


@pytest.mark.usefixtures("registered")
def test_a_clip_is_misled_only_if_it_is_after_rounding() -> None:
    class Fragile(toys.Linear):
        """Misclassifies sound off the 16-bit grid."""

        def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
            off = ((features * 32768).round() / 32768 - features).abs().flatten(1).amax(1, keepdim=True) > 1e-6
            return torch.where(off, 100.0, -100.0).expand(-1, toys.SAMPLES)

    model = toys.model(Fragile, classes=2)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(-1, toys.SAMPLES))
    x, lengths, _ = toys.sounds()
    labels = torch.zeros(6, dtype=torch.long)
    attacks = [{"name": "test-unstable"}, {"name": "test-counting"}]
    with Target(model, lengths, "waveform") as target:
        assert (target.decisions(Unstable(epsilon=0.1).perturb(target, x, labels, generator())) == 1).all()
        perturbed = ensemble_of(epsilon=0.1, attacks=attacks).perturb(target, x, labels, generator())
    assert Counting.sizes == [6]
    assert torch.equal(perturbed, x)


def test_an_attack_of_another_domain_is_refused() -> None:
    model = toys.model(toys.Convolutional).eval()
    waveform, lengths, labels = toys.sounds()
    x = model.frontend(waveform, lengths).detach()
    ensemble = ensemble_of(epsilon=0.1, attacks=[{"name": "chain-rule"}])
    with (
        Target(model, lengths, "spectrogram") as target,
        pytest.raises(InputError, match="attack 'chain-rule': domain: got spectrogram, expected waveform"),
    ):
        ensemble.perturb(target, x, labels, generator())


def test_it_is_at_least_as_strong_as_iterative_fgsm() -> None:
    target, x, labels = batch(32)
    with target:
        ours, theirs = (
            (target.loss(attack.perturb(target, x, labels, generator()), labels, margin) <= 0).sum()
            for attack in (ensemble_of(epsilon=0.002, attacks=QUICK), IterativeFGSM(epsilon=0.002, steps=8))
        )
    assert ours <= theirs


class Masked(toys.Linear):
    """Rounds its features to steps of 1/16: the gradient is 0 nearly everywhere, but no decision is more robust."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return super().embed((features * 16).round() / 16, lengths)


def test_a_masked_gradient_resists_fgsm_and_not_the_ensemble() -> None:
    model = toys.model(Masked, classes=4).eval()
    x, lengths, _ = toys.sounds(16, seed=5)
    with torch.no_grad():
        labels = model(x, lengths).argmax(1)
    budget = {"epsilon": 0.06}
    quick = [*QUICK[:2], {"name": "square", "params": {"queries": 150}}]
    with Target(model, lengths, "waveform") as target:
        single = build(FGSM, budget, "fgsm").perturb(target, x, labels, generator())
        assert (target.decisions(single) == labels).all(), "the gradient of FGSM is not 0"
        perturbed = ensemble_of(**budget, attacks=quick).perturb(target, x, labels, generator())
        assert (target.decisions(perturbed) == labels).double().mean() < 0.2


def test_a_lucky_answer_of_a_randomised_model_does_not_end_the_search() -> None:
    model = Smoothing(sigma=0.05, draws=4).wrap(toys.model(toys.Linear, classes=4).eval()).eval()
    x, lengths, _ = toys.sounds(32, seed=5)

    def mean_outputs(sound: Tensor) -> Tensor:
        """Return mean exponentials of the logits over many draws."""
        torch.manual_seed(1)
        return torch.stack([model.outputs(sound, lengths, "waveform").logits.exp() for _ in range(100)]).mean(0)

    labels = mean_outputs(x).argmax(1)
    correct = []
    ensemble = ensemble_of(epsilon=0.004, attacks=QUICK)
    for attack in (ensemble, build(IterativeFGSM, {"epsilon": 0.004}, "ifgsm")):
        with Target(model, lengths, "waveform", attack.access) as target:
            perturbed = attack.perturb(target, x, labels, generator())
        correct.append(int((mean_outputs(perturbed).argmax(1) == labels).sum()))
    by_ensemble, by_iterative_fgsm = correct
    assert by_ensemble <= by_iterative_fgsm
