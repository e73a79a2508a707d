"""Batch normalisation folded into the convolution before it, for as long as a model is only asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import get_args

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Convolution = nn.Conv1d | nn.Conv2d
Normalisation = nn.BatchNorm1d | nn.BatchNorm2d


class _Folded(nn.Module):
    """Stands for a convolution and the normalisation after it; whoever looks for their weights here is told."""

    def __init__(self, convolution: Convolution) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        y: Tensor = self.convolution(x)
        return y


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Let one convolution stand for each convolution and the batch normalisation after it; undo it afterwards.

    In evaluation mode both are linear: the outputs are the same but for rounding, and two passes over maps of the
    convolution's size are saved. The model must be in evaluation mode meanwhile. Folded are neighbours in an
    `nn.Sequential` that occur in the model once and have no hooks; all others stay as they are. A model that takes such
    a sequence apart (``self.body[:1](x)``) would see another one: it says ``folds = False``.
    """
    with ExitStack() as undo:
        for sequence, place, convolution, normalisation in list(_neighbours(model)):
            undo.callback(sequence.__setitem__, place, convolution)
            undo.callback(sequence.__setitem__, place + 1, normalisation)
            sequence[place] = _Folded(fuse_conv_bn_eval(convolution, normalisation))
            sequence[place + 1] = nn.Identity()
        yield


def _neighbours(model: nn.Module) -> Iterator[tuple[nn.Sequential, int, Convolution, Normalisation]]:
    """Yield the sequences and places of convolutions and of the normalisations after them that can be folded."""
    modules = list(model.modules())
    uses = Counter(id(child) for module in modules for child in module._modules.values())
    for sequence in modules:
        # Subclasses, here and below, may do otherwise.
        if type(sequence) is nn.Sequential:
            for place, (first, second) in enumerate(pairwise(sequence)):
                if isinstance(first, Convolution) and isinstance(second, Normalisation):
                    alone = all(uses[id(one)] == 1 and not watched(one) for one in (first, second))
                    if alone and _plain(first, second):
                        yield sequence, place, first, second


def _plain(convolution: Convolution, normalisation: Normalisation) -> bool:
    """Tell whether the two do what their names say, the latter by running statistics alone."""
    known = type(convolution) in get_args(Convolution) and type(normalisation) in get_args(Normalisation)
    return known and not normalisation.training and normalisation.running_mean is not None


def normalise_as_trained(model: nn.Module) -> None:
    """Give batch normalisations weights and statistics as after training, drawn from torch's global generator.

    Those of an untrained model leave things as they are, so that nobody sees whether they are folded.
    """
    for module in model.modules():
        if isinstance(module, Normalisation):
            if module.affine:
                nn.init.normal_(module.weight, 1, 0.3)
                nn.init.normal_(module.bias, 0, 0.3)
            if module.running_mean is not None and module.running_var is not None:
                nn.init.normal_(module.running_mean, 0, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 2)


def watched(module: nn.Module) -> bool:
    """Tell whether somebody listens to a module's passes."""
    before = module._forward_pre_hooks or module._backward_pre_hooks
    return bool(before or module._forward_hooks or module._backward_hooks)
