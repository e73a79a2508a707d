"""Every registered emotion model satisfies the contract; the published models have their published properties."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_speech import speech
from encoders import tiny_encoder
from networks import layer_counts, parameter_count
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advser.errors import InputError
from advser.models.base import EmotionModel
from advser.models.cnn4 import CNN4
from advser.models.emodb_cnn import EmodbCNN
from advser.models.tiny import Tiny
from advser.plugins.parameters import constructor_schema, describe, validated
from advser.plugins.registries import MODELS

SMALL: dict[str, dict[str, Any]] = {
    "channels": {"channels": 4},
    "frames": {"frames": 48},
    "layers": {"layers": 5},
    "maps": {"maps": 4},
    # Some clips are shorter, others longer.
    "seconds": {"seconds": 1.2},
    "width": {"width": 0.05},
}
"""Values that make a model with the parameter fast."""


def small(name: str, classes: int = 5) -> EmotionModel:
    torch.manual_seed(0)
    plugin = MODELS.get(name)
    fields = constructor_schema(plugin).model_fields
    params = {k: v for key, value in SMALL.items() if key in fields for k, v in value.items()}
    if "encoder" in fields:
        params["encoder"] = tiny_encoder()
    model: EmotionModel = plugin(classes, **params)  # type: ignore[call-arg]
    waveform, lengths, _ = speech("m1_*_1.flac")
    model.frontend.fit([(waveform, lengths)])
    return model


every = pytest.mark.parametrize("name", sorted(MODELS))
differentiable = pytest.mark.parametrize("name", [name for name in sorted(MODELS) if MODELS.get(name).differentiable])


@every
def test_shapes(name: str) -> None:
    model = small(name).eval()
    waveform, lengths, _ = speech("f1_*_1.flac")
    outputs = model.outputs(waveform, lengths, "waveform")
    assert outputs.logits.shape == (4, 5)
    assert outputs.embedding.shape[0] == 4
    assert outputs.embedding.ndim == 2
    assert outputs.logits.isfinite().all()
    torch.testing.assert_close(model.head(outputs.embedding), outputs.logits)
    torch.testing.assert_close(model(waveform, lengths), outputs.logits)
    if model.spectrogram:
        features = model.inputs(waveform, lengths, "spectrogram")
        assert features.ndim == 3
        assert len(features) == 4
        torch.testing.assert_close(model.outputs(features, lengths, "spectrogram").logits, outputs.logits)


@every
def test_the_logits_of_a_clip_do_not_depend_on_the_batch_or_padding(name: str) -> None:
    model = small(name).eval()
    waveform, lengths, _ = speech("f1_*_1.flac")
    together = model(nn.functional.pad(waveform, (0, 4000)), lengths)
    for row, length in enumerate(lengths):
        alone = model(waveform[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)


@every
def test_evaluation_is_deterministic_and_does_not_change_the_model(name: str) -> None:
    model = small(name).eval()
    waveform, lengths, _ = speech("f1_*_1.flac")
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    assert torch.equal(model(waveform, lengths), model(waveform, lengths))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@differentiable
def test_the_loss_has_a_gradient_for_every_clip_and_weight(name: str) -> None:
    model = small(name)
    waveform, lengths, labels = speech("f1_*_[1-4].flac")
    waveform.requires_grad_()
    cross_entropy(model.train()(waveform, lengths), labels).backward()
    for key, weight in model.named_parameters():
        assert (weight.grad is not None) is weight.requires_grad, key
        assert weight.grad is None or weight.grad.isfinite().all(), key
    model.eval()
    (gradient,) = torch.autograd.grad(cross_entropy(model(waveform, lengths), labels), waveform)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax(1) > 0).all()


@every
def test_a_checkpoint_restores_the_model(name: str, tmp_path: Path) -> None:
    model, other = small(name), small(name)
    waveform, lengths, _ = speech("f1_*_[1-4].flac")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01 * torch.randn(weight.shape))
        model.train()(waveform, lengths)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other.eval()(waveform, lengths), model.eval()(waveform, lengths))


@every
def test_parameters_are_declared(name: str) -> None:
    plugin = MODELS.get(name)
    assert plugin.citation
    assert plugin.__doc__
    arguments = list(inspect.signature(plugin).parameters.values())
    assert arguments[0].kind is not inspect.Parameter.KEYWORD_ONLY, "the number of classes comes first"
    for argument in arguments[1:]:
        assert argument.kind is inspect.Parameter.KEYWORD_ONLY
        assert argument.default is not inspect.Parameter.empty
    assert all(row.about for row in describe(plugin))


@pytest.mark.parametrize(
    ("plugin", "params"),
    [
        (CNN4, {"width": -1.0}),
        (CNN4, {"width": "wide"}),
        (CNN4, {"frames": 15}),
        (CNN4, {"depth": 5}),
        (EmodbCNN, {"last_dropout": 1.0}),
        (Tiny, {"frames": 7}),
    ],
)
def test_invalid_parameters_are_rejected(plugin: type[EmotionModel], params: dict[str, Any]) -> None:
    (key,) = params
    with pytest.raises(InputError, match=rf"^model 'm'.*{key}") as caught:
        validated(plugin, params, "model 'm'")
    assert "\n" not in str(caught.value)


def test_the_smallest_models_work() -> None:
    for model in (CNN4(2, width=0.001, frames=16), Tiny(2, frames=8)):
        assert model.eval()(torch.zeros(1, 1000), torch.tensor([1000])).shape == (1, 2)


def values(model: EmotionModel) -> int:
    """Return the number of the classifier's values, with running statistics and without the front end."""
    return sum(
        value.numel()
        for key, value in model.state_dict().items()
        if not key.startswith("frontend.") and not key.endswith("num_batches_tracked")
    )


def test_cnn4_is_as_published() -> None:
    model = CNN4(7)
    assert parameter_count(model) == 4_307_911
    counts = layer_counts(model)
    assert [counts[kind] for kind in ("Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Linear")] == [4, 4, 4, 4, 1]
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 128, 256, 512]
    assert {(c.kernel_size, c.padding, c.bias) for c in convolutions} == {((5, 5), (2, 2), None)}
    features = model.inputs(*speech("m1_anger_1.flac")[:2], "spectrogram")
    assert features.shape == (1, 64, 373)
    assert model.eval().embed(features, torch.tensor([16_000])).shape == (1, 512)


def test_cnn4_width_scales_every_layer() -> None:
    convolutions = [module for module in CNN4(7, width=0.5).modules() if isinstance(module, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [32, 64, 128, 256]


def test_cnn4_does_not_depend_on_the_time_of_a_pattern() -> None:
    """Global max-pooling is invariant to time."""
    model = CNN4(3, width=0.1, frames=256).eval()
    pattern = torch.randn(1, 64, 16)
    early, late = (nn.functional.pad(pattern, (start, 240 - start)) for start in (96, 144))
    lengths = torch.tensor([65_280])
    torch.testing.assert_close(model.embed(early, lengths), model.embed(late, lengths), rtol=1e-4, atol=1e-5)


def test_emodb_cnn_is_as_published() -> None:
    model = EmodbCNN(7)
    assert parameter_count(model) == 4_616_935
    assert values(model) == 4_619_935
    counts = layer_counts(model)
    kinds = ("Conv2d", "BatchNorm2d", "Linear", "BatchNorm1d", "ReLU", "Dropout")
    assert [counts[kind] for kind in kinds] == [2, 2, 4, 3, 5, 3]
    sizes = [module.in_features for module in model.modules() if isinstance(module, nn.Linear)]
    assert sizes == [5632, 716, 716, 20]
    features = model.inputs(*speech("m1_anger_1.flac")[:2], "spectrogram")
    assert features.shape == (1, 40, 200)


def test_tiny_has_a_few_thousand_parameters() -> None:
    assert 2_000 < parameter_count(Tiny(4)) < 10_000


def test_tiny_generalises_to_new_voices_and_can_be_attacked() -> None:
    torch.manual_seed(0)
    model = Tiny(4)
    *sound, labels = speech("[mf][12]_*.flac")
    *test_sound, test_labels = speech("[mf]3_*.flac")
    model.frontend.fit([(sound[0], sound[1])])
    features = model.frontend(*sound)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        rows = torch.randint(len(labels), (16,))
        loss = cross_entropy(model.outputs(features[rows], sound[1][rows], "spectrogram").logits, labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    x = model.frontend(*test_sound).requires_grad_()
    logits = model.outputs(x, test_sound[1], "spectrogram").logits
    (gradient,) = torch.autograd.grad(cross_entropy(logits, test_labels), x)
    attacked = model.outputs(x + 0.1 * gradient.sign(), test_sound[1], "spectrogram").logits
    noisy = model.outputs(x + 0.1 * torch.randn_like(x).sign(), test_sound[1], "spectrogram").logits

    def accuracy(logits: Tensor) -> float:
        return (logits.argmax(1) == test_labels).float().mean().item()

    assert accuracy(logits) > 0.7
    assert accuracy(noisy) > 0.7
    assert accuracy(attacked) < 0.4
