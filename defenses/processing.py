"""Defenses that train plainly and process the sound before the model hears it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from scipy.signal import firwin
from torch import Tensor

from advser.audio.clips import sound_mask
from advser.audio.pcm import SAMPLE_RATE
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

    The backward pass differentiable approximation of Athalye et al. 2018 for a processing that is near the identity:
    its own gradient is 0 or missing, which would stop an attack without making the model any safer.
    """
    return processed.detach() + (waveform - waveform.detach())


class Processing(Undefended, ABC):
    """Plain training; at test time the front end hears processed sound.

    White-box attacks on the sound go through the processing: by its exact gradient, or, where it has none, straight
    through (`straight_through`). A defense cannot choose otherwise. An attack in the spectrogram domain stands behind
    the processing: what it perturbs are the features of the processed sound, and delivered as features nothing
    processes them again.
    """

    @abstractmethod
    def process(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the processed sound (B, T), aligned with ``waveform`` (B, T) on [−1, 1]; ``lengths`` (B,) in samples.

        What it returns in the padding is dropped.
        """

    def wrap(self, model: EmotionModel) -> EmotionModel:
        """Put the processing before the trained front end, whose statistics stay those of training."""
        model.frontend = Processed(model.frontend, self.process)
        return model


class Resampling(Processing):
    """The sound is resampled to a lower rate and back (windowed sinc): what lies above half that rate is lost.

    Linear: attacks have its exact gradient.
    """

    citation: ClassVar[str] = f"{TEMPORAL_DEPENDENCY} (down-sampling)"

    rate: int = parameter(8000, unit="Hz", about="the lower rate", ge=1000, lt=SAMPLE_RATE)

    def process(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Resample down and up."""
        low = functional.resample(waveform, SAMPLE_RATE, self.rate)
        # What rings on after a clip's end would not be there if the clip stood alone.
        low = low * sound_mask(-(-lengths * self.rate // SAMPLE_RATE), low.shape[1])
        back: Tensor = functional.resample(low, self.rate, SAMPLE_RATE)
        return back[:, : waveform.shape[1]]


class LowPass(Processing):
    """A low-pass filter of linear phase, 255 taps with a Hamming window: −6 dB at the cut-off, 200 Hz of transition.

    Linear: attacks have its exact gradient.
    """

    citation: ClassVar[str] = f"{AUDIO_MODIFICATION} (low-pass filtering)"
    packages: ClassVar[tuple[str, ...]] = ("scipy",)

    cutoff: float = parameter(4000.0, unit="Hz", about="cut-off frequency", gt=0, lt=SAMPLE_RATE / 2)

    def process(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Filter."""
        taps = torch.from_numpy(firwin(255, self.cutoff, fs=SAMPLE_RATE)).to(waveform)
        filtered: Tensor = functional.fftconvolve(waveform, taps.expand(len(waveform), -1), mode="same")
        return filtered


class Quantisation(Processing):
    """The sound is rounded to fewer bits a sample: to steps of 2^(1 − bits) on [−1, 1].

    Rounding has the gradient 0 almost everywhere: attacks get it straight through (BPDA).
    """

    citation: ClassVar[str] = f"{TEMPORAL_DEPENDENCY} (quantisation); gradient: {BPDA}"

    bits: int = parameter(8, unit="bits", about="bits a sample", ge=2, le=16)

    def process(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Round to the nearest step."""
        step = 2.0 ** (1 - self.bits)
        return straight_through(((waveform / step).round() * step).clamp(-1, 1 - step), waveform)
