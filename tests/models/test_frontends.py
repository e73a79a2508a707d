"""The front ends: against independent computations, as functions of a batch, as differentiable maps, and backwards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from places import DEMO
from torch import Tensor
from torch.nn.functional import interpolate, pad

from advser.audio.pcm import PCM_STEP
from advser.audio.torchaudio import functional
from advser.errors import InputError
from advser.models.base import FrontEnd
from advser.models.frontends import DecibelMel, LogMel
from advser.models.mel import NEPERS_PER_DB, MelFrontEnd

Make = Callable[[], MelFrontEnd]
FRONT_ENDS: dict[str, Make] = {"log-mel": lambda: LogMel(96), "decibel-mel": DecibelMel}

both = pytest.mark.parametrize("make", FRONT_ENDS.values(), ids=FRONT_ENDS)


def collate(clips: list[Tensor], spare: int = 0) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(clip) for clip in clips])
    room = int(lengths.max()) + spare
    return torch.stack([pad(clip, (0, room - len(clip))) for clip in clips]), lengths


@pytest.fixture(scope="module")
def clips() -> list[Tensor]:
    names = ("m1_anger_1", "f1_sadness_2", "f3_neutral_3", "m2_happiness_4")
    return [torch.from_numpy(soundfile.read(DEMO / f"{name}.flac", dtype="float32")[0]) for name in names]


@pytest.fixture
def long(clips: list[Tensor]) -> Tensor:
    """Speech of about 5 s."""
    return torch.cat(clips)


def fitted(make: Make, clips: list[Tensor]) -> MelFrontEnd:
    frontend = make().eval()
    frontend.fit([collate(clips)])
    return frontend


def sawtooth(samples: int, noise: float = 0.003) -> Tensor:
    """A voice-like tone on faint noise, float64."""
    time = torch.arange(samples, dtype=torch.float64) / 16000
    generator = torch.Generator().manual_seed(3)
    tone = 0.3 * torch.remainder(130 * time + 2 * torch.sin(3 * time), 1) - 0.15
    return tone + noise * torch.randn(samples, dtype=torch.float64, generator=generator)


# Independent computations, in numpy and float64.


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
    """Cut ends whose frames (2048, every 512, centred) are 60 dB or more below the loudest, as librosa does."""
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


def test_log_mel_agrees_with_an_independent_computation(clips: list[Tensor]) -> None:
    frontend = LogMel(40).eval()
    expected = level(frontend, clips[0])[:, :40]
    np.testing.assert_allclose(frontend(*collate(clips))[0], expected, atol=2e-3)


def test_decibel_mel_agrees_with_an_independent_computation(clips: list[Tensor]) -> None:
    loudest = clips[0].unfold(0, 2048, 512).square().mean(1).amax().sqrt()
    noise = loudest * torch.randn(8000, generator=torch.Generator().manual_seed(2))
    # Before the speech noise that is just loud enough to be kept, after it noise that is not.
    clip = torch.cat([10 ** (-56 / 20) * noise[:3000], clips[0], 10 ** (-64 / 20) * noise[3000:]])
    frontend = DecibelMel().eval()
    expected = level(frontend, clip)
    assert expected.shape[1] < 200, "the clip must be shorter than the input, so that no crop hides an error"
    assert expected.shape[1] < 1 + len(clip) * 22050 // 16000 // 220 - 15, "there must be silence to cut off"
    features = frontend(*collate([clip, *clips[1:]]))[0]
    np.testing.assert_allclose(features[:, : expected.shape[1]], expected, atol=0.02)
    assert not features[:, expected.shape[1] :].any()


# What the classifier sees of short and long clips.


def test_log_mel_repeats_short_clips_frame_by_frame(clips: list[Tensor]) -> None:
    frontend = LogMel(373).eval()
    features = frontend(*collate(clips[:1]))
    own = 1 + len(clips[0]) // 256
    assert own < 373
    torch.testing.assert_close(features, features[:, :, torch.arange(373) % own], rtol=0, atol=0)
    assert frontend.mask(*collate(clips)).all()


def test_log_mel_takes_the_beginning_of_long_clips(long: Tensor) -> None:
    frontend = LogMel(50).eval()
    seen = 49 * 256 + 256
    cut = collate([long[:seen]])
    torch.testing.assert_close(frontend(*collate([long])), frontend(*cut), rtol=0, atol=1e-5)
    shifted = collate([torch.cat([long[256:], long[:256]])])
    torch.testing.assert_close(frontend(*shifted)[:, :, 1:-1], frontend(*collate([long]))[:, :, 2:], rtol=0, atol=1e-4)


def test_decibel_mel_fills_up_with_the_mean(clips: list[Tensor]) -> None:
    frontend = fitted(DecibelMel, clips)
    batch = collate(clips)
    features, mask = frontend(*batch), frontend.mask(*batch)
    assert mask.shape == (len(clips), 1, 200)
    assert not features[~mask.expand_as(features)].any()
    assert (features.abs().amax(1) > 0)[mask[:, 0]].all()


def test_decibel_mel_takes_the_middle_of_long_clips_and_any_part_in_training(long: Tensor) -> None:
    frontend = DecibelMel()
    whole = torch.from_numpy(level(frontend, long)).float()
    spare = whole.shape[1] - 200
    assert spare > 50
    batch = collate([long] * 6)

    def offsets() -> list[int]:
        distances = (whole.unfold(1, 200, 1).transpose(0, 1)[None] - frontend(*batch)[:, None]).abs().amax((2, 3))
        assert (distances.amin(1) < 0.05).all(), "what is seen must be one connected part"
        found: list[int] = distances.argmin(1).tolist()
        return found

    frontend.train()
    torch.manual_seed(1)
    first = offsets()
    assert len(set(first)) > 3, "each clip of a batch has a part of its own"
    assert offsets() != first
    torch.manual_seed(1)
    assert offsets() == first
    frontend.eval()
    assert offsets() == [spare // 2] * 6
    assert frontend.mask(*batch).all()


# A clip's features depend on the clip alone.


@both
def test_features_do_not_depend_on_neighbours_or_padding(make: Make, clips: list[Tensor]) -> None:
    frontend = fitted(make, clips)
    # At 22.05 kHz a whole number of hops long: a frame after the last one would see the click best.
    size = next(size for size in range(9000, 12000) if -(-size * 22050 // 16000) % 220 == 0)
    click = torch.zeros(size)
    click[:20], click[-20:] = 0.05, 0.5
    clips = [*clips, click]
    together = frontend(*collate(clips, spare=5000))
    alone = torch.cat([frontend(*collate([clip])) for clip in clips])
    # Above 8 kHz `DecibelMel` hears what the resampler leaves over, 80 dB down: there float32 rounds more coarsely.
    torch.testing.assert_close(together[:, :36], alone[:, :36], rtol=0, atol=1e-5)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-3)
    masks = torch.cat([frontend.mask(*collate([clip])) for clip in clips])
    assert torch.equal(frontend.mask(*collate(clips, spare=5000)), masks)


@both
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


@both
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


@both
def test_evaluation_draws_no_random_numbers(make: Make, long: Tensor) -> None:
    frontend = fitted(make, [long])
    before = torch.get_rng_state()
    first = frontend(*collate([long]))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(frontend(*collate([long])), first)


@both
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_features_from_kept_analyses_are_those_from_the_sound(
    make: Make, clips: list[Tensor], long: Tensor, training: bool
) -> None:
    frontend = fitted(make, [*clips, long])
    kept = [analysis for clip in [*clips, long] for analysis in frontend.analyse(*collate([clip]))]
    batch = collate([*clips, long])
    frontend.train(training)
    torch.manual_seed(5)
    heard = frontend(*batch)
    torch.manual_seed(5)
    torch.testing.assert_close(frontend.assemble(kept), heard, rtol=0, atol=1e-3)


@both
def test_mixed_precision_does_not_touch_features(make: Make, clips: list[Tensor]) -> None:
    frontend = fitted(make, clips)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = frontend(*collate(clips))
    assert torch.equal(mixed, frontend(*collate(clips)))


# Normalisation.


@both
def test_statistics_are_those_of_all_frames_of_the_training_clips(make: Make, clips: list[Tensor]) -> None:
    frontend = make()
    frontend.fit([collate(clips[:1], spare=777), collate(clips[1:3])])
    frames = np.concatenate([level(frontend, clip) for clip in clips[:3]], axis=1)
    tolerance = {"rtol": 1e-3, "atol": 1e-2}
    np.testing.assert_allclose(frontend.mean[:, 0], frames.mean(1), **tolerance)
    np.testing.assert_allclose(frontend.std[:, 0], np.maximum(frames.std(1), float(frontend.std.min())), **tolerance)
    assert not np.allclose(frontend.mean[:, 0], level(frontend, clips[3]).mean(1), **tolerance)


@both
def test_features_are_in_standard_deviations(make: Make, clips: list[Tensor]) -> None:
    frontend = make().eval()
    raw = frontend(*collate(clips))
    frontend.fit([collate(clips)])
    mask = frontend.mask(*collate(clips))
    expected = (raw - frontend.mean) / frontend.std * mask
    torch.testing.assert_close(frontend(*collate(clips)), expected, rtol=1e-5, atol=1e-5)


@both
def test_a_constant_band_has_one_decibel_as_standard_deviation(make: Make) -> None:
    frontend = make()
    frontend.fit([(torch.zeros(2, 16000), torch.tensor([16000, 9000]))])
    one_db = {LogMel: np.log(10) / 20, DecibelMel: 1.0}[type(frontend)]  # type: ignore[index]
    torch.testing.assert_close(frontend.std, torch.full_like(frontend.std, one_db))


@both
def test_statistics_need_clips(make: Make) -> None:
    with pytest.raises(InputError, match="got 0"):
        make().fit([])


@both
def test_checkpoints_hold_nothing_but_the_statistics(make: Make) -> None:
    assert set(make().state_dict()) == {"mean", "std"}


# Gradients.


@both
def test_gradient_agrees_with_finite_differences(make: Make) -> None:
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


@both
@pytest.mark.parametrize("case", ["silence", "half silent", "impulse", "one sample"])
def test_gradients_are_finite_where_sound_is_digitally_silent(make: Make, case: str, clips: list[Tensor]) -> None:
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


# Back to sound.


def smooth_change(features: Tensor, size: float) -> Tensor:
    """A change that varies slowly along time and frequency, at most ``size``."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.randn(len(features), 1, 6, features.shape[2] // 16, generator=generator)
    change = interpolate(coarse, size=features.shape[1:], mode="bicubic")[:, 0]
    return size * change / change.abs().amax((1, 2), keepdim=True)


@both
def test_unperturbed_features_give_the_same_sound(make: Make, clips: list[Tensor], long: Tensor) -> None:
    frontend = fitted(make, clips)
    waveform, lengths = collate([*clips, long, pad(clips[0], (3000, 4000)), torch.zeros(4000)])
    again = frontend.resynthesise(waveform, lengths, frontend(waveform, lengths))
    assert again.shape == waveform.shape
    assert (again - waveform).abs().max() < PCM_STEP / 2
    alone = torch.cat([frontend(*collate([clip])) for clip in clips])
    again = frontend.resynthesise(*collate(clips), alone)
    assert (again - collate(clips)[0]).abs().max() < PCM_STEP / 2, "features crafted in another batch"


@both
def test_a_louder_spectrogram_is_louder_sound(make: Make) -> None:
    """The same change in every band and frame is one gain, which re-synthesis must meet exactly."""
    samples = 78 * 256 - 1  # nearly a whole hop after the centre of the last frame
    clip = 0.5 * sawtooth(samples).float()
    frontend = fitted(make, [clip])
    batch = collate([clip], spare=999)
    six_db = np.log(2) / frontend.nepers
    louder = frontend.resynthesise(*batch, frontend(*batch) + six_db / frontend.std)
    expected = functional.highpass_biquad(batch[0], 16000, 100.0)
    found = functional.highpass_biquad(louder / 2, 16000, 100.0)
    for part in (slice(0, samples), slice(samples - 230, samples)):
        error = (found - expected)[:, part].square().mean() / expected[:, part].square().mean()
        assert 10 * error.log10() < -20, "below the lowest band nothing is changed, hence the high-pass filter"
    assert not louder[:, samples:].any()


@both
def test_sound_does_not_depend_on_neighbours_or_padding(make: Make, clips: list[Tensor]) -> None:
    frontend = fitted(make, clips)
    waveform, lengths = collate(clips, spare=3000)
    features = frontend(waveform, lengths)
    features = features + smooth_change(features, 0.5)
    together = frontend.resynthesise(waveform, lengths, features)
    for row, clip in enumerate(clips):
        alone = frontend.resynthesise(*collate([clip]), features[row : row + 1])
        torch.testing.assert_close(together[row, : len(clip)], alone[0], rtol=0, atol=PCM_STEP / 4)
    assert not together[torch.arange(waveform.shape[1]) >= lengths[:, None]].any()


@both
def test_a_smooth_change_survives_the_conversion(make: Make, clips: list[Tensor]) -> None:
    frontend = fitted(make, clips)
    clips = [*clips, pad(clips[0], (3000, 4000))]
    waveform, lengths = collate(clips)
    features = frontend(waveform, lengths)
    change = smooth_change(features, 0.1)
    if isinstance(frontend, LogMel):
        own = 1 + lengths // 256
        copies = torch.arange(features.shape[2]) % own[:, None]
        change = change.gather(2, copies[:, None].expand_as(change))
    again = frontend(frontend.resynthesise(waveform, lengths, features + change), lengths) - features
    # Bands far below the peak hear the leakage of louder ones, and the floor of `DecibelMel` cannot be lowered.
    levels = features * frontend.std + frontend.mean
    depth = 50 * NEPERS_PER_DB / frontend.nepers
    audible = frontend.mask(waveform, lengths) & (levels > levels.amax((1, 2), keepdim=True) - depth)
    for row in range(len(clips)):
        # In `DecibelMel` the reference, the clip's maximum, may move: the mean change says nothing.
        asked, got = (x[row][audible[row]] - x[row][audible[row]].mean() for x in (change, again))
        assert torch.corrcoef(torch.stack([asked, got]))[0, 1] > 0.9
        assert 0.85 < (asked * got).sum() / asked.square().sum() < 1.15


def test_unseen_parts_stay_as_they_are(long: Tensor) -> None:
    frontend = fitted(lambda: LogMel(50), [long])
    batch = collate([long])
    features = frontend(*batch)
    changed = frontend.resynthesise(*batch, features + 0.3)
    last_touched = 49 * 256 + 256
    assert (changed[0, last_touched:] - long[last_touched:]).abs().max() == 0
    assert (changed[0, :last_touched] - long[:last_touched]).abs().max() > PCM_STEP


@both
def test_huge_changes_make_finite_sound(make: Make, clips: list[Tensor]) -> None:
    frontend = fitted(make, clips)
    batch = collate(clips)
    for change in (1e4, -1e4):
        assert frontend.resynthesise(*batch, frontend(*batch) + change).isfinite().all()


def test_a_front_end_without_re_synthesis_says_so() -> None:
    class Envelope(FrontEnd):
        def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
            return waveform.unfold(1, 400, 400).square().mean(2)[:, None]

    waveform, lengths = torch.zeros(2, 800), torch.tensor([800, 400])
    frontend = Envelope()
    assert not frontend.resynthesises
    assert frontend.mask(waveform, lengths).expand(2, 1, 2).all()
    with pytest.raises(NotImplementedError, match="Envelope"):
        frontend.resynthesise(waveform, lengths, frontend(waveform, lengths))
