"""The networks on raw sound: WaveCNN and WaveRNN of Gong & Poellabauer 2017, and WaveNet of Ren et al. 2020."""

from __future__ import annotations

import pytest
import torch
from networks import convolutions, layer_counts, network, parameter_count
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advser.models.base import EmotionModel
from advser.models.framed import FRAME, Framed, convolution
from advser.models.raw import RawSound
from advser.models.wavecnn import WaveCNN
from advser.models.wavenet import WaveNet
from advser.models.wavernn import WaveRNN

FRAMED: tuple[type[Framed], ...] = (WaveCNN, WaveRNN)
framed = pytest.mark.parametrize("kind", FRAMED)


def sound(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise (B, T) at the level of speech, zero after each clip's end, and the lengths."""
    generator = torch.Generator().manual_seed(seed)
    waveform = 0.1 * torch.randn(len(lengths), max(lengths), generator=generator)
    sizes = torch.tensor(lengths)
    return waveform * (torch.arange(max(lengths)) < sizes[:, None]), sizes


class TestRawSound:
    def test_the_standard_deviation_excludes_padding(self) -> None:
        frontend = RawSound(1.0)
        waveform, lengths = sound(12_000, 4_000)
        frontend.fit([(waveform[:1], lengths[:1]), (waveform[1:], lengths[1:])])
        samples = torch.cat([waveform[0], waveform[1, :4_000]])
        assert frontend.std.item() == pytest.approx(samples.square().mean().sqrt().item(), rel=1e-5)
        torch.testing.assert_close(frontend(waveform, lengths)[:, 0], waveform / frontend.std)

    def test_silent_training_data_does_not_scale(self) -> None:
        frontend = RawSound(1.0)
        frontend.fit([(torch.zeros(1, 800), torch.tensor([800]))])
        assert torch.equal(frontend(torch.zeros(1, 800), torch.tensor([800])), torch.zeros(1, 1, 800))

    def test_the_unit_scale_is_from_0_to_1_with_silence_at_one_half(self) -> None:
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
    """The convolutions on each frame, the common part of both networks."""

    def test_parameters(self) -> None:
        """The eight convolutions have 40 · 32 + 32 and then 40 · 32 · 32 + 32 parameters each, together 288,256.

        WaveCNN: 640 samples halved eight times, rounding up, are 3 points; 150 frames have 450, halved six times 8.
        With six more convolutions, 8 · 32 · 64 + 64 and 64 · 7 + 7, there are 551,111. WaveRNN: the four gates have
        32 · 3 inputs, 64 states and, in PyTorch, two biases, 4 · 64 · (96 + 64 + 2). With 64 · 7 + 7 there are 330,183.
        """
        first, other = 40 * 32 + 32, 40 * 32 * 32 + 32
        shared = first + 7 * other
        assert shared == 288_256
        assert parameter_count(WaveCNN(7)) == shared + 6 * other + 8 * 32 * 64 + 64 + 64 * 7 + 7 == 551_111
        assert parameter_count(WaveRNN(7)) == shared + 4 * 64 * (32 * 3 + 64 + 2) + 64 * 7 + 7 == 330_183

    def test_layers(self) -> None:
        for kind, expected in ((WaveCNN, [14, 14, 14 + 1, 2, 0]), (WaveRNN, [8, 8, 8, 1, 1])):
            counts = layer_counts(kind(7))
            assert [counts[name] for name in ("Conv2d", "MaxPool2d", "ReLU", "Linear", "LSTM")] == expected
            assert {(c.kernel_size, c.out_channels) for c in convolutions(kind(7))} == {((1, 40), 32)}

    @framed
    @pytest.mark.parametrize(("pool", "points"), [(1, 3), (2, 2), (3, 1), (640, 1)])
    def test_codes_have_the_size_of_the_public_code(self, kind: type[Framed], pool: int, points: int) -> None:
        model = network(kind, seconds=0.2, maps=2, pool=pool)
        assert isinstance(model, Framed)
        waveform, lengths = sound(3_000)
        assert model.encode(model.frontend(waveform, lengths), lengths).shape == (1, 5, 2, points)
        assert model(waveform, lengths).shape == (1, 3)

    @framed
    @pytest.mark.parametrize("scale", ["standard", "unit"])
    def test_a_frame_of_padding_is_a_frame_of_silence(self, kind: type[Framed], scale: str) -> None:
        """Frames after a clip's end share a single computation; the codes equal those of separate computations."""
        model = network(kind, seconds=0.4, maps=3, scale=scale)
        assert isinstance(model, Framed)
        waveform, lengths = sound(4 * FRAME + 7, 2 * FRAME, 20 * FRAME, 1)
        features = model.frontend(waveform, lengths)
        codes = model.encode(features, lengths)
        full = torch.full_like(lengths, model.frontend.samples)
        torch.testing.assert_close(codes, model.encode(features, full), rtol=1e-4, atol=1e-6)
        assert codes.shape[:2] == (4, 10)
        assert torch.equal(codes[1, 2], codes[0, 9])
        assert not torch.allclose(codes[1, 1], codes[0, 9])

    @framed
    def test_frames_pass_through_the_same_convolutions_independently(self, kind: type[Framed]) -> None:
        model = network(kind, seconds=0.4, maps=3)
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

    def test_the_padding_is_that_of_keras(self) -> None:
        """The last of an odd number of values is pooled alone; 19 zeros precede the first value, 20 follow the last."""
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
    def test_initial_weights_are_those_of_the_public_code(self, kind: type[Framed]) -> None:
        """Weights are Glorot uniform, ±√(6 / (inputs + outputs)), and biases 0."""
        model = kind(3, maps=8, seconds=1.0)  # type: ignore[call-arg]
        second = convolutions(model)[1]
        assert second.weight.abs().max().item() == pytest.approx((6 / (40 * 8 + 40 * 8)) ** 0.5, rel=0.01)
        assert isinstance(model.head, nn.Linear)
        assert model.head.weight.abs().max().item() == pytest.approx((6 / (64 + 3)) ** 0.5, rel=0.05)
        assert not any(layer.bias.any() for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


class TestWaveRNN:
    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_it_can_be_attacked_in_evaluation_mode(self, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            pytest.skip("no GPU")
        model = network(WaveRNN, seconds=0.2, maps=3).to(device)
        waveform, lengths = (part.to(device) for part in sound(3_000, 2_000))
        waveform.requires_grad_()
        model(waveform, lengths).sum().backward()
        assert waveform.grad is not None
        assert (waveform.grad.abs().amax(1) > 0).all()

    @pytest.mark.parametrize(
        ("training", "gradient", "allowed"), [(False, True, False), (False, False, True), (True, True, True)]
    )
    def test_cudnn_is_disabled_only_where_it_has_no_backward_pass(
        self, training: bool, gradient: bool, allowed: bool
    ) -> None:
        model = network(WaveRNN, seconds=0.2, maps=3).train(training)
        enabled: list[bool] = []
        recurrent = model.get_submodule("recurrent")
        recurrent.register_forward_pre_hook(lambda *_: enabled.append(torch.backends.cudnn.enabled))
        flags = torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
        with torch.set_grad_enabled(gradient):
            model(*sound(3_000, 2_000))
        assert enabled == [allowed]
        assert flags == (
            torch.backends.cudnn.enabled,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
        )
        assert model.training is training

    def test_it_trains_in_bfloat16(self) -> None:
        model = network(WaveRNN, seconds=0.2, maps=3).train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(model(*sound(3_000, 2_000)), torch.tensor([0, 1]))
        loss.backward()
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())

    def test_only_the_forget_gate_has_an_initial_bias(self) -> None:
        recurrent = WaveRNN(3, maps=2).get_submodule("recurrent")
        assert isinstance(recurrent, nn.LSTM)
        weights = dict(recurrent.named_parameters())
        biases = weights["bias_ih_l0"] + weights["bias_hh_l0"]
        assert biases.view(4, 64).mean(1).tolist() == [0, 1, 0, 0]

    def test_its_gradient_concentrates_at_the_end(self) -> None:
        """Over time the gradient of the recurrent network vanishes, and that of WaveCNN does not (fig. 5)."""
        waveform, lengths = sound(32_000)
        waveform.requires_grad_()
        share = {}
        for kind in (WaveRNN, WaveCNN):
            model = network(kind, seconds=2.0, maps=4, pool=2)
            (gradient,) = torch.autograd.grad(model(waveform, lengths)[0, 0], waveform)
            energy = gradient[0].abs().view(10, -1).sum(1)
            share[kind] = float(energy[-1] / energy.sum())
        assert share[WaveRNN] > 0.5
        assert share[WaveCNN] < 0.3


class TestWaveNet:
    @pytest.mark.parametrize(
        ("layers", "stacks", "channels", "stride", "classes"), [(10, 2, 16, 16, 7), (4, 1, 5, 1, 2), (1, 1, 1, 3, 3)]
    )
    def test_parameters(self, layers: int, stacks: int, channels: int, stride: int, classes: int) -> None:
        """The number for n layers with c channels.

        The input has 2 · stride · c + c. A layer has 2c · 2c + 2c for the gates, and c² + c each for skip and residual.
        The last layer has no residual, but the output has as many. The head has (c + 1) · classes.
        """
        n, c = layers * stacks, channels
        layer = (2 * c * 2 * c + 2 * c) + 2 * (c * c + c)
        model = WaveNet(classes, layers=layers, stacks=stacks, channels=c, stride=stride)
        assert parameter_count(model) == n * layer + 2 * stride * c + c + (c + 1) * classes
        assert layer == 6 * c * c + 4 * c

    def test_parameters_at_defaults(self) -> None:
        assert parameter_count(WaveNet(7)) == 20 * (6 * 256 + 64) + 2 * 16 * 16 + 16 + 17 * 7 == 32_647

    def test_dilations_double_in_each_stack(self) -> None:
        model = WaveNet(3, layers=4, stacks=2, channels=2)
        assert [layer.dilation for layer in model.layers] == [1, 2, 4, 8, 1, 2, 4, 8]

    def test_a_step_affects_its_receptive_field_and_no_earlier_step(self) -> None:
        """Two stacks of three layers reach back 2 · (1 + 2 + 4) steps, and the first convolution one more."""
        model = network(WaveNet, layers=3, stacks=2, channels=4, stride=8).double()
        inputs: list[Tensor] = []
        model.get_submodule("output").register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
        waveform, lengths = sound(800)
        changed = waveform.clone()
        changed[:, 40 * 8 : 41 * 8] += 0.1
        for x in (waveform, changed):
            model(x.double(), lengths)
        difference = (inputs[0] - inputs[1]).abs().amax((0, 1))
        assert (difference > 1e-12).nonzero().flatten().tolist() == list(range(40, 40 + 2 * 7 + 1 + 1))

    def test_the_mean_is_over_the_clip(self) -> None:
        model = network(WaveNet, layers=3, stacks=1, channels=4, seconds=0.08)
        waveform, lengths = sound(1_003, 5, 2_000)
        together = model.embed(model.frontend(waveform, lengths), lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = model.embed(model.frontend(waveform[[row], :length], lengths[[row]]), lengths[[row]])
            torch.testing.assert_close(together[[row]], alone)


@pytest.mark.parametrize(
    ("kind", "params", "rate"),
    [
        (WaveCNN, {"maps": 8, "pool": 2, "seconds": 0.2}, 3e-3),
        (WaveRNN, {"maps": 8, "pool": 2, "seconds": 0.2}, 3e-3),
        (WaveNet, {"layers": 4, "stacks": 1, "channels": 8, "seconds": 0.2}, 1e-2),
    ],
)
def test_it_learns_from_the_sound_itself(kind: type[EmotionModel], params: dict[str, float], rate: float) -> None:
    """A network learns to distinguish low-pass from high-pass noise: its initial weights preserve the difference."""
    torch.manual_seed(0)
    model = kind(2, **params).train()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    lengths = torch.full((8,), 3_200)
    labels = torch.arange(8) % 2
    losses = []
    for _ in range(60):
        noise = 0.1 * torch.randn(8, 3_201, generator=generator)
        # Sums and differences of neighbours are low-pass and high-pass noise of equal level.
        waveform = noise[:, 1:] + noise[:, :-1] * (1 - 2 * labels[:, None])
        loss = cross_entropy(model(waveform / 0.14, lengths), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.2
