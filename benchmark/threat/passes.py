"""Passes through a model: their results, their count, and the clips that they are about."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advser.models.base import Outputs


@dataclass(frozen=True)
class Ascent:
    """The result of one forward and one backward pass, per clip.

    Attributes:
        loss: (B,).
        gradient: of the loss with respect to the input, in its shape; 0 in the padding and where it is not finite.
        margin: `margin` of the same outputs (B,): above 0 where the clip is misclassified.
    """

    loss: Tensor
    gradient: Tensor
    margin: Tensor


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass whose gradient can still be taken.

    Attributes:
        x: the input.
        version: how often the input had been written to.
        variable: the input as a leaf of the graph.
        outputs: the model's outputs.
    """

    x: Tensor
    version: int
    variable: Tensor
    outputs: Outputs

    def is_of(self, x: Tensor) -> bool:
        """Return whether ``x`` is the input of this pass, unchanged since."""
        return self.x is x and self.version == x._version


class PassCounter:
    """Counts passes per clip; passes of the whole batch in one integer, which is quicker than a tensor."""

    def __init__(self, clips: int) -> None:
        self._of_all = 0
        self._of_some = torch.zeros(clips, dtype=torch.long)

    def add(self, rows: Tensor | None) -> None:
        """Count one pass of the clips at these indices, a repeated clip repeatedly; of all clips if None."""
        if rows is None:
            self._of_all += 1
        else:
            # Indexed addition by ``+=`` would count a clip once.
            self._of_some.index_add_(0, rows, torch.ones_like(rows))

    def per_clip(self) -> Tensor:
        """Return the number of passes of each clip (B,)."""
        return self._of_some + self._of_all


@dataclass(frozen=True)
class TargetClips:
    """What a target knows of its clips: the attributes of `Target` with these names, and their indices in the batch."""

    lengths: Tensor
    mask: Tensor | None
    reference: Tensor | None
    names: tuple[str, ...]
    rows: Tensor | None = None

    def at(self, rows: Tensor) -> TargetClips:
        """Return some of the clips (indices, or a mask)."""
        rows = torch.arange(len(self.lengths), device=rows.device)[rows]
        return TargetClips(
            lengths=self.lengths[rows],
            mask=None if self.mask is None else self.mask[rows],
            reference=None if self.reference is None else self.reference[rows],
            names=tuple(self.names[row] for row in rows.tolist()) if self.names else (),
            rows=rows.cpu() if self.rows is None else self.rows[rows.cpu()],
        )


def widened(outputs: Outputs) -> Outputs:
    """Return outputs in float32, for the losses."""
    detection = None if outputs.detection is None else outputs.detection.float()
    return replace(outputs, logits=outputs.logits.float(), embedding=outputs.embedding.float(), detection=detection)


def finite(gradient: Tensor) -> Tensor:
    """Return a gradient with 0 for non-finite values: one such value would spoil the direction of all others."""
    # On a CPU reading everything is quicker than writing it; on a GPU the test would wait for the device.
    if gradient.device.type == "cpu" and math.isfinite(gradient.sum().item()):
        return gradient
    return gradient.nan_to_num(0.0, 0.0, 0.0)
