"""Small models, sounds and parameters for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, get_args

import torch
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from torch import Tensor, nn

from advser.audio.pcm import PCM_HIGHEST, PCM_LOWEST, PCM_STEP
from advser.defenses.base import TrainingBatch
from advser.models.base import EmotionModel, FrontEnd
from advser.models.terms import Domain

CLASSES = 3
SAMPLES = 1024
EPSILON: dict[Domain, float] = {"waveform": 0.01, "spectrogram": 0.06}
INNER_ATTACK = {"name": "fgsm", "params": {"epsilon": 0.05}}


SMALL: dict[str, dict[str, Any]] = {
    "snr-noise": {"snr": 30.0},
    "apgd": {"steps": 5},
    "apgd-targeted": {"steps": 4},
    "chain-rule": {"steps": 3},
    "ensemble": {
        "attacks": [
            {"name": "apgd", "params": {"loss": "dlr", "steps": 3}},
            {"name": "apgd-targeted", "params": {"steps": 2}},
            {"name": "square", "params": {"queries": 10}},
        ]
    },
    "eot": {"draws": 2, "attack": {"name": "pgd", "params": {"steps": 2}}},
    "generator": {"steps": 3, "channels": 3, "layers": 3},
    "hopskipjump": {"queries": 100},
    "mi-fgsm": {"steps": 3, "diversity": 0.7},
    "square": {"queries": 40},
}
"""Parameters for short runs."""


FILES = {"folder": "."}
"""Parameters that name folders."""


class Frames(FrontEnd):
    """The waveform in frames (B, 32, T / 32); linear, so that gradients have a closed form."""

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        return waveform.unfold(1, 32, 32).transpose(1, 2)


class Spectrum(FrontEnd):
    """Log magnitude spectrogram (B, 33, frames)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        window = self.get_buffer("window")
        spectrum = torch.stft(waveform, 64, 32, window=window, center=False, return_complex=True)
        return (spectrum.abs() + 1e-2).log() + 3


class Sound(FrontEnd):
    """The waveform as a single band (B, 1, T)."""

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        return waveform[:, None]


class Linear(EmotionModel):
    """Logits that are linear in the features and in the waveform."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.frontend = Frames()
        self.head = nn.Linear(SAMPLES, classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return features.flatten(1)


class Convolutional(EmotionModel):
    """A small network with state that an attack could disturb: batch norm, dropout, a spectrogram."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.frontend = Spectrum()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(6, 8, 3, stride=2)
        )
        self.head = nn.Linear(8 * 7 * 7, classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return torch.tanh(self.body(features[:, None])).flatten(1)


class Deaf(nn.Module):
    """A detector that detects nothing."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return torch.zeros(len(x))


class Waveform(EmotionModel):
    """A network on raw sound."""

    spectrogram: ClassVar[bool] = False

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.frontend = Sound()
        self.body = nn.Sequential(nn.Conv1d(1, 8, 64, stride=16), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return self.body(features).mean(2)


MODELS: tuple[type[EmotionModel], ...] = (Linear, Convolutional, Waveform)
PLACES: list[tuple[type[EmotionModel], Domain]] = [
    (Linear, "waveform"),
    (Linear, "spectrogram"),
    (Convolutional, "waveform"),
    (Convolutional, "spectrogram"),
    (Waveform, "waveform"),
]
"""Every toy model in each of its domains."""


def model(kind: type[EmotionModel], seed: int = 0, classes: int = CLASSES) -> EmotionModel:
    """Return an untrained model in training mode, whose batch-norm statistics are not the initial values."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        instance = kind(classes)
        waveform, lengths, _ = sounds(8, seed=9)
        instance(waveform, lengths)
    return instance


def sounds(clips: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return waveforms (B, T) on the 16-bit grid, lengths (B,), some of them shorter than T, and labels (B,)."""
    generator = torch.Generator().manual_seed(seed)
    pcm = (torch.randn(clips, SAMPLES, generator=generator) * 6000).round().clamp(PCM_LOWEST, PCM_HIGHEST)
    lengths = torch.randint(SAMPLES // 2, SAMPLES + 1, (clips,), generator=generator)
    lengths[0] = SAMPLES
    pcm[torch.arange(SAMPLES) >= lengths[:, None]] = 0
    labels = torch.randint(CLASSES, (clips,), generator=generator)
    return pcm * PCM_STEP, lengths, labels


def training_batch(model: EmotionModel, clips: int = 6, seed: int = 0) -> TrainingBatch:
    """Return the batch of a training step."""
    waveform, lengths, labels = sounds(clips, seed)
    with torch.no_grad():
        features = model.frontend(waveform, lengths)
    return TrainingBatch(waveform, lengths, labels, features, torch.Generator().manual_seed(seed))


def row(plugin: type[BaseModel], **given: Any) -> dict[str, Any]:
    """Return the parameters in ``given`` that a plugin has, and a value for every other required parameter."""
    fields = plugin.model_fields
    required = {name: FILES.get(name) or _value(name, field) for name, field in fields.items() if field.is_required()}
    return required | {name: value for name, value in given.items() if name in fields}


def _value(name: str, field: FieldInfo) -> Any:
    kinds = set(_types(field.annotation))
    if any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds):
        return INNER_ATTACK
    if str in kinds or not kinds & {int, float, bool}:
        options = [kind for kind in kinds if isinstance(kind, str)]
        assert options, f"{name}: got {field.annotation}, expected a type with a default here"
        return sorted(options)[0]
    return True if bool in kinds else 2 if int in kinds else 0.05


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _types(part)


def state(model: nn.Module) -> dict[str, Any]:
    """Return everything about a model that an attack must not change."""
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "training": {name: module.training for name, module in model.named_modules()},
        "frozen": {name: not weight.requires_grad for name, weight in model.named_parameters()},
        "gradients": {name: weight.grad for name, weight in model.named_parameters()},
    }


def assert_same_state(model: nn.Module, before: dict[str, Any]) -> None:
    """Assert that the model's `state` equals ``before``."""
    after = state(model)
    assert after["training"] == before["training"]
    assert after["frozen"] == before["frozen"]
    for name, gradient in after["gradients"].items():
        assert gradient is before["gradients"][name], f"the gradient of {name} was replaced"
    for name, value in after["values"].items():
        assert torch.equal(value, before["values"][name]), f"{name} changed"
