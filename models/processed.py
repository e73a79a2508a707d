"""A front end that hears processed sound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from advser.audio.clips import sound_mask
from advser.models.base import FrontEnd

Process = Callable[[Tensor, Tensor], Tensor]
"""From waveforms (B, T) on [−1, 1] and their lengths (B,) in samples to waveforms (B, T)."""


class Processed(FrontEnd):
    """The features that another front end makes of processed sound; the padding stays 0.

    Args:
        core: the other front end.
        process: what is done to the sound. Deterministic, each clip by itself, and with a gradient.
    """

    def __init__(self, core: FrontEnd, process: Process) -> None:
        super().__init__()
        self._core = core
        self._process = process
        for name in ("resynthesises", "varies_in_training", "kept"):
            setattr(self, name, getattr(core, name))

    @property
    def core(self) -> FrontEnd:
        """The front end that makes the features."""
        return self._core.core

    def heard(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the processed sound (B, T)."""
        return self._process(waveform, lengths) * sound_mask(lengths, waveform.shape[1])

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the features (B, bands, frames) of the processed sound."""
        features: Tensor = self._core(self.heard(waveform, lengths), lengths)
        return features

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the normalisation statistics from processed training data."""
        self._core.fit((self.heard(waveform, lengths), lengths) for waveform, lengths in batches)

    def analyse(self, waveform: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return of each clip what `assemble` makes the features of its processed sound from."""
        return self._core.analyse(self.heard(waveform, lengths), lengths)

    def assemble(self, analyses: Sequence[Tensor]) -> Tensor:
        """Return the features of analysed clips."""
        return self._core.assemble(analyses)

    def mask(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return what broadcasts to the features, true where they stem from sound."""
        return self._core.mask(self.heard(waveform, lengths), lengths)

    def resynthesise(self, waveform: Tensor, lengths: Tensor, features: Tensor) -> Tensor:
        """Return ``waveform`` with the change added that ``features`` ask of the processed sound.

        Processed in its turn, the change may lose what the processing takes away: a loss of the conversion.
        """
        heard = self.heard(waveform, lengths)
        return waveform + (self._core.resynthesise(heard, lengths, features) - heard)
