"""The networks of Ren et al. 2020 on spectrograms: VGG-16 and ResNet-50."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from networks import convolutions, layer_counts, network, parameter_count
from torch import nn

from advser.models.base import EmotionModel
from advser.models.resnet50 import Bottleneck, ResNet50
from advser.models.vgg16 import VGG16


class TestVGG16:
    def test_it_is_configuration_d_for_one_channel(self) -> None:
        model = VGG16(7)
        layers = convolutions(model)
        assert [c.out_channels for c in layers] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
        assert {(c.kernel_size, c.padding, c.stride, c.bias) for c in layers} == {((3, 3), (1, 1), (1, 1), None)}
        assert layers[0].in_channels == 1
        counts = layer_counts(model)
        assert [counts[kind] for kind in ("BatchNorm2d", "ReLU", "MaxPool2d", "Linear")] == [13, 13, 5, 1]

    def test_parameters(self) -> None:
        """9 weights per pair of maps, a scale and a shift per map, and a linear layer; normalisation replaces biases.

        The convolutions of configuration D have 14,710,464 weights for three input channels (14,714,688 less 4,224
        biases), and for one channel 2 · 9 · 64 fewer, 14,709,312. With 2 · 4,224 of the normalisation and 512 · 7 + 7
        of the linear layer there are 14,721,351.
        """
        maps = [1, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
        weights = sum(9 * before * after for before, after in pairwise(maps))
        assert weights == 14_714_688 - 4_224 - 2 * 9 * 64
        assert parameter_count(VGG16(7)) == weights + 2 * sum(maps[1:]) + 512 * 7 + 7 == 14_721_351

    def test_it_pools_after_each_group_and_then_globally(self) -> None:
        model = network(VGG16, width=0.05, frames=96)
        features = torch.randn(1, 64, 96)
        maps = model.get_submodule("body")(features[:, None])
        assert maps.shape == (1, 26, 2, 3)
        torch.testing.assert_close(model.embed(features, torch.tensor([24_000])), maps.amax((2, 3)))


class TestResNet50:
    def test_it_has_the_bottlenecks_of_table_1(self) -> None:
        """A stem, and 3 + 4 + 6 + 3 bottlenecks of three convolutions; four of them have a fourth in the shortcut."""
        model = ResNet50(7)
        stages = [list(stage) for stage in model.body]
        assert [len(stage) for stage in stages] == [3, 4, 6, 3]
        for stage, maps, before in zip(stages, (64, 128, 256, 512), (64, 256, 512, 1024), strict=True):
            for place, bottleneck in enumerate(stage):
                assert isinstance(bottleneck, Bottleneck)
                inputs, stride = (before, 1 if maps == 64 else 2) if place == 0 else (4 * maps, 1)
                shapes = [(c.in_channels, c.out_channels, *c.kernel_size, *c.stride) for c in convolutions(bottleneck)]
                assert shapes[:3] == [
                    (inputs, maps, 1, 1, 1, 1),
                    (maps, maps, 3, 3, stride, stride),
                    (maps, 4 * maps, 1, 1, 1, 1),
                ]
                assert shapes[3:] == ([(inputs, 4 * maps, 1, 1, stride, stride)] if place == 0 else [])
        stem = convolutions(model.stem)
        assert [(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding) for c in stem] == [
            (1, 64, (7, 7), (2, 2), (3, 3))
        ]
        counts = layer_counts(model)
        kinds = ("Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Linear", "Identity")
        assert [counts[kind] for kind in kinds] == [1 + 48 + 4, 1 + 48 + 4, 1 + 48, 1, 1, 12]
        assert all(c.bias is None for c in convolutions(model))

    def test_parameters(self) -> None:
        """ResNet-50 for images and 1,000 classes has 25,557,032.

        Without 2 · 7 · 7 · 64 = 6,272 of two stem channels and 2048 · 1000 + 1000 of its last layer, and with
        2048 · 7 + 7 of this model's, there are 23,516,103.
        """
        images = 25_557_032
        assert parameter_count(ResNet50(7)) == images - 6_272 - 2_049_000 + 14_343 == 23_516_103

    def test_it_divides_the_size_by_32_and_averages(self) -> None:
        model = network(ResNet50, width=0.05, frames=96)
        features = torch.randn(1, 64, 96)
        maps = model.get_submodule("body")(model.get_submodule("stem")(features[:, None]))
        assert maps.shape == (1, 4 * 26, 2, 3)
        torch.testing.assert_close(model.embed(features, torch.tensor([24_000])), maps.mean((2, 3)))

    def test_the_input_is_added_around_the_convolutions(self) -> None:
        bottleneck = Bottleneck(8, 2, 1).eval()
        nn.init.zeros_(convolutions(bottleneck)[2].weight)
        x = torch.randn(2, 8, 5, 5)
        assert torch.equal(bottleneck(x), x.relu())


@pytest.mark.parametrize("kind", [VGG16, ResNet50])
def test_channels_last_does_not_change_the_embedding(kind: type[EmotionModel]) -> None:
    model = network(kind, width=0.05, frames=32)
    features, lengths = torch.randn(2, 64, 32), torch.tensor([8_000, 8_000])
    expected = model.embed(features, lengths)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(model.embed(features, lengths), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [VGG16, ResNet50])
def test_the_smallest_spectrogram_networks_work(kind: type[EmotionModel]) -> None:
    assert network(kind, width=0.001, frames=32)(torch.zeros(1, 1000), torch.tensor([1000])).shape == (1, 3)
