"""A detector of adversarial input beside a classifier trained on clean clips."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from advser.attacks.reference import AttackReference
from advser.audio.clips import sound_mask
from advser.defenses.base import Defense, TrainingBatch, craft
from advser.models.base import EmotionModel, Outputs
from advser.models.strided import block
from advser.models.terms import Domain
from advser.plugins.parameters import parameter
from advser.threat.objectives import evasion
from advser.threat.target import Target


class Detector(Defense):
    """A detector of adversarial input, trained on clips x and on x′ crafted from them against the classifier.

    The classifier's loss is the cross-entropy on x alone. The detector's loss is the mean binary cross-entropy over x
    (clean) and x′ (adversarial); it changes none of the classifier's weights. The detector reads the spectrogram, or
    the sound if the model has no spectrogram (`DetectorNetwork`). Evaluate it also with the objective ``adaptive``,
    which is ``evasion`` here (`advser.threat.objectives.evasion`).

    A checkpoint selected by validation may stem from the warm-up, in which the detector learns nothing.
    """

    citation: ClassVar[str] = (
        "Metzen, Genewein, Fischer, Bischoff: On detecting adversarial perturbations, ICLR 2017; named as future work "
        "by Ren et al., ICASSP 2020"
    )

    attack: AttackReference = parameter(about="the attack that crafts x′, against the model's own decisions")
    domain: Domain = parameter("spectrogram", about="domain in which x′ is crafted")
    warmup: int = parameter(0, unit="steps", about="steps before the detector's training", ge=0)

    def perturbed_domain(self) -> Domain:
        """Return ``domain``."""
        return self.domain

    def first_step(self) -> int:
        """Return the first step after the warm-up."""
        return self.warmup

    def extend(self, model: EmotionModel) -> EmotionModel:
        """Return the model with an untrained detector."""
        model.detector = DetectorNetwork()
        return model

    def loss(self, model: EmotionModel, batch: TrainingBatch, step: int) -> Tensor:
        """Return the sum of both losses (a scalar); during the warm-up, the classifier's loss."""
        # Not `outputs`, which would run the detector on x alone: its batch normalisation needs equal parts of x and x′.
        logits = model.head(model.embed(batch.features, batch.lengths))
        loss = functional.cross_entropy(logits, batch.labels)
        return loss if step < self.warmup else loss + self._detection_loss(model, batch)

    def adaptive(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """Return the loss (B,) of an attack on both the classifier and the detector."""
        return evasion(outputs, labels)

    def _detection_loss(self, model: EmotionModel, batch: TrainingBatch) -> Tensor:
        assert model.detector is not None, "the model was not extended"
        pair = [batch.inputs(self.domain), craft(model, batch, self.attack.build(), self.domain)]
        inputs = torch.cat([self._detector_input(model, x, batch.lengths) for x in pair])
        adversarial = torch.arange(2, device=inputs.device).repeat_interleave(len(batch.lengths))
        detection = model.detector(inputs, batch.lengths.repeat(2))
        return functional.binary_cross_entropy_with_logits(detection.float(), adversarial.float())

    def _detector_input(self, model: EmotionModel, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the detector's input for ``x``, without a gradient to the front end."""
        if self.domain == "spectrogram" or not model.spectrogram:
            return x.detach()
        # In evaluation mode x′ does not change running statistics, and x is cropped as x′ is.
        with torch.no_grad(), Target(model, lengths, self.domain):
            return model.inputs(x, lengths, "spectrogram")


class DetectorNetwork(nn.Module):
    """Three convolutions 3×3 of stride 2, the mean over bands and time, one linear layer; 4,865 parameters.

    Sound is processed as a spectrogram of a single band. Padding of sound does not change the logits.
    """

    def __init__(self, maps: int = 16) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([block(1, maps), block(maps, maps), block(maps, maps)])
        self.last = nn.Linear(maps, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return logits (B,) that a spectrogram (B, bands, frames) or waveforms (B, T) are adversarial.

        ``lengths`` (B,) are in samples.
        """
        counts = lengths if x.ndim == 2 else torch.full_like(lengths, x.shape[2])
        inside = sound_mask(counts, x.shape[-1])[:, None, None]
        maps = x.reshape(len(x), 1, -1, x.shape[-1])
        for layer in self.blocks:
            inside = inside[..., ::2]
            maps = layer(maps) * inside
        mean = maps.sum((2, 3)) / (inside.sum(3) * maps.shape[2]).squeeze(1)
        logits: Tensor = self.last(mean)
        return logits.squeeze(1)
