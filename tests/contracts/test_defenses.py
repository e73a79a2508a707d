"""Every registered defense satisfies the contract; the objectives of Ren et al. are those of the paper."""

from __future__ import annotations

import copy

import pytest
import torch
import toys
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional

from advser.attacks.learned import LearnedAttack
from advser.attacks.reference import AttackReference
from advser.defenses.adversarial_training import Similarity, Vanilla
from advser.defenses.base import Defense, TrainingBatch, craft
from advser.defenses.undefended import Undefended
from advser.errors import InputError
from advser.models.base import EmotionModel
from advser.models.terms import Domain
from advser.plan.jobs import inner_attacks
from advser.plugins.parameters import build, validated
from advser.plugins.registries import ATTACKS, DEFENSES

ADVERSARIAL = (Vanilla, Similarity)
EVERYWHERE = [
    pytest.param(name, kind, domain, id=f"{name}-{kind.__name__}-{domain}")
    for name in DEFENSES
    for kind, domain in toys.PLACES
]
LEARNED = [name for name in ATTACKS if issubclass(ATTACKS.get(name), LearnedAttack)]
BY_ATTACK = [
    pytest.param(plugin, name, domain, id=f"{plugin.__name__}-{name}-{domain}")
    for plugin in ADVERSARIAL
    for name in ATTACKS
    if name not in LEARNED and not ATTACKS.get(name).places
    for domain in ATTACKS.get(name).domains
]


def fgsm(epsilon: float = 0.05) -> AttackReference:
    return AttackReference(name="fgsm", params={"epsilon": epsilon})


def training_passes(model: EmotionModel) -> int:
    return int(model.body[1].num_batches_tracked)


def own_fgsm(model: EmotionModel, batch: TrainingBatch, epsilon: float) -> Tensor:
    """Return features perturbed by FGSM against the model's own decisions, on a copy of the model."""
    frozen = copy.deepcopy(model).eval()
    x = batch.features.clone().requires_grad_()
    logits = frozen.outputs(x, batch.lengths, "spectrogram").logits
    functional.cross_entropy(logits, logits.argmax(1)).backward()
    assert x.grad is not None
    return batch.features + epsilon * x.grad.sign()


@pytest.mark.parametrize(("name", "kind", "domain"), EVERYWHERE)
def test_every_defense_satisfies_the_contract_of_its_loss(name: str, kind: type[EmotionModel], domain: Domain) -> None:
    defense = build(DEFENSES.get(name), toys.row(DEFENSES.get(name), domain=domain), name)
    model = defense.extend(toys.model(kind)).train()
    batch = toys.training_batch(model)
    before = {field: value.clone() for field, value in vars(batch).items() if isinstance(value, Tensor)}
    loss = defense.loss(model, batch, 0)
    loss.backward()
    assert loss.shape == ()
    assert loss.isfinite()
    assert all(module.training for module in model.modules())
    assert all(weight.requires_grad for weight in model.parameters())
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
    assert any(weight.grad.any() for weight in model.head.parameters())
    assert all(torch.equal(getattr(batch, field), value) for field, value in before.items())
    assert set(inner_attacks(defense)) <= set(ATTACKS)


@pytest.mark.parametrize("plugin", ADVERSARIAL)
def test_a_step_of_adversarial_training_has_three_forward_passes(plugin: type[Defense]) -> None:
    """The passes are on x, on x for both the labels and the gradient that craft x′, and on x′."""
    model = toys.model(toys.Convolutional).train()
    modes: list[bool] = []
    model.head.register_forward_hook(lambda module, *_: modes.append(module.training))
    build(plugin, {"attack": fgsm().model_dump()}, plugin.__name__).loss(model, toys.training_batch(model), 0)
    assert modes == [True, False, True]


@pytest.mark.parametrize("name", list(DEFENSES))
def test_every_defense_returns_a_usable_model(name: str) -> None:
    model = toys.model(toys.Convolutional)
    defense = build(DEFENSES.get(name), toys.row(DEFENSES.get(name)), name)
    waveform, lengths, _ = toys.sounds()
    wrapped = defense.wrap(defense.extend(model)).eval()
    assert wrapped(waveform, lengths).shape == (len(waveform), toys.CLASSES)
    features = wrapped.inputs(waveform, lengths, "spectrogram")
    assert wrapped.outputs(features, lengths, "spectrogram").logits.isfinite().all()


@pytest.mark.parametrize(("name", "kind", "domain"), EVERYWHERE)
def test_modules_of_a_defense_are_restored_from_a_checkpoint_and_do_not_change_the_classifier(
    name: str, kind: type[EmotionModel], domain: Domain
) -> None:
    defense = build(DEFENSES.get(name), toys.row(DEFENSES.get(name), domain=domain), name)
    plain = toys.model(kind).eval()
    extended = defense.extend(copy.deepcopy(plain)).eval()
    waveform, lengths, _ = toys.sounds()
    outputs, expected = extended.outputs(waveform, lengths, "waveform"), plain.outputs(waveform, lengths, "waveform")
    assert torch.equal(outputs.logits, expected.logits)
    assert torch.equal(outputs.embedding, expected.embedding)
    assert torch.equal(extended.inputs(waveform, lengths, domain), plain.inputs(waveform, lengths, domain))
    assert (extended.spectrogram, extended.differentiable) == (plain.spectrogram, plain.differentiable)
    checkpoint = load(save({key: value.contiguous() for key, value in extended.state_dict().items()}))
    loaded = defense.extend(toys.model(kind, seed=1)).eval()
    loaded.load_state_dict(checkpoint)
    again = loaded.outputs(waveform, lengths, "waveform")
    assert torch.equal(again.logits, outputs.logits)
    assert (again.detection is None) == (outputs.detection is None)
    assert outputs.detection is None or torch.equal(again.detection, outputs.detection)


@pytest.mark.parametrize("name", list(DEFENSES))
def test_every_defense_is_described(name: str) -> None:
    plugin = DEFENSES.get(name)
    assert plugin.__doc__
    assert all(field.description for field in plugin.model_fields.values())
    complete = validated(plugin, toys.row(plugin), name)
    assert validated(plugin, complete, name) == complete
    assert build(plugin, complete, name) == build(plugin, toys.row(plugin), name)


@pytest.mark.parametrize(("plugin", "attack", "domain"), BY_ATTACK)
def test_any_attack_can_be_trained_against(plugin: type[Defense], attack: str, domain: Domain) -> None:
    model = toys.model(toys.Convolutional)
    params = toys.row(ATTACKS.get(attack), **{"epsilon": toys.EPSILON[domain], **toys.SMALL.get(attack, {})})
    defense = build(plugin, {"attack": {"name": attack, "params": params}, "domain": domain}, "defense")
    assert inner_attacks(defense)[0] == attack
    batch = toys.training_batch(model)
    clean_only = build(plugin, {**defense.model_dump(mode="json"), "warmup": 1}, "defense")
    torch.manual_seed(0)
    loss = defense.loss(model, batch, 0)
    torch.manual_seed(0)
    assert loss.isfinite()
    assert loss.item() != clean_only.loss(model, batch, 0).item()


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("plugin", ADVERSARIAL)
def test_an_attack_that_needs_a_trained_model_is_rejected(plugin: type[Defense], name: str) -> None:
    reference = {"name": name, "params": toys.row(ATTACKS.get(name), epsilon=0.01)}
    with pytest.raises(InputError, match=f"name: got '{name}', .*; expected an attack "):
        validated(plugin, {"attack": reference}, "defense")


def test_undefended_is_the_mean_cross_entropy() -> None:
    model = toys.model(toys.Linear)
    batch = toys.training_batch(model)
    expected = functional.cross_entropy(model(batch.waveform, batch.lengths), batch.labels)
    torch.testing.assert_close(Undefended().loss(model, batch, 0), expected)


def forwards_by_hand(
    model: EmotionModel, batch: TrainingBatch, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return clean and adversarial cross-entropy and embeddings, by two forward passes in training mode."""
    clean = model.outputs(batch.features, batch.lengths, "spectrogram")
    x = own_fgsm(model, batch, epsilon)
    adversarial = model.outputs(x, batch.lengths, "spectrogram")
    losses = [functional.cross_entropy(outputs.logits, batch.labels) for outputs in (clean, adversarial)]
    return losses[0], losses[1], clean.embedding, adversarial.embedding


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
def test_vanilla_is_equation_3_of_ren(alpha: float) -> None:
    model = toys.model(toys.Convolutional)
    twin, batch = copy.deepcopy(model), toys.training_batch(model)
    torch.manual_seed(1)
    loss = Vanilla(attack=fgsm(), alpha=alpha).loss(model, batch, 0)
    torch.manual_seed(1)
    clean, adversarial, _, _ = forwards_by_hand(twin, batch, 0.05)
    torch.testing.assert_close(loss, alpha * clean + (1 - alpha) * adversarial)


@pytest.mark.parametrize(("beta", "gamma"), [(0.4, 0.4), (0.0, 0.0), (0.7, 0.3)])
@pytest.mark.parametrize("norm", ["mse", "l2"])
def test_similarity_is_equation_4_of_ren(beta: float, gamma: float, norm: str) -> None:
    model = toys.model(toys.Convolutional)
    twin, batch = copy.deepcopy(model), toys.training_batch(model)
    torch.manual_seed(1)
    params = {"attack": toys.INNER_ATTACK, "beta": beta, "gamma": gamma, "norm": norm}
    loss = build(Similarity, params, "defense").loss(model, batch, 0)
    torch.manual_seed(1)
    clean, adversarial, v, w = forwards_by_hand(twin, batch, 0.05)
    squares = (v - w) ** 2
    distance = squares.sum() / squares.numel() if norm == "mse" else (squares.sum(1) ** 0.5).sum() / len(v)
    torch.testing.assert_close(loss, beta * clean + gamma * adversarial + (1 - beta - gamma) * distance)


@pytest.mark.parametrize("plugin", ADVERSARIAL)
def test_only_the_clean_and_the_adversarial_pass_update_the_running_statistics(plugin: type[Defense]) -> None:
    model = toys.model(toys.Convolutional)
    twin, batch = copy.deepcopy(model), toys.training_batch(model)
    start = training_passes(model)
    plugin(attack=fgsm(), warmup=1).loss(model, batch, 0)
    assert training_passes(model) == start + 1
    model = copy.deepcopy(twin)
    torch.manual_seed(1)
    plugin(attack=fgsm()).loss(model, batch, 0)
    torch.manual_seed(1)
    forwards_by_hand(twin, batch, 0.05)
    assert training_passes(model) == start + 2
    torch.testing.assert_close(model.body[1].running_mean, twin.body[1].running_mean)
    torch.testing.assert_close(model.body[1].running_var, twin.body[1].running_var)


@pytest.mark.parametrize("plugin", ADVERSARIAL)
def test_the_warm_up_is_clean_training(plugin: type[Defense]) -> None:
    model = toys.model(toys.Linear)
    batch = toys.training_batch(model)
    clean = Undefended().loss(model, batch, 0)
    defense = plugin(attack=fgsm(), warmup=3)
    assert [torch.equal(defense.loss(model, batch, step), clean) for step in (0, 2, 3, 4)] == [True, True, False, False]


def test_crafted_sound_is_within_the_budget_and_the_range_and_zero_in_the_padding() -> None:
    model = toys.model(toys.Waveform)
    batch = toys.training_batch(model)
    # Unprojected, and wide enough to leave [−1, 1].
    wide = craft(model, batch, build(ATTACKS.get("ifgsm"), {"alpha": 0.5, "steps": 4}, "attack"), "waveform")
    assert wide.abs().max() == 1
    narrow = craft(model, batch, build(ATTACKS.get("ifgsm"), {"epsilon": 0.01, "alpha": 0.5}, "attack"), "waveform")
    assert (narrow - batch.waveform).abs().max().item() == pytest.approx(0.01, rel=1e-4)
    padding = torch.arange(toys.SAMPLES) >= batch.lengths[:, None]
    assert padding.any()
    assert not wide[padding].any()
    assert not narrow[padding].any()


def test_crafting_restores_the_state_of_the_model() -> None:
    model = toys.model(toys.Convolutional)
    before = toys.state(model)
    craft(model, toys.training_batch(model), fgsm().build(), "spectrogram")
    toys.assert_same_state(model, before)


def test_training_against_fgsm_makes_a_model_more_robust_to_it() -> None:
    accuracy = {}
    for name, defense in {"none": Undefended(), "vanilla": Vanilla(attack=fgsm(0.3), alpha=0.5)}.items():
        model = toys.model(toys.Linear)
        batch = toys.training_batch(model, clips=24)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        torch.manual_seed(0)
        for step in range(60):
            optimizer.zero_grad()
            defense.loss(model, batch, step).backward()
            optimizer.step()
        x = own_fgsm(model, batch, 0.1)
        decisions = model.eval().outputs(x, batch.lengths, "spectrogram").logits.argmax(1)
        accuracy[name] = float((decisions == batch.labels).float().mean())
    assert accuracy["vanilla"] > accuracy["none"]


@pytest.mark.parametrize(
    ("plugin", "params", "message"),
    [
        (Similarity, {"beta": 0.7, "gamma": 0.5}, "beta \\+ gamma is 1.2, expected at most 1"),
        (Vanilla, {"alpha": 1.5}, "alpha: got 1.5, expected at most 1"),
        (Vanilla, {"domain": "cepstrum"}, "domain: .*'waveform' or 'spectrogram'"),
        (Vanilla, {"attack": {"name": "fgms"}}, "attack: unknown attack 'fgms'; did you mean 'fgsm'"),
        (Vanilla, {"attack": {"name": "fgsm"}}, "attack: attack 'fgsm': epsilon: got nothing"),
        (
            Vanilla,
            {"attack": {"name": "fgsm", "params": {"epsilon": "a lot"}}},
            "epsilon: got 'a lot', expected a number",
        ),
        (Vanilla, {"attack": {"name": "fgsm", "parameters": {}}}, "attack"),
        (Vanilla, {"attack": "fgsm"}, "attack: got 'fgsm', expected "),
    ],
)
def test_invalid_parameters_are_rejected_in_a_single_line(
    plugin: type[Defense], params: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        build(plugin, {"attack": toys.INNER_ATTACK, **params}, "defense 'x'")
    assert str(refusal.value).startswith("defense 'x': ")
    assert "\n" not in str(refusal.value)


def test_inner_attacks_include_those_in_a_tuple() -> None:
    class Ensemble(Vanilla):
        """Training against several attacks."""

        more: tuple[AttackReference, ...] = ()

    params = {"attack": toys.INNER_ATTACK, "more": [{"name": "none"}, {"name": "noise", "params": {"epsilon": 0.1}}]}
    assert inner_attacks(build(Ensemble, params, "defense")) == ("fgsm", "none", "noise")
