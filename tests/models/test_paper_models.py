"""What is specific to the networks of Ren et al. 2020 and of Gong & Poellabauer 2017."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advser.models.base import EmotionModel
from advser.models.framed import FRAME, Framed, convolution
from advser.models.raw import RawSound
from advser.models.resnet50 import Bottleneck, ResNet50
from advser.models.vgg16 import VGG16
from advser.models.wavecnn import WaveCNN
from advser.models.wavenet import WaveNet
from advser.models.wavernn import WaveRNN

FRAMED: tuple[type[Framed], ...] = (WaveCNN, WaveRNN)
framed = pytest.mark.parametrize("kind", FRAMED)


def trained(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def layers(model: nn.Module) -> Counter[str]:
    return Counter(type(module).__name__ for module in model.modules() if not list(module.children()))


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def sound(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise (B, T) at the level of speech, zero after each clip's end, and the lengths."""
    generator = torch.Generator().manual_seed(seed)
    waveform = 0.1 * torch.randn(len(lengths), max(lengths), generator=generator)
    sizes = torch.tensor(lengths)
    return waveform * (torch.arange(max(lengths)) < sizes[:, None]), sizes


def made(kind: type[EmotionModel], classes: int = 3, **params: object) -> EmotionModel:
    """A small model with weights from a fixed seed, in evaluation mode."""
    torch.manual_seed(0)
    return kind(classes, **params).eval()  # type: ignore[call-arg]


class TestVGG16:
    def test_it_is_configuration_d_for_one_channel(self) -> None:
        model = VGG16(7)
        found = convolutions(model)
        assert [c.out_channels for c in found] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
        assert {(c.kernel_size, c.padding, c.stride, c.bias) for c in found} == {((3, 3), (1, 1), (1, 1), None)}
        assert found[0].in_channels == 1
        counts = layers(model)
        assert [counts[kind] for kind in ("BatchNorm2d", "ReLU", "MaxPool2d", "Linear")] == [13, 13, 5, 1]

    def test_parameters(self) -> None:
        """9 weights from map to map, a scale and a shift a map, one linear layer: no biases, as normalisation follows.

        The convolutions of configuration D have 14,710,464 weights with three channels of input (its 14,714,688
        less 4,224 biases); with one, 2 · 9 · 64 fewer: 14,709,312. With 2 · 4,224 of normalisation and 512 · 7 + 7
        of the linear layer: 14,721,351.
        """
        maps = [1, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
        weights = sum(9 * before * after for before, after in pairwise(maps))
        assert weights == 14_714_688 - 4_224 - 2 * 9 * 64
        assert trained(VGG16(7)) == weights + 2 * sum(maps[1:]) + 512 * 7 + 7 == 14_721_351

    def test_it_pools_after_each_group_and_then_over_all(self) -> None:
        model = made(VGG16, width=0.05, frames=96)
        features = torch.randn(1, 64, 96)
        maps = model.get_submodule("body")(features[:, None])
        assert maps.shape == (1, 26, 2, 3)
        torch.testing.assert_close(model.embed(features, torch.tensor([24_000])), maps.amax((2, 3)))


class TestResNet50:
    def test_it_has_the_bottlenecks_of_table_1(self) -> None:
        """One stem, and 3 + 4 + 6 + 3 bottlenecks of three convolutions, of which four have a shortcut's fourth."""
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
        counts = layers(model)
        kinds = ("Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Linear", "Identity")
        assert [counts[kind] for kind in kinds] == [1 + 48 + 4, 1 + 48 + 4, 1 + 48, 1, 1, 12]
        assert all(c.bias is None for c in convolutions(model))

    def test_parameters(self) -> None:
        """ResNet-50 for images and 1,000 classes has 25,557,032.

        Less 2 · 7 · 7 · 64 = 6,272 of the stem's channels and 2048 · 1000 + 1000 of the last layer, with 2048 · 7 + 7
        of ours: 23,516,103.
        """
        images = 25_557_032
        assert trained(ResNet50(7)) == images - 6_272 - 2_049_000 + 14_343 == 23_516_103

    def test_it_divides_by_32_and_takes_the_mean(self) -> None:
        model = made(ResNet50, width=0.05, frames=96)
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
def test_channels_last_changes_the_layout_and_nothing_else(kind: type[EmotionModel]) -> None:
    model = made(kind, width=0.05, frames=32)
    features, lengths = torch.randn(2, 64, 32), torch.tensor([8_000, 8_000])
    expected = model.embed(features, lengths)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(model.embed(features, lengths), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [VGG16, ResNet50])
def test_the_smallest_spectrogram_networks_work(kind: type[EmotionModel]) -> None:
    assert made(kind, width=0.001, frames=32)(torch.zeros(1, 1000), torch.tensor([1000])).shape == (1, 3)


class TestRawSound:
    def test_standard_deviations_are_of_the_sound_without_its_padding(self) -> None:
        frontend = RawSound(1.0)
        waveform, lengths = sound(12_000, 4_000)
        frontend.fit([(waveform[:1], lengths[:1]), (waveform[1:], lengths[1:])])
        heard = torch.cat([waveform[0], waveform[1, :4_000]])
        assert frontend.std.item() == pytest.approx(heard.square().mean().sqrt().item(), rel=1e-5)
        torch.testing.assert_close(frontend(waveform, lengths)[:, 0], waveform / frontend.std)

    def test_silence_has_no_deviation_to_divide_by(self) -> None:
        frontend = RawSound(1.0)
        frontend.fit([(torch.zeros(1, 800), torch.tensor([800]))])
        assert torch.equal(frontend(torch.zeros(1, 800), torch.tensor([800])), torch.zeros(1, 1, 800))

    def test_unit_is_from_0_to_1_with_silence_in_the_middle(self) -> None:
        frontend = RawSound(1.0, "unit")
        frontend.fit([sound(12_000)])
        waveform = torch.tensor([[-1.0, 1.0, 0.25, 9.0]])
        assert frontend(waveform, torch.tensor([3])).tolist() == [[[0.0, 1.0, 0.625, 0.5]]]

    @pytest.mark.parametrize(("seconds", "samples"), [(6.0, 96_000), (0.04, 640), (1.01, 16_000), (1.03, 16_640)])
    def test_long_clips_are_cut_to_whole_frames(self, seconds: float, samples: int) -> None:
        frontend = RawSound(seconds)
        waveform, lengths = sound(100_000)
        assert frontend(waveform, lengths).shape == (1, 1, samples)
        assert frontend.mask(waveform, lengths).shape == (1, 1, samples)

    def test_the_mask_ends_with_the_clip(self) -> None:
        waveform, lengths = sound(5, 3)
        assert RawSound(1.0).mask(waveform, lengths).tolist() == [[[True] * 5], [[True] * 3 + [False] * 2]]


class TestFramed:
    """The convolutions on each frame, which both networks share."""

    def test_parameters(self) -> None:
        """Eight convolutions: 40 · 32 + 32 of the first, 40 · 32 · 32 + 32 of each other: 288,256.

        WaveCNN: 640 samples halved eight times, rounded up, are 3, of 150 frames 450, halved six times 8. Six more
        convolutions, 8 · 32 · 64 + 64 and 64 · 7 + 7: 551,111. WaveRNN: its four gates have 32 · 3 inputs, 64 states
        and, in PyTorch, two biases: 4 · 64 · (96 + 64 + 2), and 64 · 7 + 7: 330,183.
        """
        first, other = 40 * 32 + 32, 40 * 32 * 32 + 32
        shared = first + 7 * other
        assert shared == 288_256
        assert trained(WaveCNN(7)) == shared + 6 * other + 8 * 32 * 64 + 64 + 64 * 7 + 7 == 551_111
        assert trained(WaveRNN(7)) == shared + 4 * 64 * (32 * 3 + 64 + 2) + 64 * 7 + 7 == 330_183

    def test_layers(self) -> None:
        for kind, expected in ((WaveCNN, [14, 14, 14 + 1, 2, 0]), (WaveRNN, [8, 8, 8, 1, 1])):
            counts = layers(kind(7))
            assert [counts[name] for name in ("Conv2d", "MaxPool2d", "ReLU", "Linear", "LSTM")] == expected
            assert {(c.kernel_size, c.out_channels) for c in convolutions(kind(7))} == {((1, 40), 32)}

    @framed
    @pytest.mark.parametrize(("pool", "points"), [(1, 3), (2, 2), (3, 1), (640, 1)])
    def test_codes_have_the_size_of_the_public_code(self, kind: type[Framed], pool: int, points: int) -> None:
        model = made(kind, seconds=0.2, maps=2, pool=pool)
        assert isinstance(model, Framed)
        waveform, lengths = sound(3_000)
        assert model.encode(model.frontend(waveform, lengths), lengths).shape == (1, 5, 2, points)
        assert model(waveform, lengths).shape == (1, 3)

    @framed
    @pytest.mark.parametrize("scale", ["standard", "unit"])
    def test_a_frame_of_padding_is_a_frame_of_silence(self, kind: type[Framed], scale: str) -> None:
        """Frames after a clip's end, which are computed once, are as if all had been."""
        model = made(kind, seconds=0.4, maps=3, scale=scale)
        assert isinstance(model, Framed)
        waveform, lengths = sound(4 * FRAME + 7, 2 * FRAME, 20 * FRAME, 1)
        features = model.frontend(waveform, lengths)
        found = model.encode(features, lengths)
        everywhere = torch.full_like(lengths, model.frontend.samples)
        torch.testing.assert_close(found, model.encode(features, everywhere), rtol=1e-4, atol=1e-6)
        assert found.shape[:2] == (4, 10)
        assert torch.equal(found[1, 2], found[0, 9])
        assert not torch.allclose(found[1, 1], found[0, 9])

    @framed
    def test_frames_pass_through_the_same_convolutions_apart(self, kind: type[Framed]) -> None:
        model = made(kind, seconds=0.4, maps=3)
        assert isinstance(model, Framed)
        waveform, lengths = sound(10 * FRAME)
        codes = model.encode(model.frontend(waveform, lengths), lengths)
        moved = waveform.roll(3 * FRAME, 1)
        torch.testing.assert_close(
            model.encode(model.frontend(moved, lengths), lengths), codes.roll(3, 1), rtol=1e-4, atol=1e-6
        )
        changed = waveform.clone()
        changed[:, 5 * FRAME : 6 * FRAME] += 0.1
        difference = (model.encode(model.frontend(changed, lengths), lengths) - codes).abs().amax((0, 2, 3))
        assert difference.nonzero().flatten().tolist() == [5]

    def test_convolution_pads_as_keras_does(self) -> None:
        """An odd last value is pooled alone, and 19 zeros stand before the first, 20 after the last."""
        layer = convolution(1, 1)
        weight = convolutions(layer)[0].weight
        with torch.no_grad():
            weight.zero_()
            weight[..., 19] = 1
        x = torch.arange(1.0, 6.0).view(1, 1, 1, 5)
        assert layer(x).flatten().tolist() == [2, 4, 5]
        with torch.no_grad():
            weight.zero_()
            weight[..., 39] = 1
        assert layer(torch.arange(1.0, 24.0).view(1, 1, 1, 23)).flatten().tolist() == [22, 23, *[0] * 10]

    @framed
    def test_it_starts_as_the_public_code(self, kind: type[Framed]) -> None:
        """Glorot uniform, ±√(6 / (inputs + outputs) of a weight), and biases of 0."""
        model = kind(3, maps=8, seconds=1.0)  # type: ignore[call-arg]
        convolution_ = convolutions(model)[1]
        assert convolution_.weight.abs().max().item() == pytest.approx((6 / (40 * 8 + 40 * 8)) ** 0.5, rel=0.01)
        assert isinstance(model.head, nn.Linear)
        assert model.head.weight.abs().max().item() == pytest.approx((6 / (64 + 3)) ** 0.5, rel=0.05)
        assert not any(layer.bias.any() for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


class TestWaveRNN:
    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_it_can_be_attacked_in_evaluation_mode(self, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            pytest.skip("no GPU")
        model = made(WaveRNN, seconds=0.2, maps=3).to(device)
        waveform, lengths = (part.to(device) for part in sound(3_000, 2_000))
        waveform.requires_grad_()
        model(waveform, lengths).sum().backward()
        assert waveform.grad is not None
        assert (waveform.grad.abs().amax(1) > 0).all()

    @pytest.mark.parametrize(
        ("training", "gradient", "allowed"), [(False, True, False), (False, False, True), (True, True, True)]
    )
    def test_cudnn_is_left_out_only_where_it_has_no_backward_pass(
        self, training: bool, gradient: bool, allowed: bool
    ) -> None:
        model = made(WaveRNN, seconds=0.2, maps=3).train(training)
        seen: list[bool] = []
        model.get_submodule("recurrent").register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
        flags = torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
        with torch.set_grad_enabled(gradient):
            model(*sound(3_000, 2_000))
        assert seen == [allowed]
        assert flags == (
            torch.backends.cudnn.enabled,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
        )
        assert model.training is training

    def test_it_trains_in_bfloat16(self) -> None:
        model = made(WaveRNN, seconds=0.2, maps=3).train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(model(*sound(3_000, 2_000)), torch.tensor([0, 1]))
        loss.backward()
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())

    def test_it_forgets_slowly_at_first(self) -> None:
        recurrent = WaveRNN(3, maps=2).get_submodule("recurrent")
        assert isinstance(recurrent, nn.LSTM)
        weights = dict(recurrent.named_parameters())
        biases = weights["bias_ih_l0"] + weights["bias_hh_l0"]
        assert biases.view(4, 64).mean(1).tolist() == [0, 1, 0, 0]

    def test_its_gradient_is_at_the_end(self) -> None:
        """Fig. 5: through time the recurrent network's gradient vanishes, and the convolutional one's does not."""
        waveform, lengths = sound(32_000)
        waveform.requires_grad_()
        share = {}
        for kind in (WaveRNN, WaveCNN):
            model = made(kind, seconds=2.0, maps=4, pool=2)
            (gradient,) = torch.autograd.grad(model(waveform, lengths)[0, 0], waveform)
            energy = gradient[0].abs().view(10, -1).sum(1)
            share[kind] = float(energy[-1] / energy.sum())
        assert share[WaveRNN] > 0.5
        assert share[WaveCNN] < 0.3


class TestWaveNet:
    @pytest.mark.parametrize(
        ("layers_", "stacks", "channels", "stride", "classes"), [(10, 2, 16, 16, 7), (4, 1, 5, 1, 2), (1, 1, 1, 3, 3)]
    )
    def test_parameters(self, layers_: int, stacks: int, channels: int, stride: int, classes: int) -> None:
        """Of n layers with c channels.

        2 · stride · c + c at the input; in a layer 2c · 2c + 2c of the gates, c² + c each of skip and residual (the
        last layer has none of the latter, the output as many); (c + 1) · classes.
        """
        n, c = layers_ * stacks, channels
        layer = (2 * c * 2 * c + 2 * c) + 2 * (c * c + c)
        model = WaveNet(classes, layers=layers_, stacks=stacks, channels=c, stride=stride)
        assert trained(model) == n * layer + 2 * stride * c + c + (c + 1) * classes
        assert layer == 6 * c * c + 4 * c

    def test_parameters_at_defaults(self) -> None:
        assert trained(WaveNet(7)) == 20 * (6 * 256 + 64) + 2 * 16 * 16 + 16 + 17 * 7 == 32_647

    def test_dilations_double_in_each_stack(self) -> None:
        model = WaveNet(3, layers=4, stacks=2, channels=2)
        assert [layer.dilation for layer in model.layers] == [1, 2, 4, 8, 1, 2, 4, 8]

    def test_a_step_is_seen_by_its_field_and_by_no_step_before_it(self) -> None:
        """Two stacks of three layers look back 2 · (1 + 2 + 4) steps, and the first convolution one more."""
        model = made(WaveNet, layers=3, stacks=2, channels=4, stride=8).double()
        seen: list[Tensor] = []
        model.get_submodule("output").register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        waveform, lengths = sound(800)
        changed = waveform.clone()
        changed[:, 40 * 8 : 41 * 8] += 0.1
        for x in (waveform, changed):
            model(x.double(), lengths)
        difference = (seen[0] - seen[1]).abs().amax((0, 1))
        assert (difference > 1e-12).nonzero().flatten().tolist() == list(range(40, 40 + 2 * 7 + 1 + 1))

    def test_the_mean_is_over_the_clip(self) -> None:
        model = made(WaveNet, layers=3, stacks=1, channels=4, seconds=0.08)
        waveform, lengths = sound(1_003, 5, 2_000)
        together = model.embed(model.frontend(waveform, lengths), lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = model.embed(
                model.frontend(waveform[row : row + 1, :length], lengths[row : row + 1]), lengths[[row]]
            )
            torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize(
    ("kind", "params", "rate"),
    [
        (WaveCNN, {"maps": 8, "pool": 2, "seconds": 0.2}, 3e-3),
        (WaveRNN, {"maps": 8, "pool": 2, "seconds": 0.2}, 3e-3),
        (WaveNet, {"layers": 4, "stacks": 1, "channels": 8, "seconds": 0.2}, 1e-2),
    ],
)
def test_it_learns_from_the_sound_itself(kind: type[EmotionModel], params: dict[str, float], rate: float) -> None:
    """Low noise from high: the initial weights let through what tells the classes apart."""
    torch.manual_seed(0)
    model = kind(2, **params).train()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    lengths = torch.full((8,), 3_200)
    labels = torch.arange(8) % 2
    losses = []
    for _ in range(60):
        noise = 0.1 * torch.randn(8, 3_201, generator=generator)
        # Sums and differences of neighbours: low-passed and high-passed noise, equally loud.
        waveform = noise[:, 1:] + noise[:, :-1] * (1 - 2 * labels[:, None])
        loss = cross_entropy(model(waveform / 0.14, lengths), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.2
