"""Probes of a trained model for the audit (`advser.stages.gradient_probes`), on a few clips of one fold."""

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
from advser.stages.specs import ProbeSpec
from advser.stages.train import (
    EVALUATION_BATCH,
    WEIGHTS,
    build_model,
    fitted_on,
    load_defense,
    load_model,
    trained_model,
)
from advser.threat.objectives import cross_entropy

FINDINGS = "findings.json"

CLIPS: Final = 12
"""Clips that are probed: the first test clips, evenly spread over the fold, that the model classifies correctly."""

CANDIDATES: Final = 48
"""Test clips among which the probed clips are chosen, all in one batch; too long clips are left out (`MOST_SOUND`)."""


def probe(task: Task[ProbeSpec]) -> None:
    """Write the results of all probes; null where a probe has no meaning for the model."""
    prepared = load_prepared(task.inputs["prepared"])
    task.admit_plugins()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        results = _results(task, prepared)
    text = json.dumps({name: None if _is_nan(value) else value for name, value in results.items()}, indent=1)
    (task.into / FINDINGS).write_text(text, encoding="utf-8")


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _results(task: Task[ProbeSpec], prepared: Prepared) -> dict[str, Any]:
    model = load_model(task.inputs["victim"], task.device)
    candidates = _spread(prepared, task.spec.fold, task.device)
    correct = _correct(model, candidates)
    probed = candidates.at(correct.nonzero()[:CLIPS, 0]) if correct.any() else candidates.at(torch.arange(1))
    generator = torch.Generator(task.device).manual_seed(0)
    defense = load_defense(task.inputs["victim"])
    results: dict[str, Any] = {
        "clips": int(correct.sum().clamp_max(CLIPS)),
        "changed_unheard": probes.changed_by_inaudible_change(model, probed, generator),
        "company": probes.batch_dependence(model, probed),
        "companions": probes.neighbour_dependence(model, candidates),
        "probabilities": probes.probabilities(model, candidates),
        "disagreement": probes.disagreement(model, probed),
        "changed": probes.changed_state(model, probed),
        "foreign_statistics": _foreign_statistics(task, prepared),
    }
    return results | (_of_gradient(model, defense, probed, generator) if model.differentiable else {})


def _of_gradient(model: EmotionModel, defense: Defense, probed: Batch, generator: torch.Generator) -> dict[str, Any]:
    nearby = probed.nearby(model, generator)
    both = [probes.in_double(model, batch) for batch in (probed, nearby)]
    precise = both[0][1].waveform.dtype == torch.float64
    limit = probes.FALSE if precise else probes.FALSE_IN_FLOAT32
    errors = [probes.derivative_error(*pair) for pair in both]
    adaptive: dict[str, Any] = {}
    if type(defense).adaptive is not Defense.adaptive:
        # Near the clips alone: a distance to the clean clip has no gradient on it.
        informed = nearby.informed(model, defense.adaptive, probed.waveform)
        adaptive = {
            "adaptive_without_gradient": probes.without_gradient(model, informed),
            "adaptive_false": _false(probes.derivative_error(*probes.in_double(model, informed)), limit),
        }
    return adaptive | {
        "without_gradient": probes.without_gradient(model, probed, cross_entropy),
        "derivative_limit": limit,
        "derivative_error": _largest([float(error.nanmedian()) for error in errors]),
        "not_resolved": max(int(error.isnan().sum()) for error in errors),
        "false": max(_false(error, limit) for error in errors),
        "unexplained_change": _largest([probes.unexplained_change(*pair, generator) for pair in both]),
        "standing_huge": probes.least_robust(model, probed, nearby.waveform),
        "standing": probes.robust_share(model, probed, nearby.waveform, probes.BUDGET, probes.STEPS),
        "standing_doubled": probes.robust_share(model, probed, nearby.waveform, probes.BUDGET, 2 * probes.STEPS),
    }


def _false(errors: Tensor, limit: float) -> int:
    """Return the number of clips whose gradient is false."""
    return int((errors > limit).sum())


def _largest(values: list[float]) -> float:
    """Return the largest value; NaN if all are NaN."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def _spread(prepared: Prepared, fold: str, device: str) -> Batch:
    test = list(prepared.folds[fold].test)
    spread = test[:: -(-len(test) // CANDIDATES)]
    lengths = prepared.clips.lengths
    clips = [clip for clip in spread if len(spread) * lengths[clip] <= MOST_SOUND] or [min(spread, key=lengths.item)]
    waveform, ends = prepared.clips.batch(clips)
    return Batch(waveform.to(device), ends.to(device), torch.from_numpy(prepared.targets[clips]).to(device))


@torch.no_grad()
def _correct(model: EmotionModel, batch: Batch) -> Tensor:
    correct = torch.zeros_like(batch.labels, dtype=torch.bool)
    for start in range(0, len(correct), CLIPS):
        rows = torch.arange(start, min(start + CLIPS, len(correct)))
        part = batch.at(rows)
        correct[rows] = model(part.waveform, part.lengths).argmax(1) == part.labels
    return correct


def _foreign_statistics(task: Task[ProbeSpec], prepared: Prepared) -> float:
    """Return the distance of the front end's statistics from the training clips'; NaN for a trained front end."""
    victim = task.inputs["victim"]
    frontend = build_model(trained_model(victim).model, len(prepared.classes)).frontend
    if any(True for _ in frontend.parameters()):
        return math.nan
    prefix = "frontend."
    stored = {name.removeprefix(prefix): value for name, value in load_file(victim.path(WEIGHTS)).items()}
    return probes.foreign_statistics(frontend, stored, _training(prepared, task))


def _training(prepared: Prepared, task: Task[ProbeSpec]) -> Iterator[tuple[Tensor, Tensor]]:
    indices = fitted_on(prepared.folds[task.spec.fold], task.spec.fit_on)
    for rows in batches_by_length(prepared.clips.lengths[indices], EVALUATION_BATCH):
        yield prepared.clips.batch([indices[row] for row in rows])
