"""Defenses that process the sound before the front end: alignment, independence of the batch, and gradients."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import toys
from torch import Tensor

from advser.attacks.chain_rule import ChainRule
from advser.attacks.gradient_sign import FGSM
from advser.audio.pcm import SAMPLE_RATE
from advser.defenses.coding import Coding
from advser.defenses.processing import LowPass, Processing, Quantisation, Resampling
from advser.defenses.undefended import Undefended
from advser.errors import InputError
from advser.models.base import EmotionModel
from advser.models.frontends import DecibelMel
from advser.models.tiny import Tiny
from advser.plugins.parameters import build
from advser.threat.target import Target

ALL: list[Processing] = [
    Resampling(rate=6000),
    LowPass(cutoff=3000.0),
    Quantisation(bits=6),
    *(Coding(codec=codec, bitrate=rate) for codec in ("mp3", "opus") for rate in (16, 32, 64)),
]
LINEAR = ALL[:2]
STRAIGHT_THROUGH = ALL[2:]


def named(defense: Processing) -> str:
    return "-".join(map(str, [type(defense).__name__, *defense.model_dump().values()]))


every = pytest.mark.parametrize("defense", ALL, ids=named)


def speech_like(clips: int = 3, samples: int = 12_000) -> tuple[Tensor, Tensor]:
    """Return bursts of low-pass noise (B, T) and clips' lengths (B,), some shorter than T."""
    generator = np.random.default_rng(0)
    sound = np.stack([np.convolve(row, np.hanning(15), "same") for row in generator.normal(0, 0.03, (clips, samples))])
    sound *= 0.2 + np.abs(np.sin(np.arange(samples) / 900))
    lengths = torch.tensor([samples, samples - 3_001, samples // 2][:clips])
    waveform = torch.from_numpy(sound.astype(np.float32))
    return waveform * (torch.arange(samples) < lengths[:, None]), lengths


@every
def test_processed_sound_is_aligned_with_its_input(defense: Processing) -> None:
    waveform, lengths = speech_like()
    processed = defense.process(waveform, lengths)
    assert processed.shape == waveform.shape
    assert not torch.equal(processed, waveform)
    for before, after, length in zip(waveform.numpy(), processed.numpy(), lengths.tolist(), strict=True):
        correlation = np.correlate(after[:length], before[300 : length - 300], "valid")
        assert correlation.argmax() == 300
        assert np.corrcoef(after[:length], before[:length])[0, 1] > 0.9


@every
def test_the_processing_of_a_clip_does_not_depend_on_the_batch(defense: Processing) -> None:
    waveform, lengths = speech_like()
    model = defense.wrap(Tiny(3)).eval()
    together = model.inputs(waveform, lengths, "spectrogram")
    for row, length in enumerate(lengths.tolist()):
        alone = model.inputs(waveform[[row], :length], lengths[[row]], "spectrogram")[0]
        torch.testing.assert_close(alone, together[row], rtol=1e-3, atol=2e-3)


@every
def test_the_wrapped_front_end_has_the_interface_of_its_core(defense: Processing) -> None:
    waveform, lengths = speech_like()
    for frontend in (Tiny(3).frontend, DecibelMel()):
        model = Tiny(3)
        model.frontend = frontend
        model.frontend.fit([(waveform, lengths)])
        trained = copy.deepcopy(model).eval()
        wrapped = defense.wrap(model).eval()
        for name in ("resynthesises", "varies_in_training", "kept"):
            assert getattr(wrapped.frontend, name) == getattr(frontend, name)
        assert wrapped.frontend.core is frontend
        for name, value in trained.frontend.state_dict().items():
            assert torch.equal(frontend.state_dict()[name], value), f"{name} differs from that of training"
        processed = defense.process(waveform, lengths) * (torch.arange(waveform.shape[1]) < lengths[:, None])
        features = wrapped.inputs(waveform, lengths, "spectrogram")
        torch.testing.assert_close(features, trained.inputs(processed, lengths, "spectrogram"))
        assert torch.equal(wrapped.frontend.mask(waveform, lengths), trained.frontend.mask(processed, lengths))
        assert torch.equal(wrapped.frontend.assemble(wrapped.frontend.analyse(waveform, lengths)), features)
        torch.testing.assert_close(
            wrapped.frontend.resynthesise(waveform, lengths, features), waveform, rtol=0, atol=1e-6
        )
        louder = wrapped.frontend.resynthesise(waveform, lengths, features + 0.3)
        assert (louder.square().sum(1) > waveform.square().sum(1)).all()


def gradients(model: EmotionModel, x: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
    with Target(model, lengths, "waveform") as target:
        return target.gradient(x, labels)


@pytest.mark.parametrize("defense", STRAIGHT_THROUGH, ids=named)
def test_processing_without_a_gradient_passes_it_straight_through(defense: Processing) -> None:
    plain = toys.model(toys.Convolutional).eval()
    x, lengths, labels = toys.sounds()
    wrapped = defense.wrap(copy.deepcopy(plain))
    inside = torch.arange(x.shape[1]) < lengths[:, None]
    processed = defense.process(x, lengths) * inside
    expected = gradients(plain, processed, lengths, labels) * inside
    assert expected.any()
    torch.testing.assert_close(gradients(wrapped, x, lengths, labels), expected)


@pytest.mark.parametrize("defense", LINEAR, ids=named)
def test_linear_processing_has_its_exact_gradient(defense: Processing) -> None:
    wrapped = defense.wrap(toys.model(toys.Convolutional)).double()
    x, lengths, labels = toys.sounds(3)
    x = x.double()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    with Target(wrapped, lengths, "waveform") as target:
        slope = (target.gradient(x, labels) * direction).sum(1)
        above, below = target.loss(x + 1e-6 * direction, labels), target.loss(x - 1e-6 * direction, labels)
    torch.testing.assert_close(slope, (above - below) / 2e-6, rtol=1e-4, atol=1e-6)


@every
def test_an_attack_works_through_the_processing(defense: Processing) -> None:
    model = defense.wrap(toys.model(toys.Linear))
    x, lengths, labels = toys.sounds(8)
    with Target(model, lengths, "waveform") as target:
        perturbed = FGSM(epsilon=0.05).perturb(target, x, labels, torch.Generator())
        assert (target.loss(perturbed, labels) > target.loss(x, labels)).float().mean() > 0.8


def test_an_attack_that_needs_the_mel_bands_gets_them_from_the_core() -> None:
    waveform, lengths = speech_like(2)
    model = Quantisation().wrap(Tiny(3))
    with Target(model, lengths, "waveform") as target:
        attack = ChainRule(variant="published", steps=1)
        perturbed = attack.perturb(target, waveform, torch.tensor([0, 1]), torch.Generator())
    assert not torch.equal(perturbed, waveform)


@pytest.mark.parametrize("defense", LINEAR, ids=named)
def test_high_tones_are_removed_and_low_tones_pass(defense: Processing) -> None:
    times = torch.arange(8000) / SAMPLE_RATE
    tones = torch.stack([(2 * torch.pi * frequency * times).sin() for frequency in (1000, 5000)])
    processed = defense.process(tones, torch.tensor([8000, 8000]))[:, 500:-500]
    power = processed.square().mean(1) / 0.5
    assert power[0].item() == pytest.approx(1, abs=0.02)
    assert power[1].item() < 1e-4


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_quantised_sound_has_the_levels_of_its_bits(bits: int) -> None:
    x, lengths, _ = toys.sounds()
    x[0, :2] = torch.tensor([1.0, -1.0])
    processed = Quantisation(bits=bits).process(x, lengths)
    levels = processed * 2 ** (bits - 1)
    assert torch.equal(levels, levels.round())
    assert levels.min() >= -(2 ** (bits - 1))
    assert levels.max() <= 2 ** (bits - 1) - 1
    assert (processed - x).abs().max() <= 2.0 ** (1 - bits)
    if bits == 16:
        assert torch.equal(processed[1:], x[1:])


@pytest.mark.parametrize("codec", ["mp3", "opus"])
def test_a_higher_bit_rate_has_a_smaller_error(codec: Any) -> None:
    waveform, lengths = speech_like(1)
    errors = [
        (Coding(codec=codec, bitrate=rate).process(waveform, lengths) - waveform).square().sum()
        for rate in (16, 32, 96)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_coded_sound_at_full_scale_stays_in_range() -> None:
    waveform = torch.ones(1, 4000) * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0)).sign()
    assert Coding(bitrate=16).process(waveform, torch.tensor([4000])).abs().max() <= 1


def test_a_codec_without_support_in_libsndfile_is_rejected_in_a_single_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfile, "available_subtypes", lambda container: {"OGG": {"OPUS": ""}}.get(container, {}))
    with pytest.raises(
        InputError, match=r"codec: got 'mp3', expected with the installed libsndfile \(.*\): opus"
    ) as refusal:
        build(Coding, {}, "defense 'coding'")
    assert "\n" not in str(refusal.value)
    assert build(Coding, {"codec": "opus"}, "defense 'coding'").codec == "opus"


@every
def test_the_training_is_undefended(defense: Processing) -> None:
    model = toys.model(toys.Linear)
    batch = toys.training_batch(model)
    assert torch.equal(defense.loss(model, batch, 0), Undefended().loss(model, batch, 0))
