"""A front end with processing of the sound before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from advser.audio.clips import sound_mask
from advser.models.base import FrontEnd

Process = Callable[[Tensor, Tensor], Tensor]
"""Function from waveforms (B, T) on [−1, 1] and lengths (B,) in samples to waveforms (B, T)."""


class Processed(FrontEnd):
    """A front end that computes the features of ``core`` from processed sound; the padding stays 0.

    Args:
        core: the front end of the features.
        process: the processing: deterministic, differentiable, and independent for each clip.
    """

    def __init__(self, core: FrontEnd, process: Process) -> None:
        super().__init__()
        self._core = core
        self._process = process
        for name in ("resynthesises", "varies_in_training", "kept"):
            setattr(self, name, getattr(core, name))

    @property
    def core(self) -> FrontEnd:
        """The front end that computes the features."""
        return self._core.core

    def processed(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the processed sound (B, T)."""
        return self._process(waveform, lengths) * sound_mask(lengths, waveform.shape[1])

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the features (B, bands, frames) of the processed sound."""
        features: Tensor = self._core(self.processed(waveform, lengths), lengths)
        return features

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Compute the normalisation statistics from processed training data."""
        self._core.fit((self.processed(waveform, lengths), lengths) for waveform, lengths in batches)

    def analyse(self, waveform: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return the input of `assemble` for the processed sound of each clip."""
        return self._core.analyse(self.processed(waveform, lengths), lengths)

    def assemble(self, analyses: Sequence[Tensor]) -> Tensor:
        """Return the features of analysed clips."""
        return self._core.assemble(analyses)

    def mask(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return a mask that broadcasts to the features: true where they represent sound."""
        return self._core.mask(self.processed(waveform, lengths), lengths)

    def resynthesise(self, waveform: Tensor, lengths: Tensor, features: Tensor) -> Tensor:
        """Return ``waveform`` plus the change that ``features`` request of the processed sound.

        The processing may remove part of that change, which adds to the conversion loss.
        """
        processed = self.processed(waveform, lengths)
        return waveform + (self._core.resynthesise(processed, lengths, features) - processed)
