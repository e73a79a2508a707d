"""Every registered attack keeps its contract; FGSM, PGD and the controls follow their formulas."""

from __future__ import annotations

from itertools import repeat
from typing import ClassVar

import pytest
import torch
import toys
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.controls import Noise, SnrNoise
from advser.attacks.gradient_sign import FGSM, PGD, IterativeFGSM
from advser.attacks.learned import LearnedAttack
from advser.errors import InputError
from advser.models.base import EmotionModel
from advser.models.terms import DOMAINS, Domain, Precision
from advser.plugins.parameters import build, validated
from advser.plugins.registries import ATTACKS
from advser.threat.model import Norm
from advser.threat.objectives import margin
from advser.threat.target import Target

LABELS = ("true", "predicted", "soft")
PRECISIONS: tuple[Precision, Precision] = ("fp32", "bf16")
EVERYWHERE = [
    pytest.param(name, kind, domain, labels, id=f"{name}-{kind.__name__}-{domain}-{labels}")
    for name in ATTACKS
    for kind, domain in toys.PLACES
    for labels in LABELS
    if domain in ATTACKS.get(name).domains and (kind.spectrogram or not ATTACKS.get(name).needs_spectrogram)
]


def attack_named(name: str, domain: Domain, **params: float) -> Attack:
    plugin = ATTACKS.get(name)
    given = {"epsilon": toys.EPSILON[domain]} | toys.SMALL.get(name, {}) | params
    return build(plugin, toys.row(plugin, **given), name)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perturbed_by(attack: Attack, target: Target, x: Tensor, labels: Tensor) -> Tensor:
    """Return the attack's examples; a learned attack first learns on the same batch."""
    if not isinstance(attack, LearnedAttack):
        return attack.perturb(target, x, labels, generator())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = attack.network()
    attack.learn(network, repeat((target, x, labels)), generator())
    return attack.apply(network, x)


def given_labels(model: EmotionModel, x: Tensor, lengths: Tensor, domain: Domain, labels: str, true: Tensor) -> Tensor:
    if labels == "true":
        return true
    with torch.no_grad():
        logits = model.eval().outputs(x, lengths, domain).logits
    model.train()
    return logits.argmax(1) if labels == "predicted" else logits.softmax(1)


@pytest.mark.parametrize(("name", "kind", "domain", "labels"), EVERYWHERE)
def test_every_attack_keeps_its_contract(name: str, kind: type[EmotionModel], domain: Domain, labels: str) -> None:
    model = toys.model(kind)
    waveform, lengths, true = toys.sounds()
    x = model.inputs(waveform, lengths, domain).detach()
    given = given_labels(model, x, lengths, domain, labels, true)
    attack = attack_named(name, domain)
    original, labels_before, before, random_state = x.clone(), given.clone(), toys.state(model), torch.get_rng_state()

    with Target(model, lengths, domain, attack.access) as target:
        perturbed = perturbed_by(attack, target, x, given)
    with Target(model, lengths, domain, attack.access) as target:
        again = perturbed_by(attack, target, x, given)

    assert perturbed.shape == x.shape
    assert perturbed.dtype == x.dtype
    assert perturbed.isfinite().all()
    assert not perturbed.requires_grad
    assert torch.equal(x, original), "the attack changed its input tensor"
    assert torch.equal(given, labels_before), "the attack changed its labels"
    assert torch.equal(perturbed, again), "the attack draws random numbers outside its generator"
    assert torch.equal(torch.get_rng_state(), random_state), "the attack draws from the global random state"
    toys.assert_same_state(model, before)
    budget = attack.budget(domain)
    if budget is not None:
        assert not budget.exceeded(budget.project(perturbed, x), x).any()


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", [name for name in ATTACKS if "epsilon" in ATTACKS.get(name).model_fields])
def test_a_budget_of_0_changes_nothing(name: str, domain: Domain) -> None:
    if domain not in ATTACKS.get(name).domains:
        pytest.skip(f"{name} does not run in the domain {domain}")
    model = toys.model(toys.Convolutional)
    waveform, lengths, labels = toys.sounds()
    x = model.inputs(waveform, lengths, domain).detach()
    attack = attack_named(name, domain, epsilon=0.0)
    with Target(model, lengths, domain, attack.access) as target:
        assert torch.equal(perturbed_by(attack, target, x, labels), x)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_attack_is_described(name: str) -> None:
    plugin = ATTACKS.get(name)
    assert plugin.__doc__
    assert all(field.description for field in plugin.model_fields.values())
    params = toys.row(plugin, epsilon=0.01)
    complete = validated(plugin, params, name)
    assert build(plugin, complete, name) == build(plugin, params, name)
    with pytest.raises(InputError, match="unknown key 'epsilonn'"):
        build(plugin, {**params, "epsilonn": 1.0}, name)


@pytest.mark.parametrize(
    ("plugin", "params", "message"),
    [
        (FGSM, {}, "epsilon: got nothing"),
        (FGSM, {"epsilon": -1}, "got -1(.0)?, expected at least 0"),
        (FGSM, {"epsilon": 0.1, "clip": 0}, "clip: got 0(.0)?, expected more than 0"),
        (IterativeFGSM, {}, "got neither epsilon nor alpha"),
        (IterativeFGSM, {"alpha": 0.1, "steps": 1.5}, "steps: "),
        (PGD, {"epsilon": 0.1, "restarts": 0}, "restarts: "),
        (Noise, {"epsilon": 0.1, "kind": "pink"}, "kind: .*'gaussian' or 'sign'"),
    ],
)
def test_bad_parameters_are_refused(plugin: type[Attack], params: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(plugin, params, "attack")


def test_fgsm_on_a_linear_model_gains_epsilon_times_the_dual_norm() -> None:
    model = toys.model(toys.Linear, classes=2).double()
    waveform, lengths, _ = toys.sounds()
    x = model.inputs(waveform.double(), lengths, "spectrogram")
    weight = model.head.weight.detach()
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    epsilon = 0.07
    with Target(model, lengths, "spectrogram") as target:
        perturbed = FGSM(epsilon=epsilon).perturb(target, x, labels, generator())
        gained = target.loss(perturbed, labels, margin) - target.loss(x, labels, margin)
    torch.testing.assert_close(gained, epsilon * (weight[0] - weight[1]).abs().sum().expand(6))


def test_fgsm_changes_by_at_most_the_clip() -> None:
    model = toys.model(toys.Convolutional)
    x, lengths, labels = toys.sounds()
    with Target(model, lengths, "waveform") as target:
        perturbed = FGSM(epsilon=0.1, clip=0.02).perturb(target, x, labels, generator())
    assert (perturbed - x).abs().max().item() == pytest.approx(0.02, rel=1e-5)


def test_unprojected_iteration_moves_by_alpha_a_step() -> None:
    model = toys.model(toys.Linear)
    waveform, lengths, labels = toys.sounds()
    x = model.inputs(waveform, lengths, "spectrogram")
    with Target(model, lengths, "spectrogram") as target:
        single = IterativeFGSM(alpha=0.01, steps=1).perturb(target, x, labels, generator())
        many = IterativeFGSM(alpha=0.01, steps=20).perturb(target, x, labels, generator())
        fgsm = FGSM(epsilon=0.01).perturb(target, x, labels, generator())
    assert torch.equal(single, fgsm)
    assert 0.1 < (many - x).abs().max() <= 0.2 + 1e-5


@pytest.mark.parametrize("domain", DOMAINS)
def test_iterative_attacks_beat_a_single_step_which_beats_noise(domain: Domain) -> None:
    model = toys.model(toys.Convolutional)
    waveform, lengths, labels = toys.sounds(32)
    x = model.eval().inputs(waveform, lengths, domain).detach()
    epsilon = 2 * toys.EPSILON[domain]
    attacks = [
        Noise(epsilon=epsilon, kind="sign"),
        FGSM(epsilon=epsilon),
        IterativeFGSM(epsilon=epsilon),
        PGD(epsilon=epsilon, restarts=3),
    ]
    with Target(model, lengths, domain) as target:
        losses = [target.loss(attack.perturb(target, x, labels, generator()), labels) for attack in attacks]
    noise, fgsm, ifgsm, pgd = losses
    assert (fgsm > noise).all()
    assert ifgsm.mean() > fgsm.mean()
    assert pgd.mean() > fgsm.mean()


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", [name for name in ATTACKS if ATTACKS.get(name).bf16])
def test_an_attack_with_bfloat16_gradients_is_as_strong(name: str, domain: Domain) -> None:
    model = toys.model(toys.Convolutional).eval()
    waveform, lengths, labels = toys.sounds(32)
    x = model.inputs(waveform, lengths, domain).detach()
    attack, gains = attack_named(name, domain, steps=10), []
    for precision in PRECISIONS:
        with Target(model, lengths, domain, precision=precision) as target:
            perturbed = attack.perturb(target, x, labels, generator())
            gains.append(float((target.loss(perturbed, labels) - target.loss(x, labels)).mean()))
    exact, rounded = gains
    assert exact > 0
    assert rounded != exact, "the attack took no gradient in bfloat16"
    assert rounded == pytest.approx(exact, rel=0.03)


def test_a_subclass_of_an_attack_uses_bfloat16_gradients_only_if_it_declares_them() -> None:
    class Changed(IterativeFGSM):
        """Declares nothing."""

    class Declared(Changed):
        """Declares bfloat16 gradients."""

        bf16: ClassVar[bool] = True

    assert [plugin.bf16 for plugin in (IterativeFGSM, Changed, Declared)] == [True, False, True]


def test_pgd_returns_each_clips_best_example_of_all_restarts() -> None:
    model = toys.model(toys.Convolutional)
    x, lengths, labels = toys.sounds(16)
    with Target(model, lengths, "waveform") as target:
        shared = generator()
        single = PGD(epsilon=0.02, steps=4)
        runs = torch.stack([target.loss(single.perturb(target, x, labels, shared), labels) for _ in range(3)])
        best = target.loss(PGD(epsilon=0.02, steps=4, restarts=3).perturb(target, x, labels, generator()), labels)
    torch.testing.assert_close(best, runs.amax(0))
    assert len(set(runs.argmax(0).tolist())) > 1, "every clip is best in the same run: the test could not fail"


def test_pgd_never_ends_below_any_of_its_iterates() -> None:
    model = toys.model(toys.Convolutional)
    x, lengths, labels = toys.sounds(16)
    losses: list[Tensor] = []

    class Watched(Target):
        def loss_and_gradient(self, x: Tensor, labels: Tensor, *loss: object) -> tuple[Tensor, Tensor]:
            result = super().loss_and_gradient(x, labels, *loss)
            losses.append(result[0])
            return result

    with Watched(model, lengths, "waveform") as target:
        # Steps as wide as the budget overshoot, so that later iterates are worse than earlier ones.
        perturbed = PGD(epsilon=0.05, alpha=0.05, steps=5).perturb(target, x, labels, generator())
        final = target.loss(perturbed, labels)
    assert torch.stack(losses).shape == (5, 16)
    assert (final >= torch.stack(losses).amax(0) - 1e-6).all()


def test_pgd_evaluates_its_last_step_with_a_further_forward_pass() -> None:
    model = toys.model(toys.Linear)
    x, lengths, labels = toys.sounds()
    with Target(model, lengths, "waveform") as target:
        # On a linear model a step of twice the budget ends at the budget's edge from every start.
        perturbed = PGD(epsilon=0.01, alpha=0.02, steps=1, restarts=3).perturb(target, x, labels, generator())
        passes = target.forwards.tolist(), target.backwards.tolist()
    torch.testing.assert_close((perturbed - x).abs(), torch.full_like(x, 0.01))
    assert passes == ([3 * 2] * len(x), [3 * 1] * len(x))


def test_soft_labels_have_no_gradient_at_the_clean_input_but_at_a_random_start() -> None:
    model = toys.model(toys.Convolutional).double()
    waveform, lengths, true = toys.sounds(16)
    x = model.inputs(waveform.double(), lengths, "spectrogram").detach()
    soft = given_labels(model, x, lengths, "spectrogram", "soft", true)
    start = x + 0.01 * torch.randn(x.shape, generator=generator(), dtype=x.dtype)
    with Target(model, lengths, "spectrogram") as target:
        assert target.gradient(x, soft).abs().max() < 1e-12
        assert target.gradient(start, soft).abs().max() > 1e-6
        rise = target.loss(
            IterativeFGSM(epsilon=0.3, random_start=0.05).perturb(target, x, soft, generator()), soft
        ) - target.loss(x, soft)
        control = target.loss(Noise(epsilon=0.3, kind="sign").perturb(target, x, soft, generator()), soft)
    assert (rise > 0).all()
    assert rise.mean() > 3 * (control - target.loss(x, soft)).mean()


def test_noise_at_an_snr_has_that_snr_over_the_unpadded_samples() -> None:
    x = torch.stack([torch.linspace(-0.5, 0.5, 4000), torch.linspace(0, 0.01, 4000), torch.zeros(4000)])
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[1, 1000:] = False
    x = x * mask
    target = Target(None, torch.tensor([4000, 1000, 4000]), "waveform", "blind", mask=mask)
    noise = SnrNoise(snr=20.0).perturb(target, x, torch.zeros(3), torch.Generator().manual_seed(0)) - x
    snr = 10 * torch.log10(x.square().sum(1) / noise.square().sum(1))
    torch.testing.assert_close(snr[:2], torch.tensor([20.0, 20.0]), atol=1e-3, rtol=0)
    assert noise[1, 1000:].abs().max() == noise[2].abs().max() == 0


def test_noise_has_its_documented_spread() -> None:
    x = torch.zeros(4, 50_000)
    target = Target(None, torch.full((4,), 50_000), "waveform", "blind")
    sign = Noise(epsilon=0.03, kind="sign").perturb(target, x, torch.zeros(4), generator())
    gaussian = Noise(epsilon=0.03, kind="gaussian").perturb(target, x, torch.zeros(4), generator())
    assert sign.abs().unique().tolist() == pytest.approx([0.03])
    assert abs(sign.mean()) < 3e-4
    assert gaussian.std().item() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("norm", ["l2", "relative-l2"])
def test_noise_in_l2_uses_the_whole_budget(norm: Norm) -> None:
    x = torch.stack([torch.linspace(-0.5, 0.5, 4000), torch.linspace(0, 0.01, 4000)])
    mask = torch.arange(4000) < torch.tensor([[4000], [1000]])
    x = x * mask
    target = Target(None, torch.tensor([4000, 1000]), "waveform", "blind", mask=mask)
    noise = Noise(epsilon=0.1, norm=norm)
    perturbed = noise.perturb(target, x, torch.zeros(2), generator())
    torch.testing.assert_close(Attack.budget(noise, "waveform").size(perturbed, x), torch.full((2,), 0.1))
    assert not (perturbed - x)[~mask].any()
