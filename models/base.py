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
    """A model's outputs for a batch.

    Attributes:
        logits: (B, C), one per class.
        embedding: (B, D), the input of the last layer.
        detection: (B,), logits that the input is adversarial; None without a detector, or for features that are no
            spectrogram.
        reference: (B, D), embeddings of the clean clips, if the attacker knows them. Models leave it None:
            `advser.threat.target.Target` sets it.
    """

    logits: Tensor
    embedding: Tensor
    detection: Tensor | None = None
    reference: Tensor | None = None


class FrontEnd(nn.Module, ABC):
    """A module that computes the classifier's features from the sound; its normalisation statistics are buffers.

    In evaluation mode it is deterministic and differentiable. The features of a clip depend neither on the other clips
    of the batch nor on the padding.
    """

    resynthesises: ClassVar[bool] = False
    """Whether `resynthesise` can turn perturbed features into sound."""

    varies_in_training: ClassVar[bool] = False
    """Whether training mode draws random numbers, as for a random crop."""

    kept: ClassVar[bool] = False
    """Whether training may cache the result of `analyse` for each clip and call `assemble` at every use."""

    @property
    def core(self) -> FrontEnd:
        """The front end that computes the features: ``self``, unless it only processes sound for another front end."""
        return self

    @abstractmethod
    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return features (B, bands, frames), in standard deviations, of ``waveform`` (B, T) on [−1, 1].

        A spectrogram has the same shape for every clip. Weights of a front end are trained with the model. ``lengths``
        (B,) are in samples at 16 kHz; ``waveform`` is zero after them.
        """

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Compute the normalisation statistics from (waveform, lengths) batches of training data."""

    def analyse(self, waveform: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return the input of `assemble` for each clip, after all costly steps and before any random one."""
        return list(self(waveform, lengths))

    def assemble(self, analyses: Sequence[Tensor]) -> Tensor:
        """Return the features of analysed clips; they equal those of `forward` on the clips' sound."""
        return torch.stack(list(analyses))

    def mask(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return a mask that broadcasts to the features: true where they represent sound, false in padding."""
        return waveform.new_ones(len(lengths), 1, 1, dtype=torch.bool)

    def resynthesise(self, waveform: Tensor, lengths: Tensor, features: Tensor) -> Tensor:
        """Return sound (B, T) whose features are near ``features``; for clean features, ``waveform`` itself.

        Raises:
            NotImplementedError: if `resynthesises` is false.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot turn features into sound")


class EmotionModel(nn.Module, ABC):
    """An emotion classifier: ``head(embed(frontend(waveform, lengths), lengths))``.

    A subclass sets ``frontend`` and ``head`` in its constructor and implements `embed`. The constructor's first
    argument is the number of classes. All others are parameters of the model: keyword-only, annotated, with defaults.
    """

    citation: ClassVar[str] = ""
    """The source of the architecture."""

    spectrogram: ClassVar[bool] = True
    """Whether the features are a spectrogram, so that attacks in the spectrogram domain apply."""

    differentiable: ClassVar[bool] = True
    """Whether the gradient reaches the sound. If not, `fit` trains the model, and white-box attacks skip it."""

    folds: ClassVar[bool] = True
    """Whether attacks may fold a batch normalisation into the convolution before it in an `nn.Sequential`. Set it to
    false if the model uses part of such a sequence, as in ``self.body[:1](x)``."""

    randomised: bool = False
    """Whether evaluation mode draws from torch's global generator; callers then seed it."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions affect the outputs, beside those of the training stage."""

    frontend: FrontEnd
    head: nn.Module
    detector: nn.Module | None
    """A module that returns logits (B,) that the input is adversarial; None unless a defense adds it. Its arguments are
    features (B, bands, frames), or waveforms (B, T) if `spectrogram` is false, and lengths (B,) in samples."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.detector = None

    @abstractmethod
    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings (B, D), the input of the last layer, of features (B, bands, frames).

        ``lengths`` (B,) are in samples. With a fixed number of frames they may be ignored; otherwise use them to keep
        the padding from changing the embedding.
        """

    @classmethod
    def fingerprint(cls, params: Mapping[str, Any]) -> str:
        """Return a hash of the model's other inputs, such as weight files; empty without any.

        ``params`` are the complete parameters. They and the code are hashed elsewhere.
        """
        return ""

    def fit(self, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Train a model that is not `differentiable` on (waveform (B, T), lengths (B,), labels (B,)) batches.

        Called after `FrontEnd.fit`. Store the result in buffers or weights of fixed shapes.

        Raises:
            NotImplementedError: if gradient descent trains the model.
        """
        raise NotImplementedError(f"{type(self).__name__} is trained by gradient descent")

    def inputs(self, waveform: Tensor, lengths: Tensor, domain: Domain) -> Tensor:
        """Return the input that an attack in ``domain`` perturbs: the waveform (B, T) or its features."""
        if domain == "waveform":
            return waveform
        features: Tensor = self.frontend(waveform, lengths)
        return features

    def outputs(self, x: Tensor, lengths: Tensor, domain: Domain) -> Outputs:
        """Return the outputs for ``x``: waveforms (B, T), or features in the front end's shape, as ``domain`` names."""
        features = self.frontend(x, lengths) if domain == "waveform" else x
        embedding = self.embed(features, lengths)
        observed = features if self.spectrogram else x if domain == "waveform" else None
        detection = None if self.detector is None or observed is None else self.detector(observed, lengths)
        return Outputs(self.head(embedding), embedding, detection)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return logits (B, C) of ``waveform`` (B, T) with ``lengths`` (B,) in samples."""
        return self.outputs(waveform, lengths, "waveform").logits
