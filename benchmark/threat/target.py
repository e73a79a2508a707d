"""A target: what an attack may read of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import copy
from dataclasses import replace
from itertools import count
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from advser.errors import AccessError
from advser.models.base import EmotionModel, FrontEnd, Outputs
from advser.models.blocks import by_blocks
from advser.models.folding import folded
from advser.models.precision import computing, is_faster_in_bf16
from advser.models.terms import Domain, Precision
from advser.threat.model import Access
from advser.threat.objectives import Loss, cross_entropy, margin
from advser.threat.passes import Ascent, ForwardPass, PassCounter, TargetClips, finite, widened


def drawing(model: EmotionModel, seed: int) -> AbstractContextManager[object]:
    """Seed a randomised model, and restore torch's global generators afterwards."""
    return _seeded(seed) if model.randomised else nullcontext()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class Target:
    """What an attack may read of one model on one batch of clips, in one domain, at one access level.

    A context manager: inside it the model is in evaluation mode with frozen weights, its batch normalisation `folded`
    and the last gradient computed `by_blocks`. Afterwards modules, train flags and ``requires_grad`` are restored, and
    no weight has a gradient.

    A blind attack may have no model (None). A randomised model draws new numbers at each call, the same in each target,
    and leaves torch's global generators alone.

    Args:
        model: the model; None for a blind attack.
        lengths: of the clips (B,), in samples at 16 kHz, in every domain.
        domain: what ``x`` is in all methods.
        access: what may be read.
        objective: the loss that attacks ascend.
        precision: of passes that end in a gradient of ``x`` (not of features, `feature_gradient`); outputs are float32
            again. ``fp32`` leaves the caller's setting, and replaces ``bf16`` for a model that it does not speed up
            (`advser.models.precision.is_faster_in_bf16`).
        mask: true where ``x`` is not padding; None: everywhere. Broadcasts to ``x``.
        reference: the model's embeddings (B, D) of the clean clips, for objectives that compare with them; they reach
            an objective at white-box access only.
        names: of the clips in their corpus (B), for attacks that read files (`Attack.places`); empty for all others.
    """

    def __init__(
        self,
        model: EmotionModel | None,
        lengths: Tensor,
        domain: Domain,
        access: Access = "white-box",
        *,
        objective: Loss = cross_entropy,
        precision: Precision = "fp32",
        mask: Tensor | None = None,
        reference: Tensor | None = None,
        names: Sequence[str] = (),
    ) -> None:
        # A copy: an attack that writes to it must not move the ends at which its caller cuts clips.
        mask = None if mask is None or bool(mask.all()) else mask
        self._clips = TargetClips(lengths.clone(), mask, reference, tuple(names))
        self.domain = domain
        self.access = access
        self.objective = objective
        self.precision: Precision = precision if model is not None and is_faster_in_bf16(model) else "fp32"
        self._forwards, self._backwards = PassCounter(len(lengths)), PassCounter(len(lengths))
        self._model = model
        self._seeds = count()
        self._ahead: ForwardPass | None = None
        self._restore = ExitStack()

    def __enter__(self) -> Self:
        if self._model is None:
            return self
        with ExitStack() as undo:
            for module in self._model.modules():
                undo.callback(setattr, module, "training", module.training)
            for weight in self._model.parameters():
                undo.callback(weight.requires_grad_, weight.requires_grad)
            self._model.eval().requires_grad_(requires_grad=False)
            if all(module.folds for module in self._model.modules() if isinstance(module, EmotionModel)):
                undo.enter_context(folded(self._model))
            undo.enter_context(by_blocks(self._model))
            self._restore = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ahead = None
        self._restore.close()

    def at(self, rows: Tensor) -> Target:
        """Return the target of some clips of the batch; it counts on this target's counters.

        Args:
            rows: indices (b,), which may repeat a clip, as for an average over random transformations; or a mask (B,).
        """
        part = copy(self)
        part._clips, part._ahead = self._clips.at(rows), None
        return part

    @property
    def lengths(self) -> Tensor:
        """Lengths of the clips (B,), in samples at 16 kHz."""
        return self._clips.lengths

    @property
    def mask(self) -> Tensor | None:
        """True where ``x`` is not padding; None: everywhere. Broadcasts to ``x``."""
        return self._clips.mask

    @property
    def reference(self) -> Tensor | None:
        """The model's embeddings (B, D) of the clean clips; None unless the objective compares with them."""
        return self._clips.reference

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the clips in their corpus (B); empty unless the attack reads files."""
        return self._clips.names

    @property
    def forwards(self) -> Tensor:
        """Forward passes so far, per clip (B,)."""
        return self._forwards.per_clip()

    @property
    def backwards(self) -> Tensor:
        """Backward passes so far, per clip (B,)."""
        return self._backwards.per_clip()

    @property
    def frontend(self) -> FrontEnd:
        """The model's front end, for an attack that needs its frames and bands. White-box only.

        Processing of the sound before it is left out; the model's gradient passes through that anyway.
        """
        self._grant("frontend", "white-box")
        assert self._model is not None
        return self._model.frontend.core

    @property
    def has_detector(self) -> bool:
        """Whether the model has a detector of adversarial input."""
        return self._model is not None and self._model.detector is not None

    @property
    def randomised(self) -> bool:
        """Whether the model draws at random, so that two passes may differ."""
        return self._model is not None and self._model.randomised

    def logits(self, x: Tensor) -> Tensor:
        """Return logits (B, C). Access: white-box or scores."""
        self._grant("logits", "white-box", "scores")
        return self._outputs(x).logits

    def decisions(self, x: Tensor) -> Tensor:
        """Return the decided classes (B,). Access: white-box, scores or decisions."""
        self._grant("decisions", "white-box", "scores", "decisions")
        return self._outputs(x).logits.argmax(1)

    def decisions_ahead(self, x: Tensor) -> Tensor:
        """Return `decisions`, by a forward pass that the next gradient at the same ``x`` continues. White-box only.

        The pass has the target's ``precision``. A randomised model gets a separate pass.
        """
        self._grant("gradient", "white-box")
        if self.randomised:
            return self.decisions(x)
        self._ahead = self._to_ascend(x)
        return self._ahead.outputs.logits.detach().argmax(1)

    def embedding(self, x: Tensor) -> Tensor:
        """Return embeddings (B, D). White-box only."""
        self._grant("embedding", "white-box")
        return self._outputs(x).embedding

    def gradient(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> Tensor:
        """Return the gradient of each clip's loss with respect to ``x``, in its shape. White-box only.

        It is contiguous and the caller may overwrite it, as that of `loss_and_gradient` and `ascent`.
        """
        return self.loss_and_gradient(x, labels, loss)[1]

    def loss_and_gradient(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> tuple[Tensor, Tensor]:
        """Return each clip's loss (B,) and its gradient (0 in the padding), by one forward and one backward pass.

        ``loss`` is by default the target's ``objective``. White-box only.
        """
        losses, gradient, _ = self._ascend(x, labels, loss)
        return losses, gradient

    def ascent(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> Ascent:
        """Return loss, gradient and margin of one forward and one backward pass. White-box only."""
        losses, gradient, outputs = self._ascend(x, labels, loss)
        return Ascent(losses, gradient, margin(outputs, labels).detach())

    def _ascend(self, x: Tensor, labels: Tensor, loss: Loss | None) -> tuple[Tensor, Tensor, Outputs]:
        self._grant("gradient", "white-box")
        passed, self._ahead = self._ahead, None
        if passed is None or not passed.is_of(x):
            # Free an unusable pass before the next one takes as much memory.
            passed = None
            passed = self._to_ascend(x)
        outputs = passed.outputs
        with torch.enable_grad():
            losses = (loss or self.objective)(outputs, labels)
            (gradient,) = torch.autograd.grad(losses, passed.variable, torch.ones_like(losses))
        self._backwards.add(self._clips.rows)
        gradient = finite(gradient)
        gradient = gradient if self.mask is None else gradient * self.mask
        # The gradient of a mean, for example, is one expanded number.
        gradient = gradient.contiguous()
        return losses.detach(), gradient, outputs

    def _to_ascend(self, x: Tensor) -> ForwardPass:
        with torch.enable_grad():
            variable = x.detach().requires_grad_()
            with computing(self.precision, x.device):
                outputs = self._forward(variable)
            return ForwardPass(x, x._version, variable, outputs if self.precision == "fp32" else widened(outputs))

    def feature_gradient(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of waveforms ``x`` and the gradient of each clip's loss with respect to them.

        Both are (B, bands, frames); the gradient is 0 in frames of padding. One forward and one backward pass. For
        attacks on waveforms that continue from the features by themselves. White-box only.

        Raises:
            AccessError: if access is not white-box, the domain is not the waveform, or the features are no spectrogram.
        """
        self._grant("feature gradient", "white-box")
        assert self._model is not None
        if self.domain != "waveform":
            raise AccessError(f"feature gradient: domain is '{self.domain}', expected waveform")
        if not self._model.spectrogram:
            raise AccessError(
                f"feature gradient: {type(self._model).__name__} has no spectrogram, expected a model with one"
            )
        with torch.no_grad():
            features = self._model.inputs(x, self.lengths, "spectrogram")
            sounding = self._model.frontend.mask(x, self.lengths)
        self._forwards.add(self._clips.rows)
        with torch.enable_grad():
            variable = features.detach().clone().requires_grad_()
            losses = self.objective(self._classify(variable, "spectrogram"), labels)
            (gradient,) = torch.autograd.grad(losses.sum(), variable)
        self._backwards.add(self._clips.rows)
        return features, gradient * sounding

    @torch.no_grad()
    def loss(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> Tensor:
        """Return each clip's loss (B,), by default the ``objective``, by one forward pass.

        Access: white-box or scores.
        """
        self._grant("loss", "white-box", "scores")
        return (loss or self.objective)(self._forward(x), labels)

    def granted(self, x: Tensor) -> Outputs:
        """Return the outputs without what the access hides, for an attack in another process.

        Access ``scores``: logits and detection. ``decisions``: 1 for the decided class, else 0. The embedding is empty.
        """
        self._grant("outputs", "scores", "decisions")
        outputs = self._outputs(x)
        embedding = outputs.embedding.new_zeros(len(x), 0)
        if self.access == "scores":
            return replace(outputs, embedding=embedding)
        decided = torch.zeros_like(outputs.logits).scatter(1, outputs.logits.argmax(1, keepdim=True), 1.0)
        return Outputs(decided, embedding, None)

    @torch.no_grad()
    def _outputs(self, x: Tensor) -> Outputs:
        return self._forward(x)

    def _forward(self, x: Tensor) -> Outputs:
        self._forwards.add(self._clips.rows)
        return self._classify(x, self.domain)

    def _classify(self, x: Tensor, domain: Domain) -> Outputs:
        assert self._model is not None, "only blind attacks have no model"
        with drawing(self._model, next(self._seeds)):
            outputs = self._model.outputs(x, self.lengths, domain)
        reference = self.reference if self.access == "white-box" else None
        return outputs if outputs.reference is reference else replace(outputs, reference=reference)

    def _grant(self, what: str, *levels: Access) -> None:
        if self.access not in levels:
            raise AccessError(f"{what}: access is '{self.access}', expected {' or '.join(levels)}")
