"""Batch normalisation folded into the convolution before it, while a model is only evaluated."""

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
    """A convolution and the normalisation after it; access to their own weights raises AttributeError."""

    def __init__(self, convolution: Convolution) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised convolution of ``x``."""
        y: Tensor = self.convolution(x)
        return y


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Replace each convolution and the batch normalisation after it by one convolution, within the context.

    The model must be in evaluation mode. Both are linear then: outputs are equal but for rounding, without two passes
    over maps of the convolution's size. Only neighbours in an `nn.Sequential` that occur once in the model and have no
    hooks are folded. A model that uses part of such a sequence (``self.body[:1](x)``) must set ``folds = False``.
    """
    with ExitStack() as undo:
        for sequence, place, convolution, normalisation in list(_foldable(model)):
            undo.callback(sequence.__setitem__, place, convolution)
            undo.callback(sequence.__setitem__, place + 1, normalisation)
            sequence[place] = _Folded(fuse_conv_bn_eval(convolution, normalisation))
            sequence[place + 1] = nn.Identity()
        yield


def _foldable(model: nn.Module) -> Iterator[tuple[nn.Sequential, int, Convolution, Normalisation]]:
    """Yield the sequence, the index, and both modules of each convolution and normalisation that can be folded."""
    modules = list(model.modules())
    uses = Counter(id(child) for module in modules for child in module._modules.values())
    for sequence in modules:
        # Here and in `_is_plain`, a subclass may compute something else.
        if type(sequence) is nn.Sequential:
            for place, (first, second) in enumerate(pairwise(sequence)):
                if isinstance(first, Convolution) and isinstance(second, Normalisation):
                    used_once = all(uses[id(module)] == 1 and not has_hooks(module) for module in (first, second))
                    if used_once and _is_plain(first, second):
                        yield sequence, place, first, second


def _is_plain(convolution: Convolution, normalisation: Normalisation) -> bool:
    """Return whether both are PyTorch's own classes, and the normalisation uses running statistics alone."""
    builtin = type(convolution) in get_args(Convolution) and type(normalisation) in get_args(Normalisation)
    return builtin and not normalisation.training and normalisation.running_mean is not None


def normalise_as_trained(model: nn.Module) -> None:
    """Set weights and statistics of batch normalisations as after training, from torch's global generator.

    An untrained batch normalisation is the identity, which would hide an error of folding.
    """
    for module in model.modules():
        if isinstance(module, Normalisation):
            if module.affine:
                nn.init.normal_(module.weight, 1, 0.3)
                nn.init.normal_(module.bias, 0, 0.3)
            if module.running_mean is not None and module.running_var is not None:
                nn.init.normal_(module.running_mean, 0, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 2)


def has_hooks(module: nn.Module) -> bool:
    """Return whether a module has forward or backward hooks."""
    before = module._forward_pre_hooks or module._backward_pre_hooks
    return bool(before or module._forward_hooks or module._backward_hooks)
