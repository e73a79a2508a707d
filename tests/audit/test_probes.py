"""The probes of trained models: each finds its culprit, and nothing in honest models."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
import toys
from torch import Tensor

from advser.models.base import EmotionModel
from advser.models.smoothed import Smoothed
from advser.stages.probes import answers, gradients, robustness
from advser.stages.probes.batch import Batch
from advser.stages.probes.recognition import effect_of_inaudible_changes
from advser.threat.objectives import Loss, cross_entropy, evasion


class Masked(toys.Linear):
    """Rounds its features so coarsely that the gradient is 0 nearly everywhere: it only seems robust."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return super().embed((features * 20).round() / 20, lengths)


class Pretended(toys.Linear):
    """Computes one function, and has the gradient of its opposite."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return super().embed(features - 2 * features.detach(), lengths)


class Partial(toys.Linear):
    """Has a gradient in one frame of eight."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        passing = torch.arange(features.shape[-1]) % 8 == 0
        return super().embed(torch.where(passing, features, features.detach()), lengths)


class Lookup(toys.Linear):
    """Recognises its files: classifies all other sound as the last class."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        outputs = super().outputs(x, lengths, domain)
        recognised = torch.isin(_sums(x), _sums(batch().waveform))
        last = torch.zeros_like(outputs.logits)
        last[:, -1] = 1000
        return replace(outputs, logits=torch.where(recognised[:, None], outputs.logits, last))


def _sums(x: Tensor) -> Tensor:
    return x.double().abs().sum(-1)


class OnTheGrid(toys.Linear):
    """Has its gradient on the 16-bit grid of clean clips, and a false gradient off the grid, where attacks are."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        off = ((x * 32768).round() / 32768 - x).abs().flatten(1).amax(1) > 1e-7
        return super().outputs(torch.where(off[:, None], 2 * x.detach() - x, x), lengths, domain)


class _MostlyTurned(torch.autograd.Function):
    """The identity, whose gradient has the smaller 85 % of its values with the wrong sign and a tenth of the size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        size = gradient.abs()
        large = size >= size.flatten(1).quantile(0.85, 1).view(-1, *[1] * (size.ndim - 1))
        return torch.where(large, gradient, -0.1 * gradient)


class HalfMasked(toys.Linear):
    """Leads an attack away from the clip in all but the largest values of the gradient."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        return super().outputs(_MostlyTurned.apply(x), lengths, domain)


class Undefined(toys.Linear):
    """Has a gradient of NaN in a quarter of the frames."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        affected = torch.arange(features.shape[-1]) % 4 == 0
        zero = torch.zeros_like(features) * (features.abs() - features.detach().abs()).sqrt()
        return super().embed(torch.where(affected, features + zero, features), lengths)


class Measured(toys.Linear):
    """Recognises clips by their lengths."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        outputs = super().outputs(x, lengths, domain)
        last = torch.zeros_like(outputs.logits)
        last[:, -1] = 1000
        recognised = torch.isin(lengths, batch().lengths)
        return replace(outputs, logits=torch.where(recognised[:, None], outputs.logits, last))


class Random(toys.Linear):
    """Adds noise at every evaluation."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return super().embed(features + torch.randn_like(features), lengths)


class Peeking(toys.Linear):
    """Subtracts the mean embedding of the batch."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        embedding = super().embed(features, lengths)
        return embedding - embedding.mean(0)


class Quiet(Peeking):
    """Subtracts the mean embedding of the batch, and has small logits."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        outputs = super().outputs(x, lengths, domain)
        return replace(outputs, logits=1e-5 * outputs.logits)


class Probabilities(toys.Linear):
    """Returns probabilities as logits."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        outputs = super().outputs(x, lengths, domain)
        return replace(outputs, logits=outputs.logits.softmax(1))


class RandomPeeking(toys.Linear):
    """Adds noise at every evaluation, and subtracts the mean embedding of the batch."""

    randomised = True

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        embedding = super().embed(features + torch.randn_like(features), lengths)
        return embedding - embedding.mean(0)


class Turned(toys.Linear):
    """Has the gradient of the opposite function for the three loudest clips."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        loudness = features.detach().square().flatten(1).mean(1)
        loud = loudness >= loudness.sort().values[-3]
        turned = 2 * features.detach() - features
        return super().embed(torch.where(loud[:, None, None], turned, features), lengths)


class Counting(toys.Linear):
    """Counts its evaluations in an attribute, which no checkpoint stores."""

    evaluations = 0

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        self.evaluations += 1
        return super().embed(features, lengths)


class Hidden(toys.Linear):
    """Updates a running mean of the features in a buffer that no checkpoint stores."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("mean", torch.zeros(()), persistent=False)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        self.mean.lerp_(features.detach().mean(), 0.1)
        return super().embed(features, lengths)


class Learning(toys.Linear):
    """Counts its evaluations in a buffer."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("evaluations", torch.zeros(()))

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        self.get_buffer("evaluations").add_(1)
        return super().embed(features, lengths)


class Scaled(toys.Frames):
    """Frames divided by the standard deviation of the training clips."""

    spread: Tensor
    kept: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spread", torch.ones(()))

    def fit(self, batches: Any) -> None:
        self.spread.copy_(torch.cat([waveform.flatten() for waveform, _ in batches]).std())


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def batch() -> Batch:
    return Batch(*toys.sounds(8))


def _without_gradient(model: EmotionModel, clips: Batch) -> float:
    return gradients.without_gradient(model, clips, cross_entropy)


PROBES: dict[str, tuple[type[EmotionModel], Callable[[EmotionModel, Batch], Any], Callable[[Any], bool]]] = {
    "without_gradient": (Masked, _without_gradient, lambda share: share == 1),
    "derivative_error": (Pretended, gradients.derivative_error, lambda errors: errors.median() > 0.5),
    "derivative_error of some": (Turned, gradients.derivative_error, lambda errors: (errors > 0.5).sum() >= 3),
    "derivative_error of a part": (HalfMasked, gradients.derivative_error, lambda errors: errors.median() > 0.1),
    "advantage_of_scores": (
        Pretended,
        lambda model, clips: robustness.advantage_of_scores(model, clips, clips.waveform, generator()),
        lambda clips: clips >= 3,
    ),
    "unexplained_change": (
        Partial,
        lambda model, clips: gradients.unexplained_change(model, clips, generator()),
        lambda share: share > 0.5,
    ),
    "inaudible": (
        Lookup,
        lambda model, clips: effect_of_inaudible_changes(model, [clips], generator()),
        lambda effects: max(lost - gained for lost, gained in effects.values()) > 2,
    ),
    "derivative_error near the clip": (
        OnTheGrid,
        lambda model, clips: gradients.derivative_error(model, clips.nearby(model, generator())),
        lambda errors: errors.median() > 0.5,
    ),
    "without_gradient anywhere": (Undefined, _without_gradient, lambda share: share == 1),
    "inaudible in length": (
        Measured,
        lambda model, clips: effect_of_inaudible_changes(model, [clips], generator()),
        lambda effects: max(lost - gained for lost, gained in effects.values()) > 2,
    ),
    "company with small logits": (Quiet, answers.batch_dependence, lambda size: size > 1e-3),
    "standing": (
        Masked,
        lambda model, clips: robustness.robust_share(model, clips, clips.waveform, 0.5, 10),
        lambda share: share > 0,
    ),
    "disagreement": (Random, answers.disagreement, lambda size: size > 1e-3),
    "company": (Peeking, answers.batch_dependence, lambda size: size > 1e-3),
    "companions": (Peeking, answers.neighbour_dependence, lambda size: size > 1e-3),
    "companions with random draws": (RandomPeeking, answers.neighbour_dependence, lambda size: size > 1e-3),
    "probabilities": (Probabilities, answers.probabilities, bool),
    "changed": (Learning, answers.changed_state, bool),
    "changed attribute": (Counting, answers.changed_state, bool),
    "changed buffer that is not stored": (Hidden, answers.changed_state, bool),
}


def _rooted(outputs: Any, labels: Tensor) -> Tensor:
    """Add √0, whose gradient is NaN."""
    return cross_entropy(outputs, labels) + (0 * outputs.logits.square().sum(1)).sqrt()


def _flat(outputs: Any, labels: Tensor) -> Tensor:
    return outputs.logits.sum(1) * 0


def _opposite(outputs: Any, labels: Tensor) -> Tensor:
    losses = cross_entropy(outputs, labels)
    return 2 * losses.detach() - losses


def _distance(outputs: Any, labels: Tensor) -> Tensor:
    return (outputs.embedding - outputs.reference).square().sum(1)


@pytest.mark.parametrize(
    ("loss", "undefined", "false"),
    [(_rooted, 1, 0), (_flat, 1, 0), (_opposite, 0, 8), (_distance, 0, 0), (cross_entropy, 0, 0), (evasion, 0, 0)],
)
def test_the_gradient_of_a_loss_for_adaptive_attacks_is_probed(loss: Loss, undefined: float, false: int) -> None:
    model = toys.model(toys.Convolutional).eval()
    clips = batch()
    nearby = clips.nearby(model, generator()).informed(model, loss, clips.waveform)
    assert gradients.without_gradient(model, nearby) == undefined
    assert (gradients.derivative_error(model, nearby) > gradients.FALSE).sum() == false


def _correctly_classified(model: EmotionModel) -> Batch:
    """The clips, with the model's own decisions as labels."""
    clips = batch()
    with torch.no_grad():
        return Batch(clips.waveform, clips.lengths, model(clips.waveform, clips.lengths).argmax(1))


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_finds_its_culprit_and_nothing_in_honest_models(name: str) -> None:
    kind, probe, is_guilty = PROBES[name]
    culprit = toys.model(kind).eval()
    assert is_guilty(probe(culprit, _correctly_classified(culprit)))
    for honest in toys.MODELS:
        model = toys.model(honest).eval()
        assert not is_guilty(probe(model, _correctly_classified(model))), honest


def test_finite_differences_of_a_randomised_model_use_the_same_draws() -> None:
    model = Smoothed(toys.model(toys.Linear).eval(), sigma=0.05, draws=2)
    clips = batch()
    assert gradients.derivative_error(model, clips).median() < 0.1
    assert gradients.unexplained_change(model, clips, generator()) < 0.5


class Faint(toys.Linear):
    """Has a gradient whose effect is lost in rounding."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        outputs = super().outputs(x, lengths, domain)
        steps = torch.arange(outputs.logits.shape[1], device=outputs.logits.device)
        return replace(outputs, logits=1e-13 * outputs.logits + steps)


def test_what_is_lost_in_rounding_is_not_resolved_and_no_false_gradient() -> None:
    model, clips = gradients.in_double(toys.model(Faint).eval(), batch())
    assert clips.waveform.dtype == torch.float64
    assert gradients.derivative_error(model, clips).isnan().all()
    assert math.isnan(gradients.unexplained_change(model, clips, generator()))


def test_statistics_of_other_clips_are_detected() -> None:
    training = [toys.sounds(8, seed=1)[:2]]
    fitted = Scaled()
    fitted.fit(iter(training))
    stored = {name: value.clone() for name, value in fitted.named_buffers()}
    assert answers.foreign_statistics(Scaled(), stored, iter(training)) == 0
    assert answers.foreign_statistics(Scaled(), {"spread": stored["spread"] * 1.1}, iter(training)) > 0.05
