"""Attacks of the Adversarial Robustness Toolbox (ART), which use AdvSER's target alone."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
import pytest
import torch
import toys
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.gradient_sign import FGSM, IterativeFGSM
from advser.attacks.toolbox import ART, HopSkipJump
from advser.audio.clips import sound_mask
from advser.errors import AccessError, InputError
from advser.models.base import EmotionModel
from advser.models.terms import DOMAINS, Domain
from advser.plugins.parameters import build
from advser.threat.admission import admit, round_within
from advser.threat.model import Access, Norm
from advser.threat.target import Target

pytest.importorskip("art")

from advser.attacks.toolbox_classifier import ClipClassifier

WORKING: dict[str, dict[str, Any]] = {
    "AutoConjugateGradient": {"max_iter": 2, "nb_random_init": 1},
    "AutoProjectedGradientDescent": {"max_iter": 2, "nb_random_init": 1},
    "BasicIterativeMethod": {"max_iter": 2},
    "BoundaryAttack": {"max_iter": 2, "sample_size": 2, "num_trial": 2},
    "CarliniL2Method": {"max_iter": 2, "binary_search_steps": 2},
    "CarliniLInfMethod": {"max_iter": 2, "decrease_factor": 0.3},
    "DeepFool": {"max_iter": 2},
    "ElasticNet": {"max_iter": 2, "binary_search_steps": 1},
    "FastGradientMethod": {},
    "HopSkipJump": {"max_iter": 1, "max_eval": 20, "init_eval": 5},
    "MomentumIterativeMethod": {"max_iter": 2},
    "NewtonFool": {"max_iter": 2},
    "ProjectedGradientDescent": {"max_iter": 2, "num_random_init": 1},
    "SignOPTAttack": {"max_iter": 1, "query_limit": 40, "num_trial": 2, "k": 2},
    "UniversalPerturbation": {"max_iter": 1, "attacker": "fgsm"},
}
"""The working classes in the docstring of `ART`, with arguments for short runs."""


class Batch:
    """A toy model and a batch with the model's own decisions as labels, so that every clip is classified correctly."""

    def __init__(self, kind: type[EmotionModel], domain: Domain, clips: int = 3, classes: int = toys.CLASSES) -> None:
        self.model, self.domain = toys.model(kind, classes=classes), domain
        waveform, self.lengths, _ = toys.sounds(clips)
        with torch.no_grad():
            self.x = self.model.inputs(waveform, self.lengths, domain)
            sound = domain == "waveform"
            frontend = self.model.frontend
            self.mask = sound_mask(self.lengths, toys.SAMPLES) if sound else frontend.mask(waveform, self.lengths)
        self.labels = self.decisions(self.x)

    def target(self, access: Access = "white-box") -> Target:
        return Target(self.model, self.lengths, self.domain, access, mask=self.mask)

    def decisions(self, x: Tensor) -> Tensor:
        with self.target() as target:
            return target.decisions(x)

    def perturb(self, attack: Attack, labels: Tensor | None = None, seed: int = 0) -> tuple[Tensor, Target]:
        with self.target(attack.access) as target:
            labels = self.labels if labels is None else labels
            return attack.perturb(target, self.x, labels, torch.Generator().manual_seed(seed)), target

    def size(self, perturbed: Tensor, norm: Norm) -> Tensor:
        return (perturbed - self.x).flatten(1).norm(torch.inf if norm == "linf" else 2, dim=1)

    def classifier(self, target: Target, row: int = 1) -> ClipClassifier:
        return ClipClassifier(target, self.x, row, None, Target.logits, toys.CLASSES)


@pytest.mark.parametrize(
    ("name", "arguments", "ours"),
    [
        ("FastGradientMethod", {}, FGSM(epsilon=0.02)),
        ("BasicIterativeMethod", {"eps_step": 0.005, "max_iter": 5}, IterativeFGSM(epsilon=0.02, alpha=0.005, steps=5)),
        (
            "ProjectedGradientDescent",
            {"eps_step": 0.008, "max_iter": 5, "num_random_init": 0},
            IterativeFGSM(epsilon=0.02, alpha=0.008, steps=5),
        ),
    ],
)
@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("kind", [toys.Linear, toys.Convolutional])
def test_gradient_sign_steps_of_the_toolbox_equal_ours(
    kind: type[EmotionModel], domain: Domain, name: str, arguments: dict[str, Any], ours: Attack
) -> None:
    batch = Batch(kind, domain)
    perturbed, _ = batch.perturb(ART(attack=name, arguments=arguments, epsilon=0.02))
    expected, _ = batch.perturb(ours)
    # The toolbox clips sound to [-1, 1].
    torch.testing.assert_close(
        perturbed, expected.clamp(-1, 1) if domain == "waveform" else expected, rtol=0, atol=1e-6
    )
    assert not torch.equal(perturbed, batch.x)


@pytest.mark.parametrize("domain", DOMAINS)
def test_gradients_equal_autograds(domain: Domain) -> None:
    batch = Batch(toys.Convolutional, domain)
    row, label = 1, 2
    variable = batch.x[[row, row]].clone().requires_grad_()
    logits = batch.model.eval().outputs(variable, batch.lengths[[row, row]], domain).logits
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([label, label]), reduction="sum")
    of_loss = torch.autograd.grad(loss, variable, retain_graph=True)[0] * batch.mask[row]
    of_logits = [
        torch.autograd.grad(column.sum(), variable, retain_graph=True)[0] * batch.mask[row] for column in logits.T
    ]
    with batch.target() as target:
        clip = batch.classifier(target, row)
        images = np.concatenate([clip.clean, clip.clean])
        y = np.eye(toys.CLASSES, dtype=np.float32)[[label, label]]

        def as_images(values: Tensor) -> np.ndarray:
            sounding = batch.mask.expand_as(batch.x)[row].reshape(-1, batch.x.shape[-1]).any(0)
            return values[..., sounding].reshape(images.shape).numpy()

        np.testing.assert_allclose(clip.predict(images), logits.detach(), atol=1e-6)
        np.testing.assert_allclose(clip.compute_loss(images, y).sum(), loss.item(), rtol=1e-5)
        np.testing.assert_allclose(clip.loss_gradient(images, y), as_images(of_loss), atol=1e-7)
        np.testing.assert_allclose(clip.loss_gradient(images, y.argmax(1)), as_images(of_loss), atol=1e-7)
        gradients = clip.class_gradient(images)
        assert gradients.shape == (2, toys.CLASSES, *images.shape[1:])
        for column, gradient in enumerate(of_logits):
            np.testing.assert_allclose(gradients[:, column], as_images(gradient), atol=1e-7)
        np.testing.assert_array_equal(clip.class_gradient(images, label=1)[:, 0], gradients[:, 1])
        mixed = clip.class_gradient(images, label=np.array([2, 0]))[:, 0]
        np.testing.assert_array_equal(mixed, np.stack([gradients[0, 2], gradients[1, 0]]))


@pytest.mark.parametrize("domain", DOMAINS)
def test_art_gets_a_clip_without_its_padding_which_is_restored_afterwards(domain: Domain) -> None:
    batch = Batch(toys.Convolutional, domain)
    with batch.target() as target:
        clip = batch.classifier(target, row=2)
        assert clip.clean.shape == (1, *clip.input_shape)
        assert clip.input_shape[0] == 1
        assert clip.input_shape[2] == batch.mask.expand_as(batch.x)[2].reshape(-1, batch.x.shape[-1]).any(0).sum()
        assert torch.equal(clip.inputs(clip.clean), batch.x[2:3])
        moved = clip.inputs(clip.clean + 1) - batch.x[2:3]
    torch.testing.assert_close(moved, batch.mask.expand_as(batch.x)[2:3].float(), rtol=0, atol=1e-6)


def test_every_attack_that_the_docstring_lists_is_tested() -> None:
    listed = (ART.__doc__ or "").split("Work on sound and on spectrograms:")[1].split("(of each")[0]
    assert [name.strip() for name in listed.split(",")] == list(WORKING)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", WORKING)
def test_attacks_respect_the_budget_and_draw_from_their_generator_alone(name: str, domain: Domain) -> None:
    batch = Batch(toys.Linear, domain, clips=2)
    attack = ART(attack=name, arguments=WORKING[name], epsilon=toys.EPSILON[domain])
    perturbed, target = batch.perturb(attack)
    torch.rand(1), np.random.rand(), random.random()
    again, _ = batch.perturb(attack)
    assert torch.equal(perturbed, again)
    budget = attack.budget(domain)
    assert budget is not None
    assert perturbed.isfinite().all()
    assert torch.equal(perturbed, torch.where(batch.mask, perturbed, batch.x)), "padding was changed"
    admitted = admit(perturbed, batch.x, batch.mask, domain, budget)
    assert not budget.exceeded(admitted, batch.x).any()
    assert (target.forwards > 1).all()


@pytest.mark.parametrize("attack", [ART(epsilon=0.01, arguments={"num_random_init": 1}), HopSkipJump(queries=30)])
def test_global_random_states_are_restored_and_the_seed_has_effect(attack: Attack) -> None:
    batch = Batch(toys.Linear, "spectrogram")
    before = np.random.get_state(), random.getstate(), torch.get_rng_state()
    perturbed, _ = batch.perturb(attack)
    after = np.random.get_state(), random.getstate(), torch.get_rng_state()
    np.testing.assert_equal(after[0], before[0])
    assert after[1] == before[1]
    assert torch.equal(after[2], before[2])
    assert not torch.equal(perturbed, batch.perturb(attack, seed=1)[0])


def test_random_states_are_restored_after_an_error_too() -> None:
    batch, state = Batch(toys.Linear, "spectrogram"), random.getstate()
    with pytest.raises(InputError):
        batch.perturb(ART(arguments={"eps": -1.0}))
    assert random.getstate() == state


def test_the_toolbox_uses_an_l2_budget() -> None:
    batch = Batch(toys.Linear, "spectrogram")
    perturbed, _ = batch.perturb(ART(norm="l2", epsilon=0.5))
    torch.testing.assert_close(batch.size(perturbed, "l2"), torch.full((3,), 0.5))


def test_passes_are_counted() -> None:
    batch = Batch(toys.Linear, "spectrogram")
    _, target = batch.perturb(ART(epsilon=0.01))
    # One forward pass for the number of classes, and the pass of the gradient.
    assert target.forwards.tolist() == [2] * 3
    assert target.backwards.tolist() == [1] * 3
    with batch.target() as target:
        clip = batch.classifier(target, row=1)
        clip.predict(np.repeat(clip.clean, 5, axis=0), batch_size=2)
        clip.class_gradient(np.repeat(clip.clean, 2, axis=0))
    assert target.forwards.tolist() == [0, 5 + 2 * toys.CLASSES, 0]
    assert target.backwards.tolist() == [0, 2 * toys.CLASSES, 0]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"attack": "Magic"}, "attack: got 'Magic', expected a class in art.attacks.evasion$"),
        ({"attack": "projected_gradient_descent"}, "expected a class in art.attacks.evasion$"),
        ({"arguments": {"epz": 1}}, "arguments: got 'epz', expected arguments of FastGradientMethod: norm, eps, "),
        ({"arguments": {"targeted": True}}, "arguments: got 'targeted', expected arguments of FastGradientMethod"),
        (
            {"attack": "FrameSaliencyAttack"},
            "missing a required argument: 'attacker', expected arguments of FrameSaliencyAttack",
        ),
    ],
)
def test_unknown_attacks_and_arguments_are_refused_in_one_line(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build(ART, params, "attack")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"arguments": {"eps_step": -1.0}}, "attack 'FastGradientMethod': .*`eps_step` has to be positive"),
        ({"attack": "DecisionTreeAttack"}, "attack 'DecisionTreeAttack': .*requires an estimator"),
    ],
)
def test_refusals_of_the_toolbox_are_reported_in_one_line(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Batch(toys.Linear, "spectrogram").perturb(ART(**params))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("plugin", [ART, HopSkipJump])
def test_a_missing_toolbox_names_the_extra(plugin: type[Attack], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "art.attacks", None)
    with pytest.raises(InputError, match=r"is not installed; .*: pip install '\.\[art\]' ") as caught:
        build(plugin, {}, "attack")
    assert "\n" not in str(caught.value)


def test_hopskipjump_refuses_an_impossible_first_estimate() -> None:
    with pytest.raises(InputError, match="init_eval: got 100, expected at most max_eval, 10"):
        build(HopSkipJump, {"max_eval": 10}, "attack")


def test_hopskipjump_has_access_to_decisions_alone() -> None:
    assert HopSkipJump.access == "decisions"
    batch = Batch(toys.Linear, "spectrogram")
    with batch.target("decisions") as target:
        clip = batch.classifier(target)
        y = np.eye(toys.CLASSES, dtype=np.float32)[[0]]
        for use in (
            lambda: clip.predict(clip.clean),
            lambda: clip.compute_loss(clip.clean, y),
            lambda: clip.loss_gradient(clip.clean, y),
            lambda: clip.class_gradient(clip.clean),
        ):
            with pytest.raises(AccessError, match="access is 'decisions'"):
                use()
    assert not target.forwards.any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("domain", DOMAINS)
def test_hopskipjump_reduces_the_distance_of_its_start(domain: Domain, norm: Norm) -> None:
    batch = Batch(toys.Linear, domain)
    # Without steps, the result is the start.
    start, _ = batch.perturb(HopSkipJump(norm=norm, max_iter=0))
    perturbed, target = batch.perturb(HopSkipJump(norm=norm, queries=600))
    assert (batch.decisions(start) != batch.labels).all()
    assert (batch.decisions(perturbed) != batch.labels).all()
    assert (batch.size(perturbed, norm) < 0.7 * batch.size(start, norm)).all()
    assert (target.forwards <= 600).all()
    assert not target.backwards.any()
    if domain == "waveform":
        assert torch.equal(round_within(perturbed, batch.x, None), perturbed), "sound is not on the 16-bit grid"


@pytest.mark.parametrize("queries", [1, 2, 30, 150])
def test_hopskipjump_respects_its_limit_of_queries(queries: int) -> None:
    batch = Batch(toys.Linear, "spectrogram")
    queried = torch.zeros(3, dtype=torch.long)

    class Watched(Target):
        def decisions(self, x: Tensor) -> Tensor:
            rows = torch.arange(len(x)) if self._clips.rows is None else self._clips.rows
            queried.index_add_(0, rows, torch.ones_like(rows))
            return super().decisions(x)

        def at(self, rows: Tensor) -> Target:
            part = super().at(rows)
            part.__class__ = Watched
            return part

    with Watched(batch.model, batch.lengths, "spectrogram", "decisions", mask=batch.mask) as target:
        perturbed = HopSkipJump(queries=queries).perturb(
            target, batch.x, batch.labels, torch.Generator().manual_seed(0)
        )
    assert torch.equal(target.forwards, queried)
    # The remaining queries are fewer than the next batch, which is at most 64 for the estimate of a direction.
    assert (queried <= queries).all()
    assert (queried > queries - 64).all()
    if queries == 1:
        assert torch.equal(perturbed, batch.x)


def test_hopskipjump_returns_misclassified_and_unassailable_clips_unchanged() -> None:
    batch = Batch(toys.Linear, "spectrogram")
    labels = batch.labels.clone()
    labels[1] = (labels[1] + 1) % toys.CLASSES
    perturbed, target = batch.perturb(HopSkipJump(queries=120), labels)
    assert torch.equal(perturbed[1], batch.x[1])
    assert target.forwards[1] == 1
    assert not torch.equal(perturbed[0], batch.x[0])
    with torch.no_grad():
        batch.model.head.weight.zero_()
    assert torch.equal(batch.perturb(HopSkipJump(), batch.decisions(batch.x))[0], batch.x)


@pytest.mark.parametrize("attack", [HopSkipJump(queries=250), ART(attack="DeepFool"), ART(epsilon=1.0)])
def test_two_classes_work(attack: Attack) -> None:
    batch = Batch(toys.Linear, "spectrogram", classes=2)
    perturbed, _ = batch.perturb(attack)
    assert (batch.decisions(perturbed) != batch.labels).all()


def test_soft_labels_count_as_their_most_probable_class() -> None:
    batch = Batch(toys.Linear, "spectrogram")
    soft = torch.nn.functional.one_hot(batch.labels, toys.CLASSES) * 0.6 + 0.1
    for attack in (ART(epsilon=0.01), HopSkipJump(queries=60)):
        assert torch.equal(batch.perturb(attack, soft)[0], batch.perturb(attack)[0])
