"""Training on noisy copies: what the copy is, and what the model makes of it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

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


def heard(made: EmotionModel, batch: TrainingBatch, defense: NoiseAugmentation) -> dict[str, Any]:
    """What the model is given beside the clean features: the copy, and the domain that it is in."""
    calls: list[tuple[Tensor, Domain]] = []

    class Recording(type(made)):
        def outputs(self, x: Tensor, lengths: Tensor, domain: Domain) -> Outputs:
            calls.append((x, domain))
            return super().outputs(x, lengths, domain)

    listener = copy.deepcopy(made)
    listener.__class__ = Recording
    defense.loss(listener, batch, 0)
    (clean, _), (noisy, domain) = calls
    assert torch.equal(clean, batch.features)
    return {"noisy": noisy, "domain": domain}


@places
def test_the_copy_is_clean_plus_white_noise_of_the_given_size(kind: type[EmotionModel], domain: Domain) -> None:
    made = toys.model(kind)
    batch = toys.training_batch(made, clips=64)
    sigma = toys.EPSILON[domain]
    told = heard(made, batch, NoiseAugmentation(sigma=sigma, domain=domain))
    assert told["domain"] == domain
    noise = (told["noisy"] - batch.inputs(domain))[batch.mask(made, domain).expand_as(told["noisy"])]
    assert noise.std().item() == pytest.approx(sigma, rel=0.03)
    assert abs(noise.mean().item()) < 0.03 * sigma


@places
def test_noise_of_the_size_of_epsilon_has_the_energy_of_fgsm(kind: type[EmotionModel], domain: Domain) -> None:
    made = toys.model(kind)
    batch = toys.training_batch(made, clips=64)
    epsilon = toys.EPSILON[domain]
    attack = AttackReference(name="fgsm", params={"epsilon": epsilon}).build()
    told = heard(made, batch, NoiseAugmentation(sigma=epsilon, domain=domain))
    x = batch.inputs(domain)
    noise, change = (other - x for other in (told["noisy"], craft(made, batch, attack, domain)))
    # FGSM leaves alone what the model does not look at.
    noise = noise * (change != 0)
    assert noise.square().sum().item() == pytest.approx(change.square().sum().item(), rel=0.05)


def test_noise_in_sound_stays_out_of_the_padding_and_within_full_scale() -> None:
    made = toys.model(toys.Waveform)
    batch = toys.training_batch(made)
    noisy = heard(made, batch, NoiseAugmentation(sigma=2.0, domain="waveform"))["noisy"]
    padding = torch.arange(toys.SAMPLES) >= batch.lengths[:, None]
    assert padding.any()
    assert not noisy[padding].any()
    assert noisy.abs().max() == 1


@places
def test_the_loss_is_the_mean_over_clips_and_copies(kind: type[EmotionModel], domain: Domain) -> None:
    made = toys.model(kind)
    batch = toys.training_batch(made)
    defense = NoiseAugmentation(sigma=0.1, domain=domain)
    noisy = heard(made, batch, defense)["noisy"]
    again = replace(batch, generator=torch.Generator().manual_seed(0))
    twin = copy.deepcopy(made)
    torch.manual_seed(1)
    found = defense.loss(made, again, 0)
    torch.manual_seed(1)
    outputs = [twin.outputs(*given) for given in ((batch.features, batch.lengths, "spectrogram"),
                                                  (noisy, batch.lengths, domain))]  # fmt: skip
    logits = torch.cat([one.logits for one in outputs])
    torch.testing.assert_close(found, functional.cross_entropy(logits, batch.labels.repeat(2)))


def test_noise_is_drawn_anew_at_each_step_from_the_generator_of_the_batch_alone() -> None:
    made = toys.model(toys.Linear)
    batch = toys.training_batch(made)
    state = torch.get_rng_state()
    defense = NoiseAugmentation(sigma=0.1)
    first, second = (heard(made, batch, defense)["noisy"] for _ in range(2))
    batch.generator.manual_seed(0)
    assert torch.equal(heard(made, batch, defense)["noisy"], first)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_noise_it_is_plain_training() -> None:
    made = toys.model(toys.Linear)
    batch = toys.training_batch(made)
    torch.testing.assert_close(NoiseAugmentation(sigma=0.0).loss(made, batch, 0), Undefended().loss(made, batch, 0))


def test_a_model_trained_on_noisy_copies_withstands_noise_better() -> None:
    loss = {}
    for name, defense in {"none": Undefended(), "noise": NoiseAugmentation(sigma=2.0)}.items():
        made = toys.model(toys.Convolutional)
        batch = toys.training_batch(made, clips=24)
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(made.parameters(), 0.01)
        for step in range(60):
            optimizer.zero_grad()
            defense.loss(made, batch, step).backward()
            optimizer.step()
        noise = torch.randn(20, *batch.features.shape, generator=torch.Generator().manual_seed(1)) * 2
        made.eval()
        logits = [made.outputs(batch.features + one, batch.lengths, "spectrogram").logits for one in noise]
        loss[name] = functional.cross_entropy(torch.cat(logits), batch.labels.repeat(20)).item()
    assert loss["noise"] < 0.7 * loss["none"]


def test_it_needs_no_attack_and_refuses_a_negative_size() -> None:
    assert inner_attacks(NoiseAugmentation(sigma=0.1)) == ()
    with pytest.raises(InputError, match=r"^defense 'x': sigma: .*greater than or equal to 0 \(found -0.1\)$"):
        build(NoiseAugmentation, {"sigma": -0.1}, "defense 'x'")
