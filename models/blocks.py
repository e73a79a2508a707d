"""The input gradient of a convolution with one input channel, computed a block of values at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from advser.models.folding import has_hooks

VALUES: Final = 16
"""Values per block: the number of channels that PyTorch's library for CPUs computes at a time."""


@contextmanager
def by_blocks(model: nn.Module) -> Iterator[None]:
    """Compute the input gradient of convolutions with one input channel block by block, within the context.

    This gradient is a convolution to one channel, for which PyTorch's library for CPUs computes 16: it took a fifth of
    the time of attacks on `cnn4`. A convolution with a stride of one block, whose channels are the values of a block,
    returns the same numbers in a third of that time. Trainable weights get their usual gradients. Convolutions with a
    stride, a dilation or hooks, and all on a GPU, do not change. ``torch.func`` is not supported.
    """
    with ExitStack() as undo:
        for module in list(model.modules()):
            if type(module) is nn.Conv2d and _is_suitable(module):
                # Replace the method, not the module: other code may still read the module's weights.
                module.forward = partial(_convolved, module)  # type: ignore[method-assign]
                undo.callback(delattr, module, "forward")
        yield


def _is_suitable(convolution: nn.Conv2d) -> bool:
    plain = {*convolution.stride, *convolution.dilation} == {1} and convolution.padding_mode == "zeros"
    single_channel = convolution.in_channels == 1
    untouched = "forward" not in vars(convolution) and not has_hooks(convolution)
    padding = zip(_margin(convolution), convolution.kernel_size, strict=True)
    narrow = all(margin < size for margin, size in padding)
    return plain and single_channel and untouched and convolution.weight.device.type == "cpu" and narrow


def _margin(convolution: nn.Conv2d) -> tuple[int, int]:
    """Return the number of zeros above and left of the input."""
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
    """A convolution with one input channel and frozen weight and bias."""

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
        # If the blocks do not fill the input exactly, add one on each side: padding needs no copy of the gradient.
        above, left = (side if length % side else 0 for side, length in zip(block, (height, width), strict=True))
        sides = zip(weight.shape[2:], ctx.margin, (above, left), strict=True)
        padding = [size - 1 - zeros + extra for size, zeros, extra in sides]
        blocks = conv2d(gradient, _kernel(weight, block).to(gradient.dtype), None, block, padding)
        result = _joined(blocks, block)[:, :, above : above + height, left : left + width]
        return result.to(ctx.dtype, memory_format=torch.contiguous_format), None, None, None


def _block(weight: Tensor) -> tuple[int, int]:
    """Return the height and width of a block for a weight (channels, 1, height, width)."""
    return (1, VALUES) if weight.shape[2] == 1 else (4, VALUES // 4)


def _kernel(weight: Tensor, block: tuple[int, int]) -> Tensor:
    """Return the weight (values, channels, height, width) of the convolution from output gradients to blocks."""
    turned = weight.squeeze(1).flip(1, 2)
    channels, height, width = turned.shape
    down, right = block
    kernel = turned.new_zeros(VALUES, channels, height + down - 1, width + right - 1)
    for value, moved in enumerate(kernel):
        row, column = divmod(value, right)
        moved[:, row : row + height, column : column + width] = turned
    return kernel.contiguous(memory_format=torch.channels_last)


def _joined(blocks: Tensor, block: tuple[int, int]) -> Tensor:
    """Return blocks (B, values, rows, columns) side by side, (B, 1, height, width)."""
    count, _, rows, columns = blocks.shape
    down, right = block
    side_by_side = blocks.view(count, down, right, rows, columns).permute(0, 3, 1, 4, 2)
    return side_by_side.reshape(count, 1, rows * down, columns * right)
