"""The stage that probes a trained model for the audit, on the test clips of one fold."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor

from advser.audio.clips import MOST_SOUND, batches_by_length
from advser.defenses.base import Defense
from advser.models.base import EmotionModel
from advser.stages.job import Task
from advser.stages.prepare import Prepared, load_prepared
from advser.stages.probes import answers, gradients, robustness
from advser.stages.probes.batch import BUDGET, Batch
from advser.stages.probes.recognition import effect_of_inaudible_changes
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
"""Most clips whose gradient is probed: of those that the model classifies correctly, evenly spread."""

TEST_CLIPS: Final = 500
"""Most clips that are changed inaudibly: all test clips of the fold, or so many evenly spread over it."""

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
    correct = candidates.correct(model)
    probed = candidates.at(torch.tensor(_evenly(correct.nonzero()[:, 0].tolist(), CLIPS) or [0]))
    generator = torch.Generator(task.device).manual_seed(0)
    defense = load_defense(task.inputs["victim"])
    test = _evenly(prepared.folds[task.spec.fold].test, TEST_CLIPS)
    results: dict[str, Any] = {
        "clips": len(probed.labels) if correct.any() else 0,
        "test_clips": len(test),
        "inaudible": effect_of_inaudible_changes(model, _batches(prepared, test, task.device), generator),
        "company": answers.batch_dependence(model, probed),
        "companions": answers.neighbour_dependence(model, candidates),
        "probabilities": answers.probabilities(model, candidates),
        "disagreement": answers.disagreement(model, probed),
        "changed": answers.changed_state(model, probed),
        "foreign_statistics": _foreign_statistics(task, prepared),
    }
    # No better than the majority class, a model answers most sound alike: attacks do not move it, nothing is masked.
    if not model.differentiable or correct.sum() <= candidates.labels.bincount().max():
        return results
    return results | _of_gradient(model, defense, probed, generator)


def _of_gradient(model: EmotionModel, defense: Defense, probed: Batch, generator: torch.Generator) -> dict[str, Any]:
    nearby = probed.nearby(model, generator)
    both = [gradients.in_double(model, batch) for batch in (probed, nearby)]
    precise = both[0][1].waveform.dtype == torch.float64
    limit = gradients.FALSE if precise else gradients.FALSE_IN_FLOAT32
    errors = [gradients.derivative_error(*pair) for pair in both]
    adaptive: dict[str, Any] = {}
    if type(defense).adaptive is not Defense.adaptive:
        # Near the clips alone: a distance to the clean clip has no gradient on it.
        informed = nearby.informed(model, defense.adaptive, probed.waveform)
        adaptive = {
            "adaptive_without_gradient": gradients.without_gradient(model, informed),
            "adaptive_false": _false(gradients.derivative_error(*gradients.in_double(model, informed)), limit),
        }
    return adaptive | {
        "without_gradient": gradients.without_gradient(model, probed, cross_entropy),
        "derivative_limit": limit,
        "derivative_error": _largest([_median(error) for error in errors]),
        "not_resolved": max(int(error.isnan().sum()) for error in errors),
        "false": max(_false(error, limit) for error in errors),
        "unexplained_change": _largest([gradients.unexplained_change(*pair, generator) for pair in both]),
        "standing_huge": robustness.least_robust(model, probed, nearby.waveform),
        "advantage_of_scores": robustness.advantage_of_scores(model, probed, nearby.waveform, generator),
        "standing": robustness.robust_share(model, probed, nearby.waveform, BUDGET, robustness.STEPS),
        "standing_doubled": robustness.robust_share(model, probed, nearby.waveform, BUDGET, 2 * robustness.STEPS),
    }


def _false(errors: Tensor, limit: float) -> int:
    """Return the number of clips whose gradient is false."""
    return int((errors > limit).sum())


def _median(errors: Tensor) -> float:
    """Return the median over the clips that are resolved; NaN for less than half of them."""
    return float(errors.nanmedian()) if errors.isfinite().sum() * 2 >= len(errors) else math.nan


def _largest(values: list[float]) -> float:
    """Return the largest value; NaN if all are NaN."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def _spread(prepared: Prepared, fold: str, device: str) -> Batch:
    spread = _evenly(prepared.folds[fold].test, CANDIDATES)
    lengths = prepared.clips.lengths
    clips = [clip for clip in spread if len(spread) * lengths[clip] <= MOST_SOUND] or [min(spread, key=lengths.item)]
    return _batch(prepared, clips, device)


def _evenly(clips: Sequence[int], most: int) -> list[int]:
    """Return at most ``most`` clips, evenly spread."""
    return list(clips)[:: max(1, -(-len(clips) // most))]


def _batch(prepared: Prepared, clips: list[int], device: str) -> Batch:
    waveform, ends = prepared.clips.batch(clips)
    return Batch(waveform.to(device), ends.to(device), torch.from_numpy(prepared.targets[clips]).to(device))


def _batches(prepared: Prepared, clips: list[int], device: str) -> Iterator[Batch]:
    for rows in batches_by_length(prepared.clips.lengths[clips], EVALUATION_BATCH):
        yield _batch(prepared, [clips[row] for row in rows], device)


def _foreign_statistics(task: Task[ProbeSpec], prepared: Prepared) -> float:
    """Return the distance of the front end's statistics from the training clips'; NaN for a trained front end."""
    victim = task.inputs["victim"]
    frontend = build_model(trained_model(victim).model, len(prepared.classes)).frontend
    if any(True for _ in frontend.parameters()):
        return math.nan
    prefix = "frontend."
    stored = {name.removeprefix(prefix): value for name, value in load_file(victim.path(WEIGHTS)).items()}
    return answers.foreign_statistics(frontend, stored, _training(prepared, task))


def _training(prepared: Prepared, task: Task[ProbeSpec]) -> Iterator[tuple[Tensor, Tensor]]:
    indices = fitted_on(prepared.folds[task.spec.fold], task.spec.fit_on)
    for rows in batches_by_length(prepared.clips.lengths[indices], EVALUATION_BATCH):
        yield prepared.clips.batch([indices[row] for row in rows])
