"""Training on noisy copies: the noise, the loss, and the robustness to noise."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import toys
from torch import Tensor
from torch.nn import functional

from advser.attacks.reference import AttackReference
from advser.defenses.augmentation import NoiseAugmentation
from advser.defenses.base import TrainingBatch, craft
from advser.defenses.undefended import Undefended
from advser.errors import InputError
from advser.models.base import EmotionModel, Outputs
from advser.models.terms import Domain
from advser.plan.jobs import inner_attacks
from advser.plugins.parameters import build

places = pytest.mark.parametrize(("kind", "domain"), toys.PLACES)


def noisy_copy(model: EmotionModel, batch: TrainingBatch, defense: NoiseAugmentation) -> tuple[Tensor, Domain]:
    """Return the noisy input of the model and its domain."""
    calls: list[tuple[Tensor, Domain]] = []

    class Recording(type(model)):
        def outputs(self, x: Tensor, lengths: Tensor, domain: Domain) -> Outputs:
            calls.append((x, domain))
            return super().outputs(x, lengths, domain)

    recording = copy.deepcopy(model)
    recording.__class__ = Recording
    defense.loss(recording, batch, 0)
    (clean, _), (noisy, domain) = calls
    assert torch.equal(clean, batch.features)
    return noisy, domain


@places
def test_the_copy_is_clean_plus_white_noise_of_the_given_size(kind: type[EmotionModel], domain: Domain) -> None:
    model = toys.model(kind)
    batch = toys.training_batch(model, clips=64)
    sigma = toys.EPSILON[domain]
    noisy, noisy_domain = noisy_copy(model, batch, NoiseAugmentation(sigma=sigma, domain=domain))
    assert noisy_domain == domain
    noise = (noisy - batch.inputs(domain))[batch.mask(model, domain).expand_as(noisy)]
    assert noise.std().item() == pytest.approx(sigma, rel=0.03)
    assert abs(noise.mean().item()) < 0.03 * sigma


@places
def test_noise_of_the_size_of_epsilon_has_the_energy_of_fgsm(kind: type[EmotionModel], domain: Domain) -> None:
    model = toys.model(kind)
    batch = toys.training_batch(model, clips=64)
    epsilon = toys.EPSILON[domain]
    attack = AttackReference(name="fgsm", params={"epsilon": epsilon}).build()
    noisy, _ = noisy_copy(model, batch, NoiseAugmentation(sigma=epsilon, domain=domain))
    x = batch.inputs(domain)
    noise, change = noisy - x, craft(model, batch, attack, domain) - x
    # FGSM does not change inputs that the model ignores.
    noise = noise * (change != 0)
    assert noise.square().sum().item() == pytest.approx(change.square().sum().item(), rel=0.05)


def test_noisy_sound_is_zero_in_the_padding_and_within_full_scale() -> None:
    model = toys.model(toys.Waveform)
    batch = toys.training_batch(model)
    noisy, _ = noisy_copy(model, batch, NoiseAugmentation(sigma=2.0, domain="waveform"))
    padding = torch.arange(toys.SAMPLES) >= batch.lengths[:, None]
    assert padding.any()
    assert not noisy[padding].any()
    assert noisy.abs().max() == 1


@places
def test_the_loss_is_the_mean_over_clips_and_copies(kind: type[EmotionModel], domain: Domain) -> None:
    model = toys.model(kind)
    batch = toys.training_batch(model)
    defense = NoiseAugmentation(sigma=0.1, domain=domain)
    noisy, _ = noisy_copy(model, batch, defense)
    again = replace(batch, generator=torch.Generator().manual_seed(0))
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    loss = defense.loss(model, again, 0)
    torch.manual_seed(1)
    clean_outputs = twin.outputs(batch.features, batch.lengths, "spectrogram")
    noisy_outputs = twin.outputs(noisy, batch.lengths, domain)
    logits = torch.cat([clean_outputs.logits, noisy_outputs.logits])
    torch.testing.assert_close(loss, functional.cross_entropy(logits, batch.labels.repeat(2)))


def test_each_step_draws_new_noise_from_the_generator_of_the_batch_alone() -> None:
    model = toys.model(toys.Linear)
    batch = toys.training_batch(model)
    state = torch.get_rng_state()
    defense = NoiseAugmentation(sigma=0.1)
    first, second = (noisy_copy(model, batch, defense)[0] for _ in range(2))
    batch.generator.manual_seed(0)
    assert torch.equal(noisy_copy(model, batch, defense)[0], first)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_noise_it_is_undefended_training() -> None:
    model = toys.model(toys.Linear)
    batch = toys.training_batch(model)
    torch.testing.assert_close(NoiseAugmentation(sigma=0.0).loss(model, batch, 0), Undefended().loss(model, batch, 0))


def test_a_model_trained_on_noisy_copies_is_more_robust_to_noise() -> None:
    loss = {}
    for name, defense in {"none": Undefended(), "noise": NoiseAugmentation(sigma=2.0)}.items():
        model = toys.model(toys.Convolutional)
        batch = toys.training_batch(model, clips=24)
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for step in range(60):
            optimizer.zero_grad()
            defense.loss(model, batch, step).backward()
            optimizer.step()
        draws = torch.randn(20, *batch.features.shape, generator=torch.Generator().manual_seed(1)) * 2
        model.eval()
        logits = [model.outputs(batch.features + noise, batch.lengths, "spectrogram").logits for noise in draws]
        loss[name] = functional.cross_entropy(torch.cat(logits), batch.labels.repeat(20)).item()
    assert loss["noise"] < 0.7 * loss["none"]


def test_it_needs_no_attack_and_rejects_a_negative_size() -> None:
    assert inner_attacks(NoiseAugmentation(sigma=0.1)) == ()
    with pytest.raises(InputError, match=r"^defense 'x': sigma: got -0.1, expected at least 0$"):
        build(NoiseAugmentation, {"sigma": -0.1}, "defense 'x'")
