"""The target of an attack: its answers, their costs, and the model left unchanged."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import toys
from torch import Tensor
from torch.nn import functional

from advser.attacks.eot import Averaged
from advser.attacks.gradient_sign import IterativeFGSM
from advser.errors import AccessError
from advser.models.base import Outputs
from advser.models.terms import Domain
from advser.threat.model import Access
from advser.threat.objectives import OBJECTIVES, margin
from advser.threat.target import Target

QUESTIONS = {
    "logits": {"white-box", "scores"},
    "loss": {"white-box", "scores"},
    "decisions": {"white-box", "scores", "decisions"},
    "embedding": {"white-box"},
    "gradient": {"white-box"},
    "loss_and_gradient": {"white-box"},
}
LEVELS: tuple[Access, ...] = ("white-box", "transfer", "scores", "decisions", "blind")


def ask(target: Target, question: str, x: Tensor, labels: Tensor) -> object:
    takes_labels = question in ("loss", "gradient", "loss_and_gradient")
    return getattr(target, question)(x, labels) if takes_labels else getattr(target, question)(x)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_access_level_decides_which_questions_are_answered(question: str, level: Access) -> None:
    model = toys.model(toys.Waveform)
    x, lengths, labels = toys.sounds()
    with Target(model, lengths, "waveform", level) as target:
        if level in QUESTIONS[question]:
            ask(target, question, x, labels)
        else:
            with pytest.raises(AccessError, match=f"access is '{level}', expected "):
                ask(target, question, x, labels)
            assert not target.forwards.any()
            assert not target.backwards.any()


@pytest.mark.parametrize(("kind", "domain"), toys.PLACES)
def test_answers_are_those_of_the_model_in_evaluation_mode(kind: type[toys.EmotionModel], domain: Domain) -> None:
    model = toys.model(kind)
    waveform, lengths, labels = toys.sounds()
    model.eval()
    x = model.inputs(waveform, lengths, domain).detach()
    expected = model.outputs(x, lengths, domain)
    model.train()
    with Target(model, lengths, domain) as target:
        logits, loss = target.logits(x), target.loss(x, labels)
        torch.testing.assert_close(logits, expected.logits)
        torch.testing.assert_close(target.embedding(x), expected.embedding)
        assert torch.equal(target.decisions(x), expected.logits.argmax(1))
        torch.testing.assert_close(loss, functional.cross_entropy(logits, labels, reduction="none"))
        assert not any(answer.requires_grad for answer in (logits, loss, target.gradient(x, labels)))


@pytest.mark.parametrize(("kind", "domain"), toys.PLACES)
def test_gradient_agrees_with_finite_differences(kind: type[toys.EmotionModel], domain: Domain) -> None:
    model = toys.model(kind).double()
    waveform, lengths, labels = toys.sounds(3)
    x = model.inputs(waveform.double(), lengths, domain).detach()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    with Target(model, lengths, domain) as target:
        slope = (target.gradient(x, labels) * direction).flatten(1).sum(1)
        step = 1e-6
        above, below = target.loss(x + step * direction, labels), target.loss(x - step * direction, labels)
    torch.testing.assert_close(slope, (above - below) / (2 * step), rtol=1e-4, atol=1e-6)


def test_a_clip_s_gradient_does_not_depend_on_its_batch() -> None:
    model = toys.model(toys.Convolutional)
    x, lengths, labels = toys.sounds()
    with Target(model, lengths, "waveform") as target:
        together = target.gradient(x, labels)
        alone = target.at(torch.tensor([3])).gradient(x[3:4], labels[3:4])
    torch.testing.assert_close(together[3:4], alone, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_k_steps_cost_k_forwards_and_k_backwards(steps: int) -> None:
    model = toys.model(toys.Convolutional)
    calls = []
    model.head.register_forward_hook(lambda *_: calls.append(1))
    x, lengths, labels = toys.sounds()
    with Target(model, lengths, "waveform") as target:
        IterativeFGSM(epsilon=0.01, steps=steps).perturb(target, x, labels, torch.Generator())
    assert len(calls) == steps
    assert target.forwards.tolist() == target.backwards.tolist() == [steps] * len(x)


def test_each_question_costs_its_number_of_passes() -> None:
    model = toys.model(toys.Linear)
    x, lengths, labels = toys.sounds()
    for question in QUESTIONS:
        with Target(model, lengths, "waveform") as target:
            ask(target, question, x, labels)
        assert target.forwards.tolist() == [1] * len(x)
        assert target.backwards.tolist() == [int("gradient" in question)] * len(x)


def test_part_of_a_batch_is_counted_on_the_whole() -> None:
    model = toys.model(toys.Waveform)
    x, lengths, labels = toys.sounds()
    with Target(model, lengths, "waveform") as target:
        part = target.at(torch.tensor([4, 1]))
        torch.testing.assert_close(part.logits(x[[4, 1]]), target.logits(x)[[4, 1]])
        part.at(torch.tensor([1])).gradient(x[[1]], labels[[1]])
    assert target.forwards.tolist() == [1, 3, 1, 1, 2, 1]
    assert target.backwards.tolist() == [0, 1, 0, 0, 0, 0]


def test_a_clip_that_is_listed_twice_in_a_batch_costs_two_passes() -> None:
    model = toys.model(toys.Waveform)
    x, lengths, labels = toys.sounds()
    rows = torch.tensor([2, 2, 2, 0])
    with Target(model, lengths, "waveform") as target:
        target.at(rows).gradient(x[rows], labels[rows])
    assert target.forwards.tolist() == target.backwards.tolist() == [1, 0, 3, 0, 0, 0]


def test_rows_may_be_a_mask_or_counted_from_the_end() -> None:
    model = toys.model(toys.Waveform)
    x, lengths, _ = toys.sounds()
    with Target(model, lengths, "waveform") as target:
        target.at(torch.arange(len(x)) == 1).logits(x[[1]])
        target.at(torch.tensor([-1])).logits(x[[-1]])
    assert target.forwards.tolist() == [0, 1, 0, 0, 0, 1]


def test_a_model_that_cannot_be_entered_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toys.model(toys.Convolutional).train()
    before = toys.state(model)

    def fail(model: object) -> None:
        raise RuntimeError("no blocks")

    monkeypatch.setattr("advser.threat.target.by_blocks", fail)
    with pytest.raises(RuntimeError, match="no blocks"), Target(model, toys.sounds()[1], "waveform"):
        pass
    toys.assert_same_state(model, before)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_and_random_states_are_left_as_they_were(fails: bool) -> None:
    model = toys.model(toys.Convolutional).train()
    model.body[1].eval()
    model.head.weight.requires_grad_(False)
    model.head.bias.grad = torch.ones_like(model.head.bias)
    before = toys.state(model)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    x, lengths, labels = toys.sounds()

    def attack() -> None:
        with Target(model, lengths, "waveform") as target:
            assert not model.training
            target.gradient(x, labels)
            target.logits(x)
            if fails:
                raise RuntimeError("the attack broke")

    if fails:
        with pytest.raises(RuntimeError, match="the attack broke"):
            attack()
    else:
        attack()
    toys.assert_same_state(model, before)
    assert model.head.bias.grad.tolist() == [1.0] * toys.CLASSES
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_gradients_are_computed_where_the_caller_computes_none() -> None:
    model = toys.model(toys.Linear)
    x, lengths, labels = toys.sounds()
    with torch.no_grad(), Target(model, lengths, "waveform") as target:
        assert target.gradient(x, labels).abs().sum() > 0
    assert not x.requires_grad


@pytest.mark.parametrize(("kind", "domain"), toys.PLACES)
def test_a_gradient_reuses_decisions_ahead(kind: type[toys.EmotionModel], domain: Domain) -> None:
    model = toys.model(kind)
    waveform, lengths, labels = toys.sounds()
    x = model.eval().inputs(waveform, lengths, domain).detach()
    with Target(model, lengths, domain) as target:
        expected = target.decisions(x), target.gradient(x, labels)
        before = target.forwards.clone()
        assert torch.equal(target.decisions_ahead(x), expected[0])
        torch.testing.assert_close(target.gradient(x, labels), expected[1])
        assert (target.forwards - before == 1).all()
        torch.testing.assert_close(target.gradient(x, labels), expected[1])
        assert (target.forwards - before == 2).all()


def test_a_gradient_at_another_input_does_not_reuse_decisions_ahead() -> None:
    model = toys.model(toys.Convolutional)
    x, lengths, labels = toys.sounds()
    with Target(model, lengths, "waveform") as target:
        moved = target.gradient(x * 0.5, labels)
        target.decisions_ahead(x)
        assert torch.equal(target.gradient(x * 0.5, labels), moved)
        changed = x.clone()
        target.decisions_ahead(changed)
        changed.mul_(0.5)
        assert torch.equal(target.gradient(changed, labels), moved)


def test_a_linear_model_is_evaluated_in_float32() -> None:
    model = toys.model(toys.Linear).eval()
    x, lengths, labels = toys.sounds()
    with Target(model, lengths, "waveform") as exact, Target(model, lengths, "waveform", precision="bf16") as rounded:
        assert rounded.precision == "fp32"
        assert torch.equal(rounded.gradient(x, labels), exact.gradient(x, labels))


@pytest.mark.parametrize(("kind", "domain"), [place for place in toys.PLACES if place[0] is not toys.Linear])
def test_gradients_alone_are_in_bfloat16_and_every_reported_value_is_in_float32(
    kind: type[toys.EmotionModel], domain: Domain
) -> None:
    model = toys.model(kind).eval()
    waveform, lengths, labels = toys.sounds()
    x = model.inputs(waveform, lengths, domain).detach()
    with Target(model, lengths, domain) as exact, Target(model, lengths, domain, precision="bf16") as rounded:
        for question in ("logits", "loss", "embedding"):
            assert torch.equal(ask(exact, question, x, labels), ask(rounded, question, x, labels))
        expected, rounded_ascent = exact.ascent(x, labels), rounded.ascent(x, labels)
    assert {rounded_ascent.loss.dtype, rounded_ascent.gradient.dtype, rounded_ascent.margin.dtype} == {torch.float32}
    assert not torch.equal(rounded_ascent.gradient, expected.gradient)
    along = functional.cosine_similarity(rounded_ascent.gradient.flatten(1), expected.gradient.flatten(1))
    assert (along > 0.98).all()


def test_decisions_ahead_are_reused_only_once() -> None:
    model = toys.model(toys.Convolutional)
    x, lengths, labels = toys.sounds()
    with Target(model, lengths, "waveform") as target:
        expected = target.gradient(x, labels)
        for ask in (
            lambda: Averaged(target, 2).gradient(x, labels),
            lambda: target.at(torch.arange(len(x))).gradient(x, labels),
        ):
            target.decisions_ahead(x)
            torch.testing.assert_close(ask(), expected)
            torch.testing.assert_close(target.gradient(x, labels), expected)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_gradients_that_are_not_finite_are_0_and_leave_the_others_alone(broken: float) -> None:
    model = toys.model(toys.Linear)
    x, lengths, labels = toys.sounds()

    def loss(outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
        weights = torch.ones(len(labels))
        weights[0] = broken
        return outputs.logits.sum(1) * weights

    with Target(model, lengths, "waveform") as target:
        gradient = target.gradient(x, labels, loss)
        expected = target.gradient(x, labels, lambda outputs, _: outputs.logits.sum(1))
    assert not gradient[0].any()
    assert torch.equal(gradient[1:], expected[1:])


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_margin_is_above_0_exactly_where_the_clip_is_misclassified(classes: int) -> None:
    logits = torch.randn(50, classes, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % classes
    values = margin(Outputs(logits, logits), labels)
    assert torch.equal(values > 0, logits.argmax(1) != labels)
    assert 0 < (values > 0).sum() < 50


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_takes_soft_labels(objective: str) -> None:
    model = toys.model(toys.Linear)
    x, lengths, labels = toys.sounds()
    soft = functional.one_hot(labels, toys.CLASSES) * 0.8 + 0.2 / toys.CLASSES
    with Target(model, lengths, "waveform", objective=OBJECTIVES[objective]) as target:
        loss, gradient = target.loss_and_gradient(x, soft)
        assert loss.shape == labels.shape
        assert gradient.abs().sum() > 0
        if objective == "margin":
            assert torch.equal(loss, target.loss(x, labels))


class Mean(toys.Linear):
    """A model whose gradient is one number a clip, expanded to many samples."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return features.flatten(1).mean(1, keepdim=True).expand(-1, toys.SAMPLES)


def test_a_gradient_can_be_written_over() -> None:
    x, lengths, labels = toys.sounds()
    with Target(toys.model(Mean), lengths, "waveform") as target:
        gradient = target.gradient(x, labels)
        expected = gradient.sign()
        assert gradient.is_contiguous()
        assert torch.equal(torch.sign(gradient, out=gradient), expected)
        assert torch.isfinite(IterativeFGSM(epsilon=0.01, steps=2).perturb(target, x, labels, torch.Generator())).all()
