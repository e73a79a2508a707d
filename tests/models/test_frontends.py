"""Features of the mel front ends: reference implementations, independence of the batch, statistics and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mel_front_ends import Make, collate, every_front_end, fitted, sawtooth, speech_clips
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from advser.audio.torchaudio import functional
from advser.errors import InputError
from advser.models.frontends import DecibelMel, LogMel
from advser.models.mel import MelFrontEnd


@pytest.fixture
def clips() -> list[Tensor]:
    return speech_clips()


@pytest.fixture
def long(clips: list[Tensor]) -> Tensor:
    """Speech of about 5 s."""
    return torch.cat(clips)


# Independent reference implementations, in numpy and float64.


def slaney_bank(rate: float, n_fft: int, bands: int, low: float, high: float) -> NDArray[np.float64]:
    def mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)

    def hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))

    edges = hertz(np.linspace(mel(low), mel(high), bands + 2))
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft
    bank = np.zeros((bands, len(bins)))
    for band in range(bands):
        left, centre, right = edges[band : band + 3]
        rise, fall = (bins - left) / (centre - left), (right - bins) / (right - centre)
        bank[band] = np.maximum(0, np.minimum(rise, fall)) * 2 / (right - left)
    return bank


def spectrum(samples: NDArray[np.float64], window: NDArray[np.float64], hop: int) -> NDArray[np.complex128]:
    size = len(window)
    padded = np.pad(samples, size // 2)
    frames = [padded[start : start + size] * window for start in range(0, len(padded) - size + 1, hop)]
    return np.fft.rfft(frames).T


def log_mel(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(512) / 512)
    bank = slaney_bank(16000, 512, 64, 20, 8000)
    return np.log(bank @ np.abs(spectrum(samples, window, 256)) + 1e-8)


def trimmed(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the samples without ends of 60 dB below the loudest frame (2048, every 512, centred), as librosa."""
    padded = np.pad(samples, 1024)
    rms = [np.sqrt(np.mean(padded[s : s + 2048] ** 2)) for s in range(0, len(padded) - 2047, 512)]
    level = 20 * np.log10(np.maximum(rms, 1e-5))
    loud = np.flatnonzero(level - level.max() > -60)
    return samples[512 * loud[0] : 512 * (loud[-1] + 1)]


def decibel_mel(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    resampled = functional.resample(torch.from_numpy(samples), 16000, 22050).numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(551) / 551)
    power = slaney_bank(22050, 551, 40, 0, 11025) @ np.abs(spectrum(trimmed(resampled), window, 220)) ** 2
    level = 10 * np.log10(np.maximum(power, 1e-10))
    return np.maximum(level - level.max(), -80)


LEVELS = {LogMel: log_mel, DecibelMel: decibel_mel}


def level(frontend: MelFrontEnd, clip: Tensor) -> NDArray[np.float64]:
    return LEVELS[type(frontend)](clip.double().numpy())  # type: ignore[index]


def test_log_mel_agrees_with_the_reference(clips: list[Tensor]) -> None:
    frontend = LogMel(40).eval()
    expected = level(frontend, clips[0])[:, :40]
    np.testing.assert_allclose(frontend(*collate(clips))[0], expected, atol=2e-3)


def test_decibel_mel_agrees_with_the_reference(clips: list[Tensor]) -> None:
    loudest = clips[0].unfold(0, 2048, 512).square().mean(1).amax().sqrt()
    noise = loudest * torch.randn(8000, generator=torch.Generator().manual_seed(2))
    # The noise before the speech is just above the level of silence, the noise after it just below.
    clip = torch.cat([10 ** (-56 / 20) * noise[:3000], clips[0], 10 ** (-64 / 20) * noise[3000:]])
    frontend = DecibelMel().eval()
    expected = level(frontend, clip)
    assert expected.shape[1] < 200, "the clip must be shorter than the input: a crop could hide an error"
    assert expected.shape[1] < 1 + len(clip) * 22050 // 16000 // 220 - 15, "the clip must end with silence"
    features = frontend(*collate([clip, *clips[1:]]))[0]
    np.testing.assert_allclose(features[:, : expected.shape[1]], expected, atol=0.02)
    assert not features[:, expected.shape[1] :].any()


# Padding of short clips and crops of long clips.


def test_log_mel_repeats_short_clips_frame_by_frame(clips: list[Tensor]) -> None:
    frontend = LogMel(373).eval()
    features = frontend(*collate(clips[:1]))
    own = 1 + len(clips[0]) // 256
    assert own < 373
    torch.testing.assert_close(features, features[:, :, torch.arange(373) % own], rtol=0, atol=0)
    assert frontend.mask(*collate(clips)).all()


def test_log_mel_cuts_long_clips_at_the_end(long: Tensor) -> None:
    frontend = LogMel(50).eval()
    end = 49 * 256 + 256
    cut = collate([long[:end]])
    torch.testing.assert_close(frontend(*collate([long])), frontend(*cut), rtol=0, atol=1e-5)
    shifted = collate([torch.cat([long[256:], long[:256]])])
    torch.testing.assert_close(frontend(*shifted)[:, :, 1:-1], frontend(*collate([long]))[:, :, 2:], rtol=0, atol=1e-4)


def test_decibel_mel_pads_with_the_mean(clips: list[Tensor]) -> None:
    frontend = fitted(DecibelMel, clips)
    batch = collate(clips)
    features, mask = frontend(*batch), frontend.mask(*batch)
    assert mask.shape == (len(clips), 1, 200)
    assert not features[~mask.expand_as(features)].any()
    assert (features.abs().amax(1) > 0)[mask[:, 0]].all()


def test_decibel_mel_crops_long_clips_to_the_middle_and_at_random_in_training(long: Tensor) -> None:
    frontend = DecibelMel()
    whole = torch.from_numpy(level(frontend, long)).float()
    spare = whole.shape[1] - 200
    assert spare > 50
    batch = collate([long] * 6)

    def offsets() -> list[int]:
        distances = (whole.unfold(1, 200, 1).transpose(0, 1)[None] - frontend(*batch)[:, None]).abs().amax((2, 3))
        assert (distances.amin(1) < 0.05).all(), "the features must be a contiguous part of the clip"
        result: list[int] = distances.argmin(1).tolist()
        return result

    frontend.train()
    torch.manual_seed(1)
    first = offsets()
    assert len(set(first)) > 3, "each clip of a batch has its own crop"
    assert offsets() != first
    torch.manual_seed(1)
    assert offsets() == first
    frontend.eval()
    assert offsets() == [spare // 2] * 6
    assert frontend.mask(*batch).all()


# A clip's features depend on the clip alone.


@every_front_end
def test_features_do_not_depend_on_neighbours_or_padding(make: Make, clips: list[Tensor]) -> None:
    frontend = fitted(make, clips)
    # Its length at 22.05 kHz is a multiple of the hop: an extra last frame would overlap the click most.
    size = next(size for size in range(9000, 12000) if -(-size * 22050 // 16000) % 220 == 0)
    click = torch.zeros(size)
    click[:20], click[-20:] = 0.05, 0.5
    clips = [*clips, click]
    together = frontend(*collate(clips, spare=5000))
    alone = torch.cat([frontend(*collate([clip])) for clip in clips])
    # Above 8 kHz `DecibelMel` measures the resampler's leakage, 80 dB down, where float32 rounds more coarsely.
    torch.testing.assert_close(together[:, :36], alone[:, :36], rtol=0, atol=1e-5)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-3)
    masks = torch.cat([frontend.mask(*collate([clip])) for clip in clips])
    assert torch.equal(frontend.mask(*collate(clips, spare=5000)), masks)


@every_front_end
@given(lengths=st.lists(st.integers(1, 40_000), min_size=2, max_size=3), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_any_lengths_can_share_a_batch(make: Make, lengths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise = [0.1 * torch.randn(length, generator=generator) for length in lengths]
    frontend = make().eval()
    frontend.fit([collate(noise)])
    together, masks = frontend(*collate(noise)), frontend.mask(*collate(noise))
    for row, clip in enumerate(noise):
        alone = collate([clip])
        torch.testing.assert_close(together[row, :36], frontend(*alone)[0, :36], rtol=0, atol=1e-4)
        assert torch.equal(masks[row], frontend.mask(*alone)[0])


@every_front_end
def test_samples_after_the_end_are_ignored(make: Make, clips: list[Tensor]) -> None:
    frontend = fitted(make, clips)
    waveform, lengths = collate(clips, spare=2000)
    after = torch.arange(waveform.shape[1]) >= lengths[:, None]
    noisy = (waveform + 0.1 * after).requires_grad_()
    features = frontend(noisy, lengths)
    torch.testing.assert_close(features.detach(), frontend(waveform, lengths), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(features.square().sum(), noisy)
    assert not gradient[after].any()
    assert (gradient.abs().sum(1) > 0).all()


@every_front_end
def test_evaluation_draws_no_random_numbers(make: Make, long: Tensor) -> None:
    frontend = fitted(make, [long])
    before = torch.get_rng_state()
    first = frontend(*collate([long]))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(frontend(*collate([long])), first)


@every_front_end
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_features_from_cached_analyses_equal_those_from_the_sound(
    make: Make, clips: list[Tensor], long: Tensor, training: bool
) -> None:
    frontend = fitted(make, [*clips, long])
    cached = [analysis for clip in [*clips, long] for analysis in frontend.analyse(*collate([clip]))]
    batch = collate([*clips, long])
    frontend.train(training)
    torch.manual_seed(5)
    features = frontend(*batch)
    torch.manual_seed(5)
    torch.testing.assert_close(frontend.assemble(cached), features, rtol=0, atol=1e-3)


@every_front_end
def test_mixed_precision_does_not_change_features(make: Make, clips: list[Tensor]) -> None:
    frontend = fitted(make, clips)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = frontend(*collate(clips))
    assert torch.equal(mixed, frontend(*collate(clips)))


# Normalisation.


@every_front_end
def test_statistics_are_over_all_frames_of_the_training_clips(make: Make, clips: list[Tensor]) -> None:
    frontend = make()
    frontend.fit([collate(clips[:1], spare=777), collate(clips[1:3])])
    frames = np.concatenate([level(frontend, clip) for clip in clips[:3]], axis=1)
    tolerance = {"rtol": 1e-3, "atol": 1e-2}
    np.testing.assert_allclose(frontend.mean[:, 0], frames.mean(1), **tolerance)
    np.testing.assert_allclose(frontend.std[:, 0], np.maximum(frames.std(1), float(frontend.std.min())), **tolerance)
    assert not np.allclose(frontend.mean[:, 0], level(frontend, clips[3]).mean(1), **tolerance)


@every_front_end
def test_features_are_in_standard_deviations(make: Make, clips: list[Tensor]) -> None:
    frontend = make().eval()
    raw = frontend(*collate(clips))
    frontend.fit([collate(clips)])
    mask = frontend.mask(*collate(clips))
    expected = (raw - frontend.mean) / frontend.std * mask
    torch.testing.assert_close(frontend(*collate(clips)), expected, rtol=1e-5, atol=1e-5)


@every_front_end
def test_a_constant_band_has_a_standard_deviation_of_1_db(make: Make) -> None:
    frontend = make()
    frontend.fit([(torch.zeros(2, 16000), torch.tensor([16000, 9000]))])
    decibel = {LogMel: np.log(10) / 20, DecibelMel: 1.0}[type(frontend)]  # type: ignore[index]
    torch.testing.assert_close(frontend.std, torch.full_like(frontend.std, decibel))


@every_front_end
def test_statistics_require_clips(make: Make) -> None:
    with pytest.raises(InputError, match="got 0, expected at least 1"):
        make().fit([])


@every_front_end
def test_checkpoints_contain_the_statistics_alone(make: Make) -> None:
    assert set(make().state_dict()) == {"mean", "std"}


# Gradients.


@every_front_end
def test_the_gradient_agrees_with_finite_differences(make: Make) -> None:
    frontend = make().double().eval()
    waveform, lengths = collate([sawtooth(9000), sawtooth(6500)], spare=300)
    frontend.fit([(waveform, lengths)])
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(frontend(waveform, lengths).shape, dtype=torch.float64, generator=generator)

    def score(x: Tensor) -> Tensor:
        value: Tensor = (weights * frontend(x, lengths)).sum()
        return value

    variable = waveform.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(variable), variable)
    for _ in range(4):
        direction = torch.randn(waveform.shape, dtype=torch.float64, generator=generator)
        step = 1e-7
        numeric = (score(waveform + step * direction) - score(waveform - step * direction)) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-4, atol=1e-3)


@every_front_end
@pytest.mark.parametrize("case", ["silence", "half silent", "impulse", "one sample"])
def test_gradients_are_finite_in_digital_silence(make: Make, case: str, clips: list[Tensor]) -> None:
    frontend = fitted(make, clips)
    clip = {
        "silence": torch.zeros(16000),
        "half silent": pad(clips[0], (8000, 8000)),
        "impulse": pad(torch.ones(1), (5000, 9000)),
        "one sample": torch.ones(1),
    }[case]
    waveform, lengths = collate([clip, clips[1]])
    features = frontend(waveform.requires_grad_(), lengths)
    assert features.isfinite().all()
    (gradient,) = torch.autograd.grad(features.sum() + features.square().sum(), waveform)
    assert gradient.isfinite().all()
