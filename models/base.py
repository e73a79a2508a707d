"""The contract of an emotion model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from advser.models.terms import Domain


@dataclass(frozen=True)
class Outputs:
    """What a model says of a batch.

    Attributes:
        logits: (B, C), one a class.
        embedding: (B, D), the input of the last layer.
        detection: (B,), logits of the input's being adversarial; None of a model without a detector, or if features
            are given that are no spectrogram.
        reference: (B, D), embeddings of the clean clips, where an attacker knows them
            (`advser.threat.target.Target`); no model sets it.
    """

    logits: Tensor
    embedding: Tensor
    detection: Tensor | None = None
    reference: Tensor | None = None


class FrontEnd(nn.Module, ABC):
    """From sound to the features that the classifier sees; normalisation statistics are buffers.

    In evaluation mode a front end is deterministic, differentiable, and treats each clip alike whatever else is in
    the batch and however far it is padded.
    """

    resynthesises: ClassVar[bool] = False
    """Whether perturbed features can be turned back into sound (`resynthesise`)."""

    varies_in_training: ClassVar[bool] = False
    """Whether training mode draws random numbers (a random crop)."""

    kept: ClassVar[bool] = False
    """Whether training may keep what `analyse` returns of a clip, and call `assemble` each time it comes round."""

    @property
    def core(self) -> FrontEnd:
        """The front end that makes the features: another one, if this one processes sound for it."""
        return self

    @abstractmethod
    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return features (B, bands, frames), in standard deviations, of ``waveform`` (B, T) on [−1, 1].

        A spectrogram has the same shape for every clip. A front end with weights is trained with the model.
        ``lengths`` (B,) are in samples at 16 kHz; ``waveform`` is zero after them.
        """

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the normalisation statistics from (waveform, lengths) batches of training data."""

    def analyse(self, waveform: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return of each clip what `assemble` makes its features from: all that is costly, and nothing random."""
        return list(self(waveform, lengths))

    def assemble(self, analyses: Sequence[Tensor]) -> Tensor:
        """Return the features of the clips that were analysed: what `forward` returns of their sound."""
        return torch.stack(list(analyses))

    def mask(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return a tensor that broadcasts to the features, true where they stem from sound, false in padding."""
        return waveform.new_ones(len(lengths), 1, 1, dtype=torch.bool)

    def resynthesise(self, waveform: Tensor, lengths: Tensor, features: Tensor) -> Tensor:
        """Return sound (B, T) whose features are near ``features``; with unperturbed features, ``waveform`` itself.

        Raises:
            NotImplementedError: if `resynthesises` is false.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be turned back into sound")


class EmotionModel(nn.Module, ABC):
    """A classifier of emotion: ``head(embed(frontend(waveform, lengths), lengths))``.

    A subclass sets ``frontend`` and ``head`` in its constructor, whose first argument is the number of classes and
    whose other arguments are keyword-only, annotated, and have defaults: these are the model's parameters.
    """

    citation: ClassVar[str] = ""
    """The source of the architecture."""

    spectrogram: ClassVar[bool] = True
    """Whether the features are a spectrogram, so that attacks in the spectrogram domain apply."""

    differentiable: ClassVar[bool] = True
    """Whether a gradient reaches the sound; if not, `fit` trains the model and no white-box attack is crafted on it."""

    folds: ClassVar[bool] = True
    """Whether attacks may compute a convolution and the batch normalisation after it, neighbours in an
    `nn.Sequential`, as one: false for a model whose passes take such a sequence apart (``self.body[:1](x)``)."""

    randomised: bool = False
    """Whether it draws from torch's global generator in evaluation mode too; its callers then seed it."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions, beside those of the training stage, whose versions decide what it computes."""

    frontend: FrontEnd
    head: nn.Module
    detector: nn.Module | None
    """From features (B, bands, frames), or, if these are no `spectrogram`, from the waveform (B, T), and from lengths
    (B,) in samples, to logits (B,) of the input's being adversarial; None unless a defense adds one."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.detector = None

    @abstractmethod
    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings (B, D), the input of the last layer, of features (B, bands, frames).

        ``lengths`` (B,) are the clips' lengths in samples; a model whose front end gives a fixed number of frames
        need not look at them, any other must not let a clip's padding change its embedding.
        """

    @classmethod
    def fingerprint(cls, params: Mapping[str, Any]) -> str:
        """Hash what decides the model beside code and complete parameters, as a checkpoint's file; empty: nothing."""
        return ""

    def fit(self, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Train on (waveform (B, T), lengths (B,), labels (B,)) batches; only of a model that is not `differentiable`.

        Called after the front end's `FrontEnd.fit`; what is learned goes to buffers or weights of fixed shapes.
        """
        raise NotImplementedError(f"{type(self).__name__} is trained by gradient descent")

    def inputs(self, waveform: Tensor, lengths: Tensor, domain: Domain) -> Tensor:
        """Return what an attacker in ``domain`` perturbs: the waveform itself, or its features."""
        if domain == "waveform":
            return waveform
        features: Tensor = self.frontend(waveform, lengths)
        return features

    def outputs(self, x: Tensor, lengths: Tensor, domain: Domain) -> Outputs:
        """Classify ``x``: waveforms (B, T), or features as the front end gives them, according to ``domain``."""
        features = self.frontend(x, lengths) if domain == "waveform" else x
        embedding = self.embed(features, lengths)
        seen = features if self.spectrogram else x if domain == "waveform" else None
        detection = None if self.detector is None or seen is None else self.detector(seen, lengths)
        return Outputs(self.head(embedding), embedding, detection)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return logits (B, C) of ``waveform`` (B, T) with ``lengths`` (B,) in samples."""
        return self.outputs(waveform, lengths, "waveform").logits
