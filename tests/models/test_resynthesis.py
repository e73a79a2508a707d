"""Re-synthesis of sound from features of the mel front ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mel_front_ends import Make, collate, every_front_end, fitted, sawtooth, speech_clips
from torch import Tensor
from torch.nn.functional import interpolate, pad

from advser.audio.pcm import PCM_STEP
from advser.audio.torchaudio import functional
from advser.models.base import FrontEnd
from advser.models.frontends import LogMel
from advser.models.mel import NEPERS_PER_DB


@pytest.fixture
def clips() -> list[Tensor]:
    return speech_clips()


@pytest.fixture
def long(clips: list[Tensor]) -> Tensor:
    """Speech of about 5 s."""
    return torch.cat(clips)


def smooth_change(features: Tensor, size: float) -> Tensor:
    """Return a change of ``features``, of at most ``size``, that varies slowly over time and frequency."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.randn(len(features), 1, 6, features.shape[2] // 16, generator=generator)
    change = interpolate(coarse, size=features.shape[1:], mode="bicubic")[:, 0]
    return size * change / change.abs().amax((1, 2), keepdim=True)


@every_front_end
def test_clean_features_return_the_same_sound(make: Make, clips: list[Tensor], long: Tensor) -> None:
    frontend = fitted(make, clips)
    waveform, lengths = collate([*clips, long, pad(clips[0], (3000, 4000)), torch.zeros(4000)])
    again = frontend.resynthesise(waveform, lengths, frontend(waveform, lengths))
    assert again.shape == waveform.shape
    assert (again - waveform).abs().max() < PCM_STEP / 2
    alone = torch.cat([frontend(*collate([clip])) for clip in clips])
    again = frontend.resynthesise(*collate(clips), alone)
    assert (again - collate(clips)[0]).abs().max() < PCM_STEP / 2, "features crafted in another batch"


@every_front_end
def test_a_louder_spectrogram_returns_louder_sound(make: Make) -> None:
    """An equal change in all bands and frames is a single gain, which re-synthesis must apply exactly."""
    samples = 78 * 256 - 1  # nearly a whole hop after the centre of the last frame
    clip = 0.5 * sawtooth(samples).float()
    frontend = fitted(make, [clip])
    batch = collate([clip], spare=999)
    six_db = np.log(2) / frontend.nepers
    louder = frontend.resynthesise(*batch, frontend(*batch) + six_db / frontend.std)
    expected = functional.highpass_biquad(batch[0], 16000, 100.0)
    halved = functional.highpass_biquad(louder / 2, 16000, 100.0)
    for part in (slice(0, samples), slice(samples - 230, samples)):
        error = (halved - expected)[:, part].square().mean() / expected[:, part].square().mean()
        assert 10 * error.log10() < -20, "no change below the lowest band, hence the high-pass filter"
    assert not louder[:, samples:].any()


@every_front_end
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


@every_front_end
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
    # Bands far below the peak contain leakage of louder bands, and the floor of `DecibelMel` cannot decrease.
    levels = features * frontend.std + frontend.mean
    depth = 50 * NEPERS_PER_DB / frontend.nepers
    audible = frontend.mask(waveform, lengths) & (levels > levels.amax((1, 2), keepdim=True) - depth)
    for row in range(len(clips)):
        # The reference of `DecibelMel`, the clip's maximum, may change: ignore the mean change.
        requested, actual = (x[row][audible[row]] - x[row][audible[row]].mean() for x in (change, again))
        assert torch.corrcoef(torch.stack([requested, actual]))[0, 1] > 0.9
        assert 0.85 < (requested * actual).sum() / requested.square().sum() < 1.15


def test_sound_outside_the_features_does_not_change(long: Tensor) -> None:
    frontend = fitted(lambda: LogMel(50), [long])
    batch = collate([long])
    features = frontend(*batch)
    changed = frontend.resynthesise(*batch, features + 0.3)
    end = 49 * 256 + 256
    assert (changed[0, end:] - long[end:]).abs().max() == 0
    assert (changed[0, :end] - long[:end]).abs().max() > PCM_STEP


@every_front_end
def test_huge_changes_return_finite_sound(make: Make, clips: list[Tensor]) -> None:
    frontend = fitted(make, clips)
    batch = collate(clips)
    for change in (1e4, -1e4):
        assert frontend.resynthesise(*batch, frontend(*batch) + change).isfinite().all()


def test_a_front_end_without_re_synthesis_raises_an_error() -> None:
    class Envelope(FrontEnd):
        def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
            return waveform.unfold(1, 400, 400).square().mean(2)[:, None]

    waveform, lengths = torch.zeros(2, 800), torch.tensor([800, 400])
    frontend = Envelope()
    assert not frontend.resynthesises
    assert frontend.mask(waveform, lengths).expand(2, 1, 2).all()
    with pytest.raises(NotImplementedError, match="Envelope"):
        frontend.resynthesise(waveform, lengths, frontend(waveform, lengths))
