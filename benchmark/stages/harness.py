"""The harness: runs one attack on one source model and admits what the attack returns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advser.attacks.base import Attack
from advser.attacks.learned import LearnedAttack
from advser.audio.clips import sound_mask
from advser.audio.pcm import Pcm, to_pcm
from advser.errors import ContractError
from advser.models.base import EmotionModel, Outputs
from advser.models.terms import Domain, Precision
from advser.stages.global_state import global_state_kept
from advser.stages.separate_attack import SeparateAttack
from advser.threat.admission import admissible
from advser.threat.budget import Budget
from advser.threat.model import Access, Labels
from advser.threat.objectives import Loss, cross_entropy
from advser.threat.target import Target, drawing


@dataclass(frozen=True)
class Crafted:
    """The result of one batch.

    Attributes:
        audio: the judged sound of each clip; None if features cannot be turned back into sound.
        features: perturbed features (B, bands, frames); None in the waveform domain.
        seconds: seconds per clip.
        forwards, backwards: passes per clip (B,).
    """

    audio: list[Pcm] | None
    features: Tensor | None
    seconds: float
    forwards: Tensor
    backwards: Tensor


@dataclass(frozen=True)
class ClipBatch:
    """Clean clips that an attack perturbs.

    Attributes:
        waveform: (B, T) on the 16-bit grid, zero after each clip's end.
        lengths: (B,) in samples.
        targets: true classes (B,).
        names: of the clips in their corpus, for attacks that read files (`Attack.places`); empty for all others.
    """

    waveform: Tensor
    lengths: Tensor
    targets: Tensor
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Harness:
    """Runs one attack on one source model.

    Attributes:
        attack: the attack, in this process or in its own.
        model: the source; None for blind attacks on waveforms.
        domain: what is perturbed.
        access: what the attack may read.
        labels: the labels that the attack is given.
        budget: the bound that is enforced; None without one.
        objective: the loss that the attack ascends.
        precision: of its gradients.
        network: the trained network of a `LearnedAttack`; None while it is trained.
        needs_reference: whether the objective compares with the embeddings of the clean clips.
    """

    attack: Attack | SeparateAttack
    model: EmotionModel | None
    domain: Domain
    access: Access
    labels: Labels
    budget: Budget | None
    objective: Loss = cross_entropy
    precision: Precision = "fp32"
    network: nn.Module | None = None
    needs_reference: bool = False

    def craft(self, batch: ClipBatch, generator: torch.Generator) -> Crafted:
        """Attack one batch.

        Raises:
            ContractError: if the attack breaks its contract.
        """
        with torch.no_grad():
            x, mask = self.inputs(batch)
            labels = self._labels(x, batch)
            target = self._target(x, mask, batch)
        with global_state_kept(x), target:
            start = _now(x)
            perturbed = self._perturb(target, x.clone(), labels, generator)
            seconds = (_now(x) - start) / len(batch.lengths)
        with torch.no_grad():
            perturbed = self._admit(perturbed, x, mask)
            in_sound = self.domain == "waveform"
            audio = _clips(perturbed, batch.lengths) if in_sound else self._resynthesise(batch, perturbed)
            features = None if in_sound else perturbed.cpu()
        return Crafted(audio, features, seconds, target.forwards, target.backwards)

    def open(self, batch: ClipBatch) -> tuple[Target, Tensor, Tensor]:
        """Return the target for a batch, what is perturbed, and the labels that the attack is given."""
        x, mask = self.inputs(batch)
        return self._target(x, mask, batch), x, self._labels(x, batch)

    def inputs(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Return what is perturbed of clean clips, and the mask that broadcasts to it, false in padding."""
        if self.domain == "waveform":
            return batch.waveform, sound_mask(batch.lengths, batch.waveform.shape[1])
        assert self.model is not None
        features = self.model.inputs(batch.waveform, batch.lengths, self.domain)
        return features, self.model.frontend.mask(batch.waveform, batch.lengths)

    def _perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        if isinstance(self.attack, LearnedAttack):
            assert self.network is not None
            return self.attack.apply(self.network, x)
        return self.attack.perturb(target, x, labels, generator)

    def _target(self, x: Tensor, mask: Tensor, batch: ClipBatch) -> Target:
        return Target(
            self.model,
            batch.lengths,
            self.domain,
            self.access,
            objective=self.objective,
            precision=self.precision,
            mask=mask,
            reference=self._clean_outputs(x, batch).embedding if self.needs_reference else None,
            names=batch.names,
        )

    def _labels(self, x: Tensor, batch: ClipBatch) -> Tensor:
        if self.labels == "true":
            return batch.targets
        if self.labels == "none" or self.model is None:
            return torch.zeros_like(batch.targets)
        logits = self._clean_outputs(x, batch).logits
        return logits.argmax(1) if self.labels == "predicted" else logits.softmax(1)

    def _clean_outputs(self, x: Tensor, batch: ClipBatch) -> Outputs:
        assert self.model is not None
        with drawing(self.model, 0):
            return self.model.outputs(x, batch.lengths, self.domain)

    def _admit(self, perturbed: object, x: Tensor, mask: Tensor) -> Tensor:
        if not isinstance(perturbed, Tensor) or perturbed.shape != x.shape:
            got = tuple(perturbed.shape) if isinstance(perturbed, Tensor) else type(perturbed).__name__
            raise ContractError(f"perturb returned {got}, expected a tensor of shape {tuple(x.shape)}")
        if perturbed.is_complex():
            raise ContractError(f"perturb returned {perturbed.dtype}, expected real numbers")
        perturbed = perturbed.detach().to(x)
        if not perturbed.isfinite().all():
            raise ContractError(f"perturb returned {int((~perturbed.isfinite()).sum())} values that are not finite")
        return admissible(perturbed, x, mask, self.domain, self.budget)

    def _resynthesise(self, batch: ClipBatch, features: Tensor) -> list[Pcm] | None:
        assert self.model is not None
        if not self.model.frontend.resynthesises:
            return None
        sound = self.model.frontend.resynthesise(batch.waveform, batch.lengths, features)
        return _clips(sound, batch.lengths)


def _now(x: Tensor) -> float:
    """Return the time in seconds, after all work on the device of ``x`` is done."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


def _clips(waveform: Tensor, lengths: Tensor) -> list[Pcm]:
    return [to_pcm(row[:length].numpy()) for row, length in zip(waveform.cpu(), lengths.tolist(), strict=True)]
