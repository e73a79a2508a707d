"""Stage 2: train one model with one defense on one fold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, ReduceLROnPlateau

from advser.audio.clips import MOST_SOUND, Clips, batches_by_length
from advser.corpora.protocols import Fold
from advser.defenses.base import Defense, TrainingBatch
from advser.errors import ContractError
from advser.models.base import EmotionModel
from advser.models.ensemble import Ensemble
from advser.models.precision import computing
from advser.models.terms import Precision
from advser.plugins.parameters import arguments, build
from advser.plugins.registries import DEFENSES, MODELS
from advser.stages.job import Task
from advser.stages.prepare import Prepared, load_prepared
from advser.stages.specs import PluginSpec, TrainedModel, TrainSpec
from advser.store.artefacts import Artefact
from advser.store.tensors import Scratch, scratch
from advser.suite.training import Training

WEIGHTS = "weights.safetensors"
MODEL = "model.json"
HISTORY = "history.json"
EVALUATION_BATCH = 32


@dataclass
class _Features:
    """The front end's output for clips; what the front end allows to be cached lies on disk.

    Attributes:
        model: whose front end.
        clips: the sound.
        device: where features are computed.
        cache: what `FrontEnd.analyse` returned, clip by clip.
        places: clip → its position in the cache.
    """

    model: EmotionModel
    clips: Clips
    device: str
    cache: Scratch
    places: dict[int, int] = field(default_factory=dict)

    def __call__(self, indices: Sequence[int], waveform: Tensor, lengths: Tensor) -> Tensor:
        frontend = self.model.frontend
        learned = any(weight.requires_grad for weight in frontend.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and learned):
            if learned or not frontend.kept:
                features: Tensor = frontend(waveform, lengths)
                return features
            missing = [index for index in indices if index not in self.places]
            if missing:
                self._analyse(missing)
            return frontend.assemble([self.cache[self.places[index]].to(self.device) for index in indices])

    def _analyse(self, indices: Sequence[int]) -> None:
        for clips in self._split(indices):
            analyses = self.model.frontend.analyse(*_on(self.device, self.clips.batch(clips)))
            for index, analysis in zip(clips, analyses, strict=True):
                self.places[index] = len(self.cache)
                self.cache.append(analysis)

    def _split(self, indices: Sequence[int]) -> list[Sequence[int]]:
        """Return the clips in one batch, or in several if they are too long for one."""
        lengths = self.clips.lengths[list(indices)]
        if len(lengths) * lengths.max() <= MOST_SOUND:
            return [indices]
        return [[indices[row] for row in rows] for rows in batches_by_length(lengths, len(lengths))]


def build_model(spec: PluginSpec, classes: int) -> EmotionModel:
    """Return an untrained model."""
    factory = MODELS.get(spec.name)
    return factory(classes, **arguments(factory, spec.params, f"model '{spec.name}'"))


def build_defense(spec: PluginSpec) -> Defense:
    """Return a defense."""
    return build(DEFENSES.get(spec.name), spec.params, f"defense '{spec.name}'")


def trained_model(artefact: Artefact) -> TrainedModel:
    """Return what stored weights belong to."""
    return TrainedModel.model_validate_json(artefact.path(MODEL).read_bytes())


def load_defense(artefact: Artefact) -> Defense:
    """Return the defense that a stored model was trained with."""
    return build_defense(trained_model(artefact).defense)


def load_model(artefact: Artefact, device: str) -> EmotionModel:
    """Return a trained model in evaluation mode, frozen, with its defense's processing at test time around it."""
    spec = trained_model(artefact)
    defense = build_defense(spec.defense)
    model = defense.extend(build_model(spec.model, spec.classes))
    model.load_state_dict(load_file(artefact.path(WEIGHTS)))
    wrapped = defense.wrap(model)
    return wrapped.to(device, memory_format=torch.channels_last).eval().requires_grad_(requires_grad=False)  # type: ignore[call-overload, no-any-return]


def load_models(inputs: Mapping[str, Artefact], role: str, device: str) -> EmotionModel:
    """Return the trained model of a role, or the ensemble of several (``role``, ``role.1``, …)."""
    numbers = {int(number or 0): name for name in inputs for head, _, number in [name.partition(".")] if head == role}
    members = [load_model(inputs[numbers[number]], device) for number in sorted(numbers)]
    return members[0] if len(members) == 1 else Ensemble(members).eval()


def train(task: Task[TrainSpec]) -> None:
    """Train, and write the weights, what they belong to, and the history."""
    spec = task.spec
    prepared = load_prepared(task.inputs["prepared"]).without_test_labels(spec.fold)
    task.admit_plugins()
    with torch.random.fork_rng(devices=[]), scratch(task.into) as cache:
        torch.manual_seed(spec.seed)
        model, history = _fit(prepared, spec, task.device, cache)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, task.into / WEIGHTS)
    described = TrainedModel(model=spec.model, defense=spec.defense, classes=len(prepared.classes))
    (task.into / MODEL).write_text(described.model_dump_json(), encoding="utf-8")
    (task.into / HISTORY).write_text(json.dumps(history), encoding="utf-8")


def _fit(
    prepared: Prepared, spec: TrainSpec, device: str, cache: Scratch
) -> tuple[EmotionModel, list[dict[str, float]]]:
    fold = prepared.folds[spec.fold]
    indices = fitted_on(fold, spec.training.fit_on)
    defense = build_defense(spec.defense)
    model = defense.extend(build_model(spec.model, len(prepared.classes)))
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    order = batches_by_length(prepared.clips.lengths[indices], EVALUATION_BATCH)
    batches = [[indices[row] for row in rows] for rows in order]
    model.frontend.fit(_on(device, prepared.clips.batch(rows)) for rows in batches)
    if not model.differentiable:
        targets = torch.from_numpy(prepared.targets).to(device)
        model.fit((*_on(device, prepared.clips.batch(rows)), targets[rows]) for rows in batches)
        return model, []
    held_out = list(fold.validation) if spec.training.fit_on == "train" else []
    data = _Data(prepared, indices, held_out, _Features(model, prepared.clips, device, cache))
    trainer = _Trainer(model, defense, data, spec)
    return model, trainer.run()


def fitted_on(fold: Fold, fit_on: str) -> list[int]:
    """Return the clips that a model of a fold is trained on, as `Training.fit_on` says."""
    return [*fold.train, *(fold.validation if fit_on == "train+validation" else ())]


def _on(device: str, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch[0].to(device), batch[1].to(device)


@dataclass(frozen=True)
class _Data:
    """The clips of a training.

    Attributes:
        prepared: the corpus.
        training: indices of the clips to train on.
        validation: indices of the held-out clips; may be empty.
        features: their features.
    """

    prepared: Prepared
    training: list[int]
    validation: list[int]
    features: _Features

    @property
    def device(self) -> str:
        """The torch device."""
        return self.features.device

    @cached_property
    def targets(self) -> Tensor:
        """Class of every clip of the corpus (N,)."""
        return torch.from_numpy(self.prepared.targets).to(self.device)

    def batch(self, rows: list[int], generator: torch.Generator, kept: dict[str, Tensor]) -> TrainingBatch:
        """Return the clips at ``rows`` as a defense gets them."""
        waveform, lengths = _on(self.device, self.prepared.clips.batch(rows))
        features = self.features(rows, waveform, lengths)
        return TrainingBatch(waveform, lengths, self.targets[rows], features, generator, kept)

    @torch.no_grad()
    def evaluate(self, model: EmotionModel) -> dict[str, float]:
        """Return loss and UAR (over the classes present) on the validation clips."""
        model.eval()
        logits = torch.zeros(len(self.validation), len(self.prepared.classes))
        for rows in batches_by_length(self.prepared.clips.lengths[self.validation], EVALUATION_BATCH):
            indices = [self.validation[row] for row in rows]
            waveform, lengths = _on(self.device, self.prepared.clips.batch(indices))
            features = self.features(indices, waveform, lengths)
            logits[rows] = model.outputs(features, lengths, "spectrogram").logits.float().cpu()
        targets = torch.from_numpy(self.prepared.targets[self.validation])
        correct = (logits.argmax(1) == targets).double()
        recalls = [correct[targets == label].mean() for label in sorted(set(targets.tolist()))]
        return {
            "validation_loss": float(functional.cross_entropy(logits, targets)),
            "validation_uar": float(torch.stack(recalls).mean()),
        }


class _Trainer:
    """Trains one model: descends, evaluates, keeps the chosen checkpoint.

    Args:
        model: the model, trained in place.
        defense: gives the loss.
        data: the clips.
        spec: the training, and its seed.
    """

    def __init__(self, model: EmotionModel, defense: Defense, data: _Data, spec: TrainSpec) -> None:
        self._model, self._defense, self._data, self._spec = model, defense, data, spec
        self._optimizer = _optimizer(model, spec.training)
        self._schedule = _schedule(self._optimizer, spec.training)
        self._generator = torch.Generator(data.device).manual_seed(spec.seed)
        self._kept: dict[str, Tensor] = {}
        self._best: tuple[float, dict[str, Tensor]] | None = None

    def run(self) -> list[dict[str, float]]:
        """Train the model, and return the history: one entry per evaluation."""
        training = self._spec.training
        history: list[dict[str, float]] = []
        losses: list[float] = []
        batches = _sample(self._data.training, training, self._spec.seed, self._defense.showings())
        for step, rows in enumerate(batches):
            losses.append(self._descend(step, rows))
            if (step + 1) % training.evaluate_every == 0 or step + 1 == training.iterations:
                history.append({"step": step + 1, "training_loss": float(np.mean(losses)), **self._evaluate()})
                losses.clear()
        if self._best is not None:
            self._model.load_state_dict(self._best[1])
        return history

    def _descend(self, step: int, rows: list[int]) -> float:
        """Take one step on the clips at ``rows``, and return the loss before it."""
        self._model.train()
        batch = self._data.batch(rows, self._generator, self._kept)
        # The planner settles ``auto``, so that a job's key contains the precision.
        precision: Precision = "bf16" if self._spec.training.precision == "bf16" else "fp32"
        with computing(precision, torch.device(self._data.device)):
            loss = self._defense.loss(self._model, batch, step)
        if loss.ndim != 0 or not torch.isfinite(loss):
            raise ContractError(f"training loss at step {step}: got {loss.detach()}, expected a finite scalar")
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        if isinstance(self._schedule, CosineAnnealingLR):
            self._schedule.step()
        return float(loss.detach())

    def _evaluate(self) -> dict[str, float]:
        """Evaluate on the validation clips, and update schedule and checkpoint; empty without validation clips."""
        if not self._data.validation:
            return {}
        figures = self._data.evaluate(self._model)
        if isinstance(self._schedule, ReduceLROnPlateau):
            self._schedule.step(figures["validation_loss"])
        if self._spec.training.select == "best" and (self._best is None or figures["validation_uar"] > self._best[0]):
            state = {name: value.clone() for name, value in self._model.state_dict().items()}
            self._best = figures["validation_uar"], state
        return figures


def _optimizer(model: EmotionModel, training: Training) -> torch.optim.Optimizer:
    if training.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), training.learning_rate)
    return torch.optim.RMSprop(model.parameters(), training.learning_rate, alpha=0.9)


def _schedule(optimizer: torch.optim.Optimizer, training: Training) -> LRScheduler | None:
    if training.schedule == "cosine":
        return CosineAnnealingLR(optimizer, training.iterations)
    if training.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, factor=0.1, patience=training.patience)
    return None


def _sample(indices: list[int], training: Training, seed: int, showings: int) -> Iterator[list[int]]:
    """Yield the batches of all iterations: epochs in random order, without a gap; each batch ``showings`` times."""
    shuffle = np.random.default_rng(seed)
    queue: list[int] = []
    for step in range(training.iterations):
        if step and step % showings == 0:
            queue = queue[training.batch_size :]
        while len(queue) < training.batch_size:
            queue += shuffle.permutation(indices).tolist()
        yield queue[: training.batch_size]
