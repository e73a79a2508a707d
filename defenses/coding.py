"""Lossy coding of the sound before the model hears it."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import ClassVar, Final, Literal, Self

import numpy as np
import soundfile
import torch
from pydantic import model_validator
from torch import Tensor

from advser.audio.pcm import SAMPLE_RATE, Samples
from advser.defenses.processing import BPDA, Processing, straight_through
from advser.plugins.parameters import parameter

Codec = Literal["mp3", "opus"]

FORMATS: Final[dict[Codec, tuple[str, str]]] = {"mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS")}
"""What libsndfile calls the container and the coding."""

RATES: Final[dict[Codec, tuple[int, int]]] = {"mp3": (8, 160), "opus": (6, 256)}
"""Bit rates at 16 kHz, kbit/s, that libsndfile spreads its compression levels 1 and 0 over."""

LEAST: Final = 16
"""Lowest bit rate that is offered, kbit/s."""


class Coding(Processing):
    """The sound is coded by MP3 or Opus, in memory, decoded, and put where it was before.

    The codecs are those of libsndfile (1.1 or newer). MP3 has a constant bit rate, one of 16, 24, 32, 40, 48, 56, 64,
    80, 96, 112, 128, 144 and 160 kbit/s at 16 kHz: the nearest is taken. Opus varies around the bit rate that it is
    given. What a codec delays the sound by is found once, on noise, and taken away. Coding has no gradient: attacks get
    it straight through (BPDA).
    """

    citation: ClassVar[str] = (
        "Das, Shanbhogue, Chen, Chen, Kounavis, Chau: ADAGIO: Interactive experimentation with adversarial attack and "
        f"defense for audio, ECML PKDD 2018 (MP3); gradient: {BPDA}"
    )
    packages: ClassVar[tuple[str, ...]] = ("soundfile",)

    codec: Codec = parameter("mp3", about="how the sound is coded")
    bitrate: int = parameter(32, unit="kbit/s", about="nominal bit rate", ge=LEAST, le=160)

    @model_validator(mode="after")
    def _codec_is_there(self) -> Self:
        container, coding = FORMATS[self.codec]
        if coding not in soundfile.available_subtypes(container):
            there = [name for name, (where, how) in FORMATS.items() if how in soundfile.available_subtypes(where)]
            raise ValueError(
                f"codec: got '{self.codec}', expected with the libsndfile installed "
                f"({soundfile.__libsndfile_version__}): {', '.join(there) or 'none'}"
            )
        return self

    def process(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Code and decode each clip."""
        coded = torch.zeros_like(waveform)
        for row, length in enumerate(lengths.tolist()):
            clip = waveform[row, :length].detach().float().cpu().numpy()
            coded[row, :length] = torch.from_numpy(_coded(clip, self.codec, self.bitrate)).to(waveform)
        return straight_through(coded, waveform)


def _coded(clip: Samples, codec: Codec, bitrate: int) -> Samples:
    """Return a clip (T,) on [−1, 1] after coding and decoding, aligned and of the same length."""
    decoded = _decoded(clip, codec, bitrate)[_delay(codec, bitrate) :][: len(clip)]
    return np.pad(decoded, (0, len(clip) - len(decoded))).clip(-1, 1)


@cache
def _delay(codec: Codec, bitrate: int) -> int:
    """Return by how many samples decoded sound comes late: where its correlation with noise that was coded is highest.

    Some decoders take the delay away themselves, others do at some bit rates only.
    """
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    # Little of white noise at high frequencies outlives coding: speech has little there too.
    noise = np.convolve(noise, np.hanning(9), "same").astype(np.float32)
    decoded = _decoded(noise, codec, bitrate)
    size = len(noise) + len(decoded)
    correlation = np.fft.irfft(np.fft.rfft(decoded, size) * np.fft.rfft(noise, size).conj(), size)
    return int(correlation[: len(decoded)].argmax())


def _decoded(clip: Samples, codec: Codec, bitrate: int) -> Samples:
    """Return what is decoded of a clip: late by the codec's delay, and perhaps longer or shorter."""
    container, coding = FORMATS[codec]
    low, high = RATES[codec]
    file = BytesIO()
    soundfile.write(
        file,
        clip,
        SAMPLE_RATE,
        subtype=coding,
        format=container,
        compression_level=(high - bitrate) / (high - low),
        bitrate_mode="CONSTANT" if codec == "mp3" else None,
    )
    file.seek(0)
    decoded: Samples = soundfile.read(file, dtype="float32")[0]
    return decoded
