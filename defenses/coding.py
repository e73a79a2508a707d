"""Lossy coding of the sound before the front end."""

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
"""libsndfile's names of the container and the coding."""

RATES: Final[dict[Codec, tuple[int, int]]] = {"mp3": (8, 160), "opus": (6, 256)}
"""Bit rates in kbit/s at 16 kHz that libsndfile maps to its compression levels 1 and 0, linearly between them."""

LEAST: Final = 16
"""Lowest bit rate of both codecs, kbit/s."""


class Coding(Processing):
    """Coding of the sound by MP3 or Opus and decoding, in memory, aligned with the input.

    The codecs are those of libsndfile (1.1 or newer). MP3 has a constant bit rate: the nearest of 16, 24, 32, 40, 48,
    56, 64, 80, 96, 112, 128, 144 and 160 kbit/s at 16 kHz. Opus varies around the given bit rate. The codec's delay is
    measured once, on noise, and removed. Coding has no gradient: attacks pass it straight through (BPDA).
    """

    citation: ClassVar[str] = (
        "Das, Shanbhogue, Chen, Chen, Kounavis, Chau: ADAGIO: Interactive experimentation with adversarial attack and "
        f"defense for audio, ECML PKDD 2018 (MP3); gradient: {BPDA}"
    )
    packages: ClassVar[tuple[str, ...]] = ("soundfile",)

    codec: Codec = parameter("mp3", about="codec of the sound")
    bitrate: int = parameter(32, unit="kbit/s", about="nominal bit rate", ge=LEAST, le=160)

    @model_validator(mode="after")
    def _codec_is_available(self) -> Self:
        available = [
            name for name, (container, coding) in FORMATS.items() if coding in soundfile.available_subtypes(container)
        ]
        if self.codec not in available:
            raise ValueError(
                f"codec: got '{self.codec}', expected with the installed libsndfile "
                f"({soundfile.__libsndfile_version__}): {', '.join(available) or 'none'}"
            )
        return self

    def process(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the sound (B, T) after coding and decoding."""
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
    """Return the delay of decoded sound in samples: the lag of its highest correlation with coded noise.

    Some decoders remove the delay themselves, others only at some bit rates.
    """
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    # Coding removes most high frequencies of white noise; low-passed noise has few of them, as speech.
    noise = np.convolve(noise, np.hanning(9), "same").astype(np.float32)
    decoded = _decoded(noise, codec, bitrate)
    size = len(noise) + len(decoded)
    correlation = np.fft.irfft(np.fft.rfft(decoded, size) * np.fft.rfft(noise, size).conj(), size)
    return int(correlation[: len(decoded)].argmax())


def _decoded(clip: Samples, codec: Codec, bitrate: int) -> Samples:
    """Return a clip after coding and decoding, with the codec's delay, and perhaps longer or shorter."""
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
