"""What a trained model tells of itself when an audit asks, on a few clips of one fold.

The questions are those of `advser.stages.gradient_probes`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor

from advser.audio.clips import MOST_SOUND, batches_by_length
from advser.defenses.base import Defense
from advser.models.base import EmotionModel
from advser.stages import gradient_probes as probes
from advser.stages.gradient_probes import Batch
from advser.stages.job import Task
from advser.stages.prepare import Prepared, load_prepared
from advser.stages.train import EVALUATION_BATCH, WEIGHTS, build_model, fitted_on, load_defense, load_model
from advser.threat.objectives import cross_entropy

FINDINGS = "findings.json"

CLIPS: Final = 12
"""Clips that are asked about: the first test clips, evenly spread over the fold, that the model reads rightly."""

LOOKED_AT: Final = 48
"""Test clips among which they are looked for, all in one batch: too long ones are left out (`MOST_SOUND`)."""


def probe(task: Task) -> None:
    """Write what the probes found; null where a question has no meaning for the model."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = _found(task)
    text = json.dumps({name: None if _nan(value) else value for name, value in found.items()}, indent=1)
    (task.into / FINDINGS).write_text(text, encoding="utf-8")


def _nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _found(task: Task) -> dict[str, Any]:
    prepared = load_prepared(task.inputs["prepared"])
    model = load_model(task.inputs["victim"], task.device)
    looked_at = _spread(prepared, task.spec["fold"], task.device)
    right = _right(model, looked_at)
    asked = looked_at.at(right.nonzero()[:CLIPS, 0]) if right.any() else looked_at.at(torch.arange(1))
    generator = torch.Generator(task.device).manual_seed(0)
    defense = load_defense(task.inputs["victim"])
    found: dict[str, Any] = {
        "clips": int(right.sum().clamp_max(CLIPS)),
        "changed_unheard": probes.changed_unheard(model, asked, generator),
        "company": probes.company(model, asked),
        "companions": probes.companions(model, looked_at),
        "probabilities": probes.probabilities(model, looked_at),
        "disagreement": probes.disagreement(model, asked),
        "changed": probes.changed_state(model, asked),
        "foreign_statistics": _foreign_statistics(task, prepared),
    }
    return found | (_of_gradient(model, defense, asked, generator) if model.differentiable else {})


def _of_gradient(model: EmotionModel, defense: Defense, asked: Batch, generator: torch.Generator) -> dict[str, Any]:
    beside = asked.beside(model, generator)
    both = (asked, beside)
    errors = [probes.derivative_error(model, there) for there in both]
    adaptive: dict[str, Any] = {}
    if type(defense).adaptive is not Defense.adaptive:
        # Beside the clips alone: a distance to the clean clip has no gradient on it.
        knowing = beside.knowing(model, defense.adaptive, asked.waveform)
        adaptive = {
            "adaptive_without_gradient": probes.without_gradient(model, knowing),
            "adaptive_false": _false(probes.derivative_error(model, knowing)),
        }
    return adaptive | {
        "without_gradient": probes.without_gradient(model, asked, cross_entropy),
        "derivative_error": _worst([float(one.median()) for one in errors if len(one)]),
        "false": max(_false(one) for one in errors),
        "unexplained_change": _worst([probes.unexplained_change(model, there, generator) for there in both]),
        "standing_huge": probes.standing(model, asked, beside.waveform, probes.HUGE, probes.STEPS),
        "standing": probes.standing(model, asked, beside.waveform, probes.BUDGET, probes.STEPS),
        "standing_doubled": probes.standing(model, asked, beside.waveform, probes.BUDGET, 2 * probes.STEPS),
    }


def _false(errors: Tensor) -> int:
    """Return of how many clips the gradient is false."""
    return int((errors > probes.FALSE).sum())


def _worst(values: list[float]) -> float:
    """Return the largest value; NaN if none is a number."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def _spread(prepared: Prepared, fold: str, device: str) -> Batch:
    test = list(prepared.folds[fold].test)
    spread = test[:: -(-len(test) // LOOKED_AT)]
    lengths = prepared.clips.lengths
    clips = [clip for clip in spread if len(spread) * lengths[clip] <= MOST_SOUND] or [min(spread, key=lengths.item)]
    waveform, ends = prepared.clips.batch(clips)
    return Batch(waveform.to(device), ends.to(device), torch.from_numpy(prepared.targets[clips]).to(device))


@torch.no_grad()
def _right(model: EmotionModel, batch: Batch) -> Tensor:
    found = torch.zeros_like(batch.labels, dtype=torch.bool)
    for start in range(0, len(found), CLIPS):
        rows = torch.arange(start, min(start + CLIPS, len(found)))
        part = batch.at(rows)
        found[rows] = model(part.waveform, part.lengths).argmax(1) == part.labels
    return found


def _foreign_statistics(task: Task, prepared: Prepared) -> float:
    """Return how far the front end's statistics are from the training clips'; NaN of one that is trained itself."""
    victim = task.inputs["victim"]
    frontend = build_model(victim.json("model.json")["model"], len(prepared.classes)).frontend
    if any(True for _ in frontend.parameters()):
        return math.nan
    prefix = "frontend."
    stored = {name.removeprefix(prefix): value for name, value in load_file(victim.path(WEIGHTS)).items()}
    return probes.foreign_statistics(frontend, stored, _training(prepared, task))


def _training(prepared: Prepared, task: Task) -> Iterator[tuple[Tensor, Tensor]]:
    indices = fitted_on(prepared.folds[task.spec["fold"]], task.spec["fit_on"])
    for rows in batches_by_length(prepared.clips.lengths[indices], EVALUATION_BATCH):
        yield prepared.clips.batch([indices[row] for row in rows])
