"""The gradient of a spectrogram or of sound through a convolution of one channel, a block of values at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from advser.models.folding import watched

VALUES: Final = 16
"""Values in a block: as many channels as the library computes at a time."""


@contextmanager
def by_blocks(model: nn.Module) -> Iterator[None]:
    """Let convolutions of one channel compute the gradient of their input block by block; undo it afterwards.

    That gradient is a convolution to one channel, for which PyTorch's library for CPUs computes 16: in attacks on
    `cnn4` it took a fifth of the time. A convolution that strides from block to block, and whose channels are the
    values of a block, finds the same numbers in a third of it. Of weights that learn, gradients are taken as ever; what
    has a stride, a dilation or hooks, and all that is on a GPU, stays as it is. Not for ``torch.func``.
    """
    with ExitStack() as undo:
        for module in list(model.modules()):
            if type(module) is nn.Conv2d and _suits(module):
                # Of this object alone, which keeps its weights for those who look for them.
                module.forward = partial(_convolved, module)  # type: ignore[method-assign]
                undo.callback(delattr, module, "forward")
        yield


def _suits(convolution: nn.Conv2d) -> bool:
    plain = {*convolution.stride, *convolution.dilation} == {1} and convolution.padding_mode == "zeros"
    ours = convolution.in_channels == 1 and "forward" not in vars(convolution) and not watched(convolution)
    weight, room = convolution.weight, zip(_margin(convolution), convolution.kernel_size, strict=True)
    return plain and ours and weight.device.type == "cpu" and all(margin < size for margin, size in room)


def _margin(convolution: nn.Conv2d) -> tuple[int, int]:
    """Return how many zeros are put before the input, above and at the left."""
    height, width = convolution.kernel_size
    if convolution.padding == "same":
        return (height - 1) // 2, (width - 1) // 2
    above, left = (0, 0) if isinstance(convolution.padding, str) else convolution.padding
    return above, left


def _convolved(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    weight, bias = convolution.weight, convolution.bias
    frozen = not (weight.requires_grad or (bias is not None and bias.requires_grad))
    y: Tensor
    if torch.is_grad_enabled() and x.requires_grad and x.ndim == 4 and frozen:
        y = _ByBlocks.apply(x, weight, bias, convolution)  # type: ignore[no-untyped-call]
    else:
        y = convolution._conv_forward(x, weight, bias)
    return y


class _ByBlocks(torch.autograd.Function):
    """A convolution from one channel, whose weight and bias are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, convolution: nn.Conv2d) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.margin, ctx.shape, ctx.dtype = _margin(convolution), x.shape, x.dtype
        y: Tensor = convolution._conv_forward(x, weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        block, (height, width) = _block(weight), ctx.shape[2:]
        # Where blocks do not end with the input, one more on every side: zeros that need no copy of the gradient.
        spare = [side if length % side else 0 for side, length in zip(block, (height, width), strict=True)]
        reach = zip(weight.shape[2:], ctx.margin, spare, strict=True)
        padding = [size - 1 - zeros + more for size, zeros, more in reach]
        found = _joined(conv2d(gradient, _kernel(weight, block).to(gradient.dtype), None, block, padding), block)
        above, left = spare
        found = found[:, :, above : above + height, left : left + width]
        return found.to(ctx.dtype, memory_format=torch.contiguous_format), None, None, None


def _block(weight: Tensor) -> tuple[int, int]:
    """Return the height and width of a block, for a weight (channels, 1, height, width)."""
    return (1, VALUES) if weight.shape[2] == 1 else (4, VALUES // 4)


def _kernel(weight: Tensor, block: tuple[int, int]) -> Tensor:
    """Return the weight (values, channels, height, width) that turns gradients of the output into blocks."""
    turned = weight.squeeze(1).flip(1, 2)
    channels, height, width = turned.shape
    down, right = block
    kernel = turned.new_zeros(VALUES, channels, height + down - 1, width + right - 1)
    for value, moved in enumerate(kernel):
        row, column = divmod(value, right)
        moved[:, row : row + height, column : column + width] = turned
    return kernel.contiguous(memory_format=torch.channels_last)


def _joined(blocks: Tensor, block: tuple[int, int]) -> Tensor:
    """Return blocks (B, values, rows, columns) side by side: (B, 1, height, width)."""
    count, _, rows, columns = blocks.shape
    down, right = block
    side_by_side = blocks.view(count, down, right, rows, columns).permute(0, 3, 1, 4, 2)
    return side_by_side.reshape(count, 1, rows * down, columns * right)
