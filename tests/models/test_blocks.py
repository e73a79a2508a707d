"""Gradients by blocks equal PyTorch's own, and the context restores the model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import grad, gradcheck

from advser.models.blocks import by_blocks
from advser.models.cnn4 import CNN4
from advser.models.terms import Precision
from advser.threat.target import Target

WARNING = "ignore:Using padding='same' with even kernel lengths:UserWarning"


def replaced(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if "forward" in vars(module)]


@pytest.mark.filterwarnings(WARNING)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_the_gradient_of_the_input_is_that_of_the_convolution(data: st.DataObject) -> None:
    kernel = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 20)), label="kernel")
    margins = st.tuples(*(st.integers(0, size - 1) for size in kernel))
    padding = data.draw(st.one_of(st.sampled_from(["same", "valid"]), margins), label="padding")
    height, width = (data.draw(st.integers(size, size + 40), label="input") for size in kernel)
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 3, kernel, padding=padding, bias=data.draw(st.booleans(), label="bias"))
    model = nn.Sequential(convolution).double().requires_grad_(requires_grad=False)
    x = torch.randn(2, 1, height, width, dtype=torch.float64).requires_grad_()
    expected = model(x)
    direction = torch.randn_like(expected)
    with by_blocks(model):
        assert replaced(model) == [convolution]
        y = model(x)
        assert torch.equal(y, expected)
        torch.testing.assert_close(grad(y, x, direction), grad(expected, x, direction))
    assert replaced(model) == []


def test_second_derivatives_are_supported() -> None:
    model = nn.Conv2d(1, 2, (3, 2), padding=1).double().requires_grad_(requires_grad=False)
    x = torch.randn(1, 1, 5, 6, dtype=torch.float64).requires_grad_()
    with by_blocks(model):
        assert gradcheck(model, x)
        assert gradcheck(lambda x: grad(model(x).square().sum(), x, create_graph=True)[0], x)


def test_an_image_without_a_batch_has_the_gradient_of_the_convolution() -> None:
    model = nn.Conv2d(1, 2, 3).requires_grad_(requires_grad=False)
    x = torch.randn(1, 8, 8).requires_grad_()
    expected = grad(model(x).sum(), x)
    with by_blocks(model):
        torch.testing.assert_close(grad(model(x).sum(), x), expected)


def hooked() -> nn.Module:
    convolution = nn.Conv2d(1, 2, 3)
    convolution.register_forward_hook(lambda *_: None)
    return convolution


@pytest.mark.parametrize(
    "model",
    [
        nn.Conv2d(2, 2, 3), nn.Conv2d(1, 2, 3, stride=2), nn.Conv2d(1, 2, 3, dilation=2), nn.Conv2d(1, 2, 3, padding=3),
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.Conv1d(1, 2, 3),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3)), hooked(),
    ],
)  # fmt: skip
def test_other_modules_than_plain_convolutions_of_a_single_channel_do_not_change(model: nn.Module) -> None:
    with by_blocks(model):
        assert replaced(model) == []


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_trainable_weights_get_their_gradients(name: str) -> None:
    model = nn.Conv2d(1, 2, 3).requires_grad_(requires_grad=False)
    weight = model.get_parameter(name).requires_grad_()
    x = torch.randn(1, 1, 8, 8).requires_grad_()
    (expected,) = grad(model(x).square().sum(), weight)
    with by_blocks(model):
        assert torch.equal(grad(model(x).square().sum(), weight)[0], expected)


@pytest.mark.parametrize(("precision", "similarity"), [("fp32", 0.99999), ("bf16", 0.9)])
def test_a_target_computes_gradients_by_blocks(precision: Precision, similarity: float) -> None:
    torch.manual_seed(0)
    model = CNN4(4, width=0.1, frames=37).eval()
    lengths, labels = torch.full((3,), 16_000), torch.arange(3)
    x = model.inputs(0.1 * torch.randn(3, 16_000), lengths, "spectrogram").detach()

    def direct(x: Tensor) -> Tensor:
        logits = model.outputs(x, lengths, "spectrogram").logits
        return nn.functional.cross_entropy(logits, labels, reduction="sum")

    variable = x.clone().requires_grad_()
    (expected,) = grad(direct(variable), variable)
    with Target(model, lengths, "spectrogram", precision=precision) as target:
        assert len(replaced(model)) == 1
        gradient = target.gradient(x, labels)
    assert replaced(model) == []
    # Blocks do not fill an odd number of frames exactly.
    assert gradient.is_contiguous()
    assert (torch.cosine_similarity(gradient.flatten(1), expected.flatten(1)) > similarity).all()
