"""The square attack: its limits, strength and access."""

from __future__ import annotations

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from advser.attacks.controls import Noise
from advser.attacks.square import Square
from advser.audio.clips import sound_mask
from advser.errors import AccessError
from advser.models.base import EmotionModel
from advser.models.terms import Domain
from advser.threat.objectives import margin
from advser.threat.target import Target


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=25)
@given(
    place=st.sampled_from(toys.PLACES),
    classes=st.integers(2, 3),
    queries=st.integers(1, 30),
    share=st.floats(1e-3, 1),
    epsilon=st.floats(0, 0.2),
    seed=st.integers(0, 5),
)
def test_square_respects_queries_budget_and_range_and_never_lowers_the_loss(
    place: tuple[type[EmotionModel], Domain], classes: int, queries: int, share: float, epsilon: float, seed: int
) -> None:
    kind, domain = place
    model = toys.model(kind, classes=classes)
    waveform, lengths, labels = toys.sounds(seed=seed)
    labels = labels % classes
    x = model.inputs(waveform, lengths, domain).detach()
    mask = sound_mask(lengths * x.shape[-1] // toys.SAMPLES, x.shape[-1])
    mask = mask if domain == "waveform" else mask[:, None]
    with Target(model, lengths, domain, Square.access, mask=mask) as target:
        perturbed = Square(epsilon=epsilon, queries=queries, share=share).perturb(target, x, labels, generator(seed))
        used = target.forwards.clone()
        clean, attacked = target.loss(x, labels, margin), target.loss(perturbed, labels, margin)
    assert (used <= queries).all()
    assert ((used == queries) | (attacked > 0)).all(), "the search of a robust clip ended early"
    assert (attacked >= clean - 1e-5).all()
    assert ((perturbed - x).abs() <= epsilon + 1e-5).all()
    assert torch.equal(torch.where(mask, x, perturbed), x), "the attack changed the padding"
    assert torch.equal(perturbed[clean > 0], x[clean > 0])
    assert (used[clean > 0] == 1).all()
    if domain == "waveform":
        assert perturbed.abs().max() <= 1


def test_square_uses_the_most_probable_class_of_soft_labels() -> None:
    model = toys.model(toys.Convolutional)
    x, lengths, labels = toys.sounds()
    soft = nn.functional.one_hot(labels, toys.CLASSES) * 0.4 + 0.2
    with Target(model, lengths, "waveform", "scores") as target:
        attack = Square(epsilon=0.01, queries=10)
        with_labels, with_soft_labels = (attack.perturb(target, x, y, generator()) for y in (labels, soft))
    assert torch.equal(with_labels, with_soft_labels)
    assert not torch.equal(with_labels, x)


def decided_labels(model: EmotionModel, x: Tensor, lengths: Tensor, domain: Domain) -> Tensor:
    """Return the model's decisions on clean input, as labels that make every clip correct."""
    with torch.no_grad():
        return model.eval().outputs(x, lengths, domain).logits.argmax(1)


@pytest.mark.parametrize("domain", ["waveform", "spectrogram"])
def test_square_beats_noise_of_the_same_budget(domain: Domain) -> None:
    model = toys.model(toys.Convolutional)
    waveform, lengths, _ = toys.sounds(24)
    x = model.eval().inputs(waveform, lengths, domain).detach()
    labels = decided_labels(model, x, lengths, domain)
    epsilon = toys.EPSILON[domain]
    with Target(model, lengths, domain, "scores") as target:
        clean = target.loss(x, labels, margin)
        rises = [
            (target.loss(attack.perturb(target, x, labels, generator()), labels, margin) - clean).mean()
            for attack in (Noise(epsilon=epsilon), Square(epsilon=epsilon, queries=60))
        ]
    assert rises[1] > 2 * abs(rises[0])
    assert rises[1] > 0


@pytest.mark.parametrize("domain", ["waveform", "spectrogram"])
def test_square_nearly_reaches_the_optimum_of_a_linear_model(domain: Domain) -> None:
    model = toys.model(toys.Linear, classes=2)
    waveform, lengths, _ = toys.sounds(3)
    x = model.inputs(waveform.clamp(-0.5, 0.5), lengths, domain)
    shape = (32, 32)
    # Blocks of equal weights, as large as a square can be, and a bias so large that the search never ends early.
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat_interleave(16, 0).repeat_interleave(16, 1)
    if domain == "waveform":
        signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).repeat_interleave(8).expand(shape)
    with torch.no_grad():
        model.head.weight.copy_(torch.stack([0 * signs, signs]).flatten(1))
        model.head.bias.copy_(torch.tensor([1e3, 0.0]))
    labels = torch.zeros(len(x), dtype=torch.long)
    epsilon = 0.1
    with Target(model, lengths, domain, "scores") as target:
        perturbed = Square(epsilon=epsilon, queries=1200).perturb(target, x, labels, generator())
        gained = target.loss(perturbed, labels, margin) - target.loss(x, labels, margin)
        assert (target.forwards == 1202).all()
    assert (gained > 0.9 * epsilon * signs.numel()).all()
    assert (gained < 1.01 * epsilon * signs.numel()).all()


def test_square_has_access_to_scores_alone() -> None:
    model = toys.model(toys.Linear)
    x, lengths, labels = toys.sounds()
    with (
        Target(model, lengths, "waveform", Square.access) as target,
        pytest.raises(AccessError, match="gradient: access is 'scores', expected white-box"),
    ):
        target.gradient(x, labels)
