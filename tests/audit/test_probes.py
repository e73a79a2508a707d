"""The probes of trained models: each finds its culprit, and nothing in honest models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
import toys
from torch import Tensor

from advser.models.base import EmotionModel
from advser.models.smoothed import Smoothed
from advser.stages import gradient_probes as probes
from advser.stages.gradient_probes import Batch
from advser.threat.objectives import Loss, cross_entropy, evasion


class Masked(toys.Linear):
    """Rounds its features so coarsely that the gradient is 0 nearly everywhere: it only seems robust."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return super().embed((features * 20).round() / 20, lengths)


class Pretended(toys.Linear):
    """Has the gradient of another function than the one that it computes: the opposite one."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return super().embed(features - 2 * features.detach(), lengths)


class Partial(toys.Linear):
    """Lets the gradient through one frame in eight."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        shown = torch.arange(features.shape[-1]) % 8 == 0
        return super().embed(torch.where(shown, features, features.detach()), lengths)


class Lookup(toys.Linear):
    """Knows the files that it was shown: of any other sound it says the last class."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        outputs = super().outputs(x, lengths, domain)
        known = torch.isin(_sums(x), _sums(batch().waveform))
        last = torch.zeros_like(outputs.logits)
        last[:, -1] = 1000
        return replace(outputs, logits=torch.where(known[:, None], outputs.logits, last))


def _sums(x: Tensor) -> Tensor:
    return x.double().abs().sum(-1)


class OnTheGrid(toys.Linear):
    """Has its own gradient on the 16-bit grid, where clips are, and another one beside it, where attacks are."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        off = ((x * 32768).round() / 32768 - x).abs().flatten(1).amax(1) > 1e-7
        return super().outputs(torch.where(off[:, None], 2 * x.detach() - x, x), lengths, domain)


class Lost(toys.Linear):
    """Has no number for a gradient in a quarter of its frames."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        hidden = torch.arange(features.shape[-1]) % 4 == 0
        nothing = torch.zeros_like(features) * (features.abs() - features.detach().abs()).sqrt()
        return super().embed(torch.where(hidden, features + nothing, features), lengths)


class Measured(toys.Linear):
    """Knows clips by their lengths."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        outputs = super().outputs(x, lengths, domain)
        last = torch.zeros_like(outputs.logits)
        last[:, -1] = 1000
        known = torch.isin(lengths, batch().lengths)
        return replace(outputs, logits=torch.where(known[:, None], outputs.logits, last))


class Random(toys.Linear):
    """Draws noise whenever it is asked."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return super().embed(features + torch.randn_like(features), lengths)


class Peeking(toys.Linear):
    """Compares a clip with the others in the batch."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        embedding = super().embed(features, lengths)
        return embedding - embedding.mean(0)


class Quiet(Peeking):
    """Compares a clip with the others in the batch, in a low voice."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        outputs = super().outputs(x, lengths, domain)
        return replace(outputs, logits=1e-5 * outputs.logits)


class Probabilities(toys.Linear):
    """Calls probabilities logits."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        outputs = super().outputs(x, lengths, domain)
        return replace(outputs, logits=outputs.logits.softmax(1))


class Huddled(toys.Linear):
    """Draws noise whenever it is asked, and compares a clip with the others in the batch."""

    randomised = True

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        embedding = super().embed(features + torch.randn_like(features), lengths)
        return embedding - embedding.mean(0)


class Turned(toys.Linear):
    """Has the gradient of the opposite function for loud clips, which are some of them."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        loudness = features.detach().square().flatten(1).mean(1)
        loud = loudness >= loudness.sort().values[-3]
        turned = 2 * features.detach() - features
        return super().embed(torch.where(loud[:, None, None], turned, features), lengths)


class Counting(toys.Linear):
    """Keeps in mind how much it has heard, where no checkpoint sees it."""

    heard = 0

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        self.heard += 1
        return super().embed(features, lengths)


class Hidden(toys.Linear):
    """Keeps a mean of what it has heard in a buffer that no checkpoint has."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("mean", torch.zeros(()), persistent=False)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        self.mean.lerp_(features.detach().mean(), 0.1)
        return super().embed(features, lengths)


class Learning(toys.Linear):
    """Counts what it hears, in evaluation too."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("heard", torch.zeros(()))

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        self.get_buffer("heard").add_(1)
        return super().embed(features, lengths)


class Scaled(toys.Frames):
    """Frames divided by a deviation that is taken from the training clips."""

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
    return probes.without_gradient(model, clips, cross_entropy)


PROBES: dict[str, tuple[type[EmotionModel], Callable[[EmotionModel, Batch], Any], Callable[[Any], bool]]] = {
    "without_gradient": (Masked, _without_gradient, lambda share: share == 1),
    "derivative_error": (Pretended, probes.derivative_error, lambda errors: errors.median() > 0.5),
    "derivative_error of some": (Turned, probes.derivative_error, lambda errors: (errors > 0.5).sum() >= 3),
    "unexplained_change": (
        Partial,
        lambda model, clips: probes.unexplained_change(model, clips, generator()),
        lambda share: share > 0.5,
    ),
    "changed_unheard": (
        Lookup,
        lambda model, clips: probes.changed_unheard(model, clips, generator()),
        lambda share: share > 0.25,
    ),
    "derivative_error beside the clip": (
        OnTheGrid,
        lambda model, clips: probes.derivative_error(model, clips.beside(model, generator())),
        lambda errors: errors.median() > 0.5,
    ),
    "without_gradient anywhere": (Lost, _without_gradient, lambda share: share == 1),
    "changed_unheard in length": (
        Measured,
        lambda model, clips: probes.changed_unheard(model, clips, generator()),
        lambda share: share > 0.25,
    ),
    "company in a low voice": (Quiet, probes.company, lambda size: size > 1e-3),
    "standing": (
        Masked,
        lambda model, clips: probes.standing(model, clips, clips.waveform, 0.5, 10),
        lambda share: share > 0,
    ),
    "disagreement": (Random, probes.disagreement, lambda size: size > 1e-3),
    "company": (Peeking, probes.company, lambda size: size > 1e-3),
    "companions": (Peeking, probes.companions, lambda size: size > 1e-3),
    "companions of one that draws": (Huddled, probes.companions, lambda size: size > 1e-3),
    "probabilities": (Probabilities, probes.probabilities, bool),
    "changed": (Learning, probes.changed_state, bool),
    "changed attribute": (Counting, probes.changed_state, bool),
    "changed out of sight": (Hidden, probes.changed_state, bool),
}


def _rooted(outputs: Any, labels: Tensor) -> Tensor:
    """Has no number for a gradient, whatever it is asked: the root of nothing."""
    return cross_entropy(outputs, labels) + (0 * outputs.logits.square().sum(1)).sqrt()


def _flat(outputs: Any, labels: Tensor) -> Tensor:
    return outputs.logits.sum(1) * 0


def _opposite(outputs: Any, labels: Tensor) -> Tensor:
    losses = cross_entropy(outputs, labels)
    return 2 * losses.detach() - losses


def _distance(outputs: Any, labels: Tensor) -> Tensor:
    return (outputs.embedding - outputs.reference).square().sum(1)


@pytest.mark.parametrize(
    ("loss", "lost", "false"),
    [(_rooted, 1, 0), (_flat, 1, 0), (_opposite, 0, 8), (_distance, 0, 0), (cross_entropy, 0, 0), (evasion, 0, 0)],
)
def test_a_loss_for_attackers_is_asked_for_its_gradient(loss: Loss, lost: float, false: int) -> None:
    made = toys.model(toys.Convolutional).eval()
    clips = batch()
    knowing = clips.beside(made, generator()).knowing(made, loss, clips.waveform)
    assert probes.without_gradient(made, knowing) == lost
    assert (probes.derivative_error(made, knowing) > probes.FALSE).sum() == false


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_finds_its_culprit_out_and_nothing_in_honest_models(name: str) -> None:
    culprit, ask, guilty = PROBES[name]
    made = toys.model(culprit).eval()
    clips = batch()
    with torch.no_grad():
        right = Batch(clips.waveform, clips.lengths, made(clips.waveform, clips.lengths).argmax(1))
    assert guilty(ask(made, right))
    for honest in toys.MODELS:
        made = toys.model(honest).eval()
        with torch.no_grad():
            right = Batch(clips.waveform, clips.lengths, made(clips.waveform, clips.lengths).argmax(1))
        assert not guilty(ask(made, right)), honest


def test_the_gradient_of_a_model_that_draws_is_held_against_the_same_draws() -> None:
    made = Smoothed(toys.model(toys.Linear).eval(), sigma=0.05, draws=2)
    clips = batch()
    assert probes.derivative_error(made, clips).median() < 0.1
    assert probes.unexplained_change(made, clips, generator()) < 0.5


def test_statistics_of_other_clips_are_found_out() -> None:
    training = [toys.sounds(8, seed=1)[:2]]
    fitted = Scaled()
    fitted.fit(iter(training))
    stored = {name: value.clone() for name, value in fitted.named_buffers()}
    assert probes.foreign_statistics(Scaled(), stored, iter(training)) == 0
    assert probes.foreign_statistics(Scaled(), {"spread": stored["spread"] * 1.1}, iter(training)) > 0.05
