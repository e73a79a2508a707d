"""Stage 2: train one model with one defense on one fold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from advser.store.artefacts import Artefact
from advser.store.tensors import Scratch, scratch
from advser.suite.training import Training

WEIGHTS = "weights.safetensors"
EVALUATION_BATCH = 32


@dataclass
class _Features:
    """The front end's output for clips, of which what the front end lets be kept lies on disk.

    Attributes:
        model: whose front end.
        clips: the sound.
        device: where features are made.
        kept: what `FrontEnd.analyse` returned, of one clip after the other.
        places: clip → its place there.
    """

    model: EmotionModel
    clips: Clips
    device: str
    kept: Scratch
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
                self._keep(missing)
            return frontend.assemble([self.kept[self.places[index]].to(self.device) for index in indices])

    def _keep(self, indices: Sequence[int]) -> None:
        for clips in self._apart(indices):
            made = self.model.frontend.analyse(*_on(self.device, self.clips.batch(clips)))
            for index, analysis in zip(clips, made, strict=True):
                self.places[index] = len(self.kept)
                self.kept.append(analysis)

    def _apart(self, indices: Sequence[int]) -> list[Sequence[int]]:
        """Return the clips in one batch; if some are too long for that, in several."""
        lengths = self.clips.lengths[list(indices)]
        if len(lengths) * lengths.max() <= MOST_SOUND:
            return [indices]
        return [[indices[row] for row in rows] for rows in batches_by_length(lengths, len(lengths))]


def build_model(spec: dict[str, Any], classes: int) -> EmotionModel:
    """Construct an untrained model from its name and parameters."""
    factory = MODELS.get(spec["name"])
    return factory(classes, **arguments(factory, spec["params"], f"model '{spec['name']}'"))


def build_defense(spec: dict[str, Any]) -> Defense:
    """Construct a defense from its name and parameters."""
    return build(DEFENSES.get(spec["name"]), spec["params"], f"defense '{spec['name']}'")


def load_defense(artefact: Artefact) -> Defense:
    """Return the defense that a stored model was trained with."""
    return build_defense(artefact.json("model.json")["defense"])


def load_model(artefact: Artefact, device: str) -> EmotionModel:
    """Return a trained model, in evaluation mode, frozen, with its defense's processing at test time around it."""
    spec = artefact.json("model.json")
    defense = build_defense(spec["defense"])
    model = defense.extend(build_model(spec["model"], spec["classes"]))
    model.load_state_dict(load_file(artefact.path(WEIGHTS)))
    wrapped = defense.wrap(model)
    return wrapped.to(device, memory_format=torch.channels_last).eval().requires_grad_(requires_grad=False)  # type: ignore[call-overload, no-any-return]


def load_models(inputs: Mapping[str, Artefact], role: str, device: str) -> EmotionModel:
    """Return the trained model of a role, or, if there are several (``role``, ``role.1``, …), their ensemble."""
    members = [
        load_model(artefact, device) for name, artefact in sorted(inputs.items()) if name.partition(".")[0] == role
    ]
    return members[0] if len(members) == 1 else Ensemble(members).eval()


def train(task: Task) -> None:
    """Train, and write the weights, what they belong to, and the history."""
    prepared = load_prepared(task.inputs["prepared"])
    spec = task.spec
    with torch.random.fork_rng(devices=[]), scratch(task.into) as kept:
        torch.manual_seed(spec["seed"])
        model, history = _fit(prepared, spec, task.device, kept)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, task.into / WEIGHTS)
    described = {"model": spec["model"], "defense": spec["defense"], "classes": len(prepared.classes)}
    (task.into / "model.json").write_text(json.dumps(described), encoding="utf-8")
    (task.into / "history.json").write_text(json.dumps(history), encoding="utf-8")


def _fit(prepared: Prepared, spec: Any, device: str, kept: Scratch) -> tuple[EmotionModel, list[dict[str, float]]]:
    training = Training.model_validate(spec["training"])
    fold = prepared.folds[spec["fold"]]
    indices = fitted_on(fold, training.fit_on)
    defense = build_defense(spec["defense"])
    model = defense.extend(build_model(spec["model"], len(prepared.classes)))
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    order = batches_by_length(prepared.clips.lengths[indices], EVALUATION_BATCH)
    batches = [[indices[row] for row in rows] for rows in order]
    model.frontend.fit(_on(device, prepared.clips.batch(rows)) for rows in batches)
    if not model.differentiable:
        targets = torch.from_numpy(prepared.targets).to(device)
        model.fit((*_on(device, prepared.clips.batch(rows)), targets[rows]) for rows in batches)
        return model, []
    features = _Features(model, prepared.clips, device, kept)
    return _loop(model, defense, prepared, indices, training, spec, features)


def fitted_on(fold: Fold, fit_on: str) -> list[int]:
    """Return the clips that a model of a fold is trained on, as `Training.fit_on` says."""
    return [*fold.train, *(fold.validation if fit_on == "train+validation" else ())]


def _on(device: str, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch[0].to(device), batch[1].to(device)


def _loop(
    model: EmotionModel,
    defense: Defense,
    prepared: Prepared,
    indices: list[int],
    training: Training,
    spec: Any,
    features: _Features,
) -> tuple[EmotionModel, list[dict[str, float]]]:
    optimizer = _optimizer(model, training)
    schedule = _schedule(optimizer, training)
    device = features.device
    validation = list(prepared.folds[spec["fold"]].validation) if training.fit_on == "train" else []
    generator = torch.Generator(device).manual_seed(spec["seed"])
    targets = torch.from_numpy(prepared.targets).to(device)
    # What ``auto`` comes to is settled where a run is planned, so that a job's key tells it.
    precision: Precision = "bf16" if training.precision == "bf16" else "fp32"
    history: list[dict[str, float]] = []
    best: tuple[float, dict[str, Tensor]] | None = None
    losses: list[float] = []
    kept: dict[str, Tensor] = {}
    for step, rows in enumerate(_sample(indices, training, spec["seed"], defense.showings())):
        model.train()
        waveform, lengths = _on(device, prepared.clips.batch(rows))
        batch = TrainingBatch(waveform, lengths, targets[rows], features(rows, waveform, lengths), generator, kept)
        with computing(precision, torch.device(device)):
            loss = defense.loss(model, batch, step)
        _descend(optimizer, loss, step)
        losses.append(float(loss.detach()))
        if isinstance(schedule, CosineAnnealingLR):
            schedule.step()
        if (step + 1) % training.evaluate_every == 0 or step + 1 == training.iterations:
            entry = {"step": step + 1, "training_loss": float(np.mean(losses))}
            losses.clear()
            if validation:
                entry |= _evaluate(model, prepared, validation, features)
                if isinstance(schedule, ReduceLROnPlateau):
                    schedule.step(entry["validation_loss"])
                if training.select == "best" and (best is None or entry["validation_uar"] > best[0]):
                    state = {name: value.clone() for name, value in model.state_dict().items()}
                    best = entry["validation_uar"], state
            history.append(entry)
    if best is not None:
        model.load_state_dict(best[1])
    return model, history


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, step: int) -> None:
    if loss.ndim != 0 or not torch.isfinite(loss):
        raise ContractError(f"training loss at step {step}: got {loss.detach()}, expected a finite scalar")
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


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
    """Yield the batches of all iterations: epochs in random order, one after the other without a gap.

    Each batch comes ``showings`` times in a row.
    """
    shuffle = np.random.default_rng(seed)
    queue: list[int] = []
    for step in range(training.iterations):
        if step and step % showings == 0:
            queue = queue[training.batch_size :]
        while len(queue) < training.batch_size:
            queue += shuffle.permutation(indices).tolist()
        yield queue[: training.batch_size]


@torch.no_grad()
def _evaluate(model: EmotionModel, prepared: Prepared, indices: list[int], features: _Features) -> dict[str, float]:
    """Return loss and UAR (over the classes present) on the validation clips."""
    model.eval()
    logits = torch.zeros(len(indices), len(prepared.classes))
    for rows in batches_by_length(prepared.clips.lengths[indices], EVALUATION_BATCH):
        chosen = [indices[row] for row in rows]
        waveform, lengths = _on(features.device, prepared.clips.batch(chosen))
        seen = features(chosen, waveform, lengths)
        logits[rows] = model.outputs(seen, lengths, "spectrogram").logits.float().cpu()
    targets = torch.from_numpy(prepared.targets[indices])
    right = (logits.argmax(1) == targets).double()
    recalls = [right[targets == label].mean() for label in sorted(set(targets.tolist()))]
    return {
        "validation_loss": float(functional.cross_entropy(logits, targets)),
        "validation_uar": float(torch.stack(recalls).mean()),
    }
