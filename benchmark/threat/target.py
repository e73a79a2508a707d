"""What an attacker may see of a model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
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


def drawing(model: EmotionModel, seed: int) -> AbstractContextManager[object]:
    """Have a model that draws at random draw what ``seed`` says, and leave torch's global generators as they were."""
    return _seeded(seed) if model.randomised else nullcontext()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Ascent:
    """What one forward and one backward pass tell of each clip.

    Attributes:
        loss: (B,).
        gradient: of the loss with respect to the input, in its shape; 0 in the padding, and where it is not finite.
        margin: `margin` of the same outputs (B,): above 0 where the clip is misread.
    """

    loss: Tensor
    gradient: Tensor
    margin: Tensor


@dataclass(frozen=True)
class _Pass:
    """A forward pass that a gradient can still be taken of.

    Attributes:
        x: what was asked about.
        version: how often it had been written to by then.
        variable: what stood for it, of which the gradient is taken.
        outputs: the answer.
    """

    x: Tensor
    version: int
    variable: Tensor
    outputs: Outputs

    def is_of(self, x: Tensor) -> bool:
        """Tell whether ``x`` is what was asked about, and as it was then."""
        return self.x is x and self.version == x._version


class _Passes:
    """Counts passes of ``clips`` clips; those of the whole batch as one number, quicker than a tensor of them."""

    def __init__(self, clips: int) -> None:
        self._of_all = 0
        self._of_some = torch.zeros(clips, dtype=torch.long)

    def add(self, rows: Tensor | None) -> None:
        """Count one pass of the clips at these indices, a clip as often as it is there; of all if None."""
        if rows is None:
            self._of_all += 1
        else:
            # Indexed addition by ``+=`` would count a clip once.
            self._of_some.index_add_(0, rows, torch.ones_like(rows))

    def per_clip(self) -> Tensor:
        """Return how many passes each clip had (B,)."""
        return self._of_some + self._of_all


class Target:
    """One batch of clips before one model, through one domain, at one access level.

    Used as a context manager: inside it the model is in evaluation mode with frozen weights, its batch normalisation
    `folded` and the last gradient computed `by_blocks`; afterwards modules, train flags and ``requires_grad`` are as
    before, and no weight has a gradient left.

    A blind attack may stand before no model at all (None). A model that draws at random draws anew at each call, the
    same in each target, and without touching torch's global generators.

    Attributes:
        lengths: of the clips (B,), in samples at 16 kHz, whatever the domain.
        objective: the loss that attacks ascend.
        precision: of the passes that end in a gradient of ``x`` (not of the features, `feature_gradient`), of which
            outputs are float32 again; ``fp32`` leaves them, like all other passes, to what the caller has set, and
            stands in place of ``bf16`` for a model that it does not make quicker
            (`advser.models.precision.is_faster_in_bf16`).
        mask: true where ``x`` is more than padding; None: everywhere. Broadcasts to ``x``.
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
        # The attack's to read: what it writes there must not decide where its caller cuts clips.
        self.lengths = lengths.clone()
        self.domain = domain
        self.access = access
        self.objective = objective
        self.precision: Precision = precision if model is not None and is_faster_in_bf16(model) else "fp32"
        self.mask = None if mask is None or bool(mask.all()) else mask
        self.reference = reference
        self.names = tuple(names)
        self._forwards, self._backwards = _Passes(len(lengths)), _Passes(len(lengths))
        self._model = model
        self._rows: Tensor | None = None
        self._seeds = count()
        self._ahead: _Pass | None = None
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
            rows: indices (b,), of which a clip may have several, as for an average over random transformations; or true
                where a clip is meant (B,).
        """
        rows = torch.arange(len(self.lengths), device=rows.device)[rows]
        part = copy(self)
        part._ahead = None
        part.lengths = self.lengths[rows]
        part.mask = None if self.mask is None else self.mask[rows]
        part.reference = None if self.reference is None else self.reference[rows]
        part.names = tuple(self.names[row] for row in rows.tolist()) if self.names else ()
        part._rows = rows.cpu() if self._rows is None else self._rows[rows.cpu()]
        return part

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
        """What makes the model's features, for an attack that must know its frames and bands. White-box only.

        Behind any processing of the sound, which the model's gradient goes through anyway.
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
        """Whether the model draws at random, so that it may answer otherwise when it is asked again."""
        return self._model is not None and self._model.randomised

    def logits(self, x: Tensor) -> Tensor:
        """Return logits (B, C). Needs access to scores."""
        self._grant("logits", "white-box", "scores")
        return self._outputs(x).logits

    def decisions(self, x: Tensor) -> Tensor:
        """Return the classes decided for (B,). Needs access to decisions, the least there is."""
        self._grant("decisions", "white-box", "scores", "decisions")
        return self._outputs(x).logits.argmax(1)

    def decisions_ahead(self, x: Tensor) -> Tensor:
        """Return what `decisions` does, by a forward pass that the next gradient at the same ``x`` goes on from.

        White-box only. A model that draws at random is asked anew then. It is a pass of the target's ``precision``.
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

        It is contiguous, and the caller's, to write over too, as is that of `loss_and_gradient` and `ascent`.
        """
        return self.loss_and_gradient(x, labels, loss)[1]

    def loss_and_gradient(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> tuple[Tensor, Tensor]:
        """Return each clip's loss (B,) and its gradient, which is 0 in the padding: one forward and one backward pass.

        ``loss`` is by default the target's ``objective``. White-box only.
        """
        losses, gradient, _ = self._ascend(x, labels, loss)
        return losses, gradient

    def ascent(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> Ascent:
        """Return what `loss_and_gradient` does, and the margin of the same forward pass. White-box only."""
        losses, gradient, outputs = self._ascend(x, labels, loss)
        return Ascent(losses, gradient, margin(outputs, labels).detach())

    def _ascend(self, x: Tensor, labels: Tensor, loss: Loss | None) -> tuple[Tensor, Tensor, Outputs]:
        self._grant("gradient", "white-box")
        passed, self._ahead = self._ahead, None
        if passed is None or not passed.is_of(x):
            # One that is of no use is forgotten before the next one takes as much memory.
            passed = None
            passed = self._to_ascend(x)
        outputs = passed.outputs
        with torch.enable_grad():
            losses = (loss or self.objective)(outputs, labels)
            (gradient,) = torch.autograd.grad(losses, passed.variable, torch.ones_like(losses))
        self._backwards.add(self._rows)
        gradient = _finite(gradient)
        gradient = gradient if self.mask is None else gradient * self.mask
        # That of a mean, say, is one number seen many times.
        gradient = gradient.contiguous()
        return losses.detach(), gradient, outputs

    def _to_ascend(self, x: Tensor) -> _Pass:
        with torch.enable_grad():
            variable = x.detach().requires_grad_()
            with computing(self.precision, x.device):
                outputs = self._forward(variable)
            return _Pass(x, x._version, variable, outputs if self.precision == "fp32" else _widened(outputs))

    def feature_gradient(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of waveforms ``x`` and the gradient of each clip's loss with respect to them.

        Both are (B, bands, frames); the gradient is 0 in frames that stem from no sound. One forward and one backward
        pass. For attacks on waveforms that go on from the features by themselves. White-box only.

        Raises:
            AccessError: also if the domain is not the waveform, or the model's features are no spectrogram.
        """
        self._grant("feature gradient", "white-box")
        assert self._model is not None
        if self.domain != "waveform":
            raise AccessError(f"feature gradient: domain is '{self.domain}', needed: waveform")
        if not self._model.spectrogram:
            raise AccessError(f"feature gradient: {type(self._model).__name__} has no spectrogram, needed: one")
        with torch.no_grad():
            features = self._model.inputs(x, self.lengths, "spectrogram")
            sounding = self._model.frontend.mask(x, self.lengths)
        self._forwards.add(self._rows)
        with torch.enable_grad():
            variable = features.detach().clone().requires_grad_()
            losses = self.objective(self._classify(variable, "spectrogram"), labels)
            (gradient,) = torch.autograd.grad(losses.sum(), variable)
        self._backwards.add(self._rows)
        return features, gradient * sounding

    @torch.no_grad()
    def loss(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> Tensor:
        """Return each clip's loss (B,), by default the ``objective``: one forward pass. Needs access to scores."""
        self._grant("loss", "white-box", "scores")
        return (loss or self.objective)(self._forward(x), labels)

    @torch.no_grad()
    def _outputs(self, x: Tensor) -> Outputs:
        return self._forward(x)

    def _forward(self, x: Tensor) -> Outputs:
        self._forwards.add(self._rows)
        return self._classify(x, self.domain)

    def _classify(self, x: Tensor, domain: Domain) -> Outputs:
        assert self._model is not None, "only blind attacks stand before no model"
        with drawing(self._model, next(self._seeds)):
            outputs = self._model.outputs(x, self.lengths, domain)
        reference = self.reference if self.access == "white-box" else None
        return outputs if outputs.reference is reference else replace(outputs, reference=reference)

    def _grant(self, what: str, *levels: Access) -> None:
        if self.access not in levels:
            raise AccessError(f"{what}: access is '{self.access}', needed: {' or '.join(levels)}")


def _widened(outputs: Outputs) -> Outputs:
    """Return outputs in float32: losses are taken of them there."""
    detection = None if outputs.detection is None else outputs.detection.float()
    return replace(outputs, logits=outputs.logits.float(), embedding=outputs.embedding.float(), detection=detection)


def _finite(gradient: Tensor) -> Tensor:
    """Return a gradient with 0 for what is not finite: one such value would undo the direction of all others."""
    # On a GPU the answer would have to be waited for; on a CPU, reading it all is quicker than writing it anew.
    if gradient.device.type == "cpu" and math.isfinite(gradient.sum().item()):
        return gradient
    return gradient.nan_to_num(0.0, 0.0, 0.0)
