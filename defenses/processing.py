"""Defenses that train on clean clips and process the sound before the front end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from scipy.signal import firwin
from torch import Tensor

from advser.audio.clips import sound_mask
from advser.audio.pcm import SAMPLE_RATE
from advser.audio.resampling import resample
from advser.audio.torchaudio import functional
from advser.defenses.undefended import Undefended
from advser.models.base import EmotionModel
from advser.models.processed import Processed
from advser.plugins.parameters import parameter

AUDIO_MODIFICATION = (
    "Kwon, Yoon, Park: POSTER: Detecting audio adversarial example through audio modification, CCS 2019"
)
TEMPORAL_DEPENDENCY = "Yang, Li, Chen, Song: Characterizing audio adversarial examples, ICLR 2019, sec. 4"
BPDA = "Athalye, Carlini, Wagner: Obfuscated gradients give a false sense of security, ICML 2018"


def straight_through(processed: Tensor, waveform: Tensor) -> Tensor:
    """Return ``processed`` with the gradient of the identity with respect to ``waveform``, both (B, T).

    This is the backward pass differentiable approximation (BPDA) of Athalye et al. 2018 for processing near the
    identity. A gradient that is 0 or missing would stop an attack without making the model more robust.
    """
    return processed.detach() + (waveform - waveform.detach())


class Processing(Undefended, ABC):
    """Training on clean clips; at test time the front end receives processed sound.

    White-box attacks on the sound always use the gradient of the processing: the exact gradient, or that of
    `straight_through` if there is none. Attacks in the spectrogram domain bypass the processing: they perturb the
    features of processed sound, and features that are delivered as such are not processed again.
    """

    @abstractmethod
    def process(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the processed sound (B, T), aligned with ``waveform`` (B, T) on [−1, 1]; ``lengths`` (B,) in samples.

        The caller sets the padding to 0.
        """

    def wrap(self, model: EmotionModel) -> EmotionModel:
        """Return the model with the processing before the trained front end, whose statistics do not change."""
        model.frontend = Processed(model.frontend, self.process)
        return model


class Resampling(Processing):
    """Resampling of the sound to a lower rate and back (windowed sinc), which removes frequencies above half that rate.

    It is linear: attacks use its exact gradient.
    """

    citation: ClassVar[str] = f"{TEMPORAL_DEPENDENCY} (down-sampling)"

    rate: int = parameter(8000, unit="Hz", about="the lower rate", ge=1000, lt=SAMPLE_RATE)

    def process(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the sound (B, T) resampled down and up."""
        low = resample(waveform, SAMPLE_RATE, self.rate)
        # Without the mask a padded clip would ring on after its end, and a clip alone would not.
        low = low * sound_mask(-(-lengths * self.rate // SAMPLE_RATE), low.shape[1])
        return resample(low, self.rate, SAMPLE_RATE)[:, : waveform.shape[1]]


class LowPass(Processing):
    """A low-pass filter of linear phase, 255 taps with a Hamming window: −6 dB at the cut-off, 200 Hz of transition.

    It is linear: attacks use its exact gradient.
    """

    citation: ClassVar[str] = f"{AUDIO_MODIFICATION} (low-pass filtering)"
    packages: ClassVar[tuple[str, ...]] = ("scipy",)

    cutoff: float = parameter(4000.0, unit="Hz", about="cut-off frequency", gt=0, lt=SAMPLE_RATE / 2)

    def process(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the filtered sound (B, T)."""
        taps = torch.from_numpy(firwin(255, self.cutoff, fs=SAMPLE_RATE)).to(waveform)
        filtered: Tensor = functional.fftconvolve(waveform, taps.expand(len(waveform), -1), mode="same")
        return filtered


class Quantisation(Processing):
    """Rounding of the sound to fewer bits per sample: to steps of 2^(1 − bits) on [−1, 1].

    Its gradient is 0 almost everywhere: attacks pass it straight through (BPDA).
    """

    citation: ClassVar[str] = f"{TEMPORAL_DEPENDENCY} (quantisation); gradient: {BPDA}"

    bits: int = parameter(8, unit="bits", about="bits per sample", ge=2, le=16)

    def process(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the sound (B, T) rounded to the nearest step."""
        step = 2.0 ** (1 - self.bits)
        return straight_through(((waveform / step).round() * step).clamp(-1, 1 - step), waveform)
