"""Stage 4: judge stored clips: a victim's logits, metrics of the sound, metrics of the victim, transcripts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from advser.audio.clips import Clips, batches_by_length
from advser.audio.pcm import SAMPLE_RATE, Pcm, from_pcm
from advser.errors import ContractError, MeasurementError, NotApplicableError
from advser.metrics.base import ClipMetric, Metric, ModelMetric
from advser.metrics.transcription import count_errors
from advser.models.terms import Domain
from advser.plugins.parameters import build
from advser.plugins.registries import METRICS, TRANSCRIBERS
from advser.stages.craft import FEATURES
from advser.stages.job import Task
from advser.stages.prepare import AUDIO, load_clips, load_prepared, test_sound
from advser.stages.seeds import seed_of
from advser.stages.specs import ExamineSpec, MeasureSpec, PluginSpec, PredictSpec, TranscribeSpec
from advser.stages.train import load_model, load_models
from advser.store.tensors import StoredTensor
from advser.threat.budget import Budget

LOGITS = "logits.safetensors"
VALUES = "values.json"
TRANSCRIPTS = "transcripts.json"


def predict(task: Task[PredictSpec]) -> None:
    """Write the victim's logits (N, C) on the stored sound or features, and its detector's (N,) if it has one.

    A randomised victim draws the same numbers at every run.

    Raises:
        ContractError: if the stored sound exceeds the budget, or a logit is not finite.
    """
    if task.spec.budget is not None:
        _check_budget(task, task.spec.budget)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed_of(task.spec))
        _predict(task)


def _predict(task: Task[PredictSpec]) -> None:
    task.admit_plugins()
    victim = load_models(task.inputs, "victim", task.device)
    by_features = task.spec.delivery == "features"
    domain: Domain = "spectrogram" if by_features else "waveform"
    features = StoredTensor.find(task.inputs["crafted"].path(FEATURES), "features") if by_features else None
    sound = clean_clips(task) if by_features else judged_clips(task)
    rows: dict[str, dict[int, Tensor]] = {"logits": {}, "detections": {}}
    for batch in batches_by_length(sound.lengths, task.spec.batch_size):
        waveform, lengths = sound.batch(batch)
        x = waveform if features is None else features.rows(batch)
        outputs = victim.outputs(x.to(task.device), lengths.to(task.device), domain)
        rows["logits"] |= zip(batch, outputs.logits.float().cpu(), strict=True)
        if outputs.detection is not None:
            rows["detections"] |= zip(batch, outputs.detection.float().cpu(), strict=True)
    stacked = {name: torch.stack([parts[row] for row in range(len(sound))]) for name, parts in rows.items() if parts}
    if not all(values.isfinite().all() for values in stacked.values()):
        raise ContractError("the model's logits are not finite")
    save_file(stacked, task.into / LOGITS)


def _check_budget(task: Task[PredictSpec], budget: Budget) -> None:
    """Check the stored sound again: the process that stored it ran the attack's code."""
    clean, judged = clean_clips(task), judged_clips(task)
    for rows in batches_by_length(clean.lengths, task.spec.batch_size):
        (x, _), (stored, _) = clean.batch(rows), judged.batch(rows)
        if stored.shape != x.shape or budget.exceeded(stored, x).any():
            raise ContractError(f"the stored sound exceeds the budget {budget.epsilon:g} ({budget.norm})")


def _metric(spec: PluginSpec) -> Metric:
    return build(METRICS.get(spec.name), spec.params, f"metric '{spec.name}'")


def measure(task: Task[MeasureSpec]) -> None:
    """Write one metric of each stored clip against the clean one: a value, or the reason why there is none."""
    task.admit_plugins()
    metric = _metric(task.spec.metric)
    assert isinstance(metric, ClipMetric)
    values = [_measured(metric, *pair) for pair in zip(clean_clips(task), judged_clips(task), strict=True)]
    (task.into / VALUES).write_text(json.dumps(values), encoding="utf-8")


def _measured(metric: ClipMetric, clean: Pcm, judged: Pcm) -> dict[str, float | str | bool | None]:
    try:
        value = float(metric.measure(from_pcm(clean), from_pcm(judged), SAMPLE_RATE))
    except NotApplicableError as error:
        return {"value": None, "reason": str(error), "counts": False}
    except MeasurementError as error:
        return {"value": None, "reason": str(error)}
    if not np.isfinite(value):
        return {"value": None, "reason": f"the result is {value}"}
    return {"value": value, "reason": None}


def examine(task: Task[ExamineSpec]) -> None:
    """Write one metric that needs the victim, of each stored clip: a value, or the reason why there is none.

    A metric or a randomised victim draws the same numbers at every run.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(task.spec))
        _examine(task)


def _examine(task: Task[ExamineSpec]) -> None:
    prepared = load_prepared(task.inputs["prepared"])
    targets = torch.from_numpy(prepared.targets[list(prepared.folds[task.spec.fold].test)])
    task.admit_plugins()
    metric = _metric(task.spec.metric)
    assert isinstance(metric, ModelMetric)
    victim = load_model(task.inputs["victim"], task.device)
    clean, judged = clean_clips(task), judged_clips(task)
    values = torch.full((len(clean),), torch.nan)
    for rows in batches_by_length(clean.lengths, task.spec.batch_size):
        waveform, lengths = (part.to(task.device) for part in clean.batch(rows))
        perturbed = judged.batch(rows)[0].to(task.device)
        batch_values = metric.measure(victim, waveform, perturbed, lengths, targets[rows].to(task.device))
        if batch_values.shape != (len(rows),):
            raise ContractError(f"measure returned the shape {tuple(batch_values.shape)}, expected ({len(rows)},)")
        values[rows] = batch_values.detach().float().cpu()
    described = [
        {"value": None, "reason": metric.undefined} if np.isnan(value) else {"value": value, "reason": None}
        for value in values.tolist()
    ]
    (task.into / VALUES).write_text(json.dumps(described), encoding="utf-8")


def transcribe(task: Task[TranscribeSpec]) -> None:
    """Write the transcript of each stored clip, and its errors against the reference text."""
    spec = task.spec.transcriber
    prepared = load_prepared(task.inputs["prepared"])
    task.admit_plugins()
    engine = build(TRANSCRIBERS.get(spec.name), {**spec.params, **task.local}, f"transcriber '{spec.name}'")
    if engine.fingerprint(prepared.language) != task.spec.model:
        raise ContractError(f"this worker's {spec.name} has another model; give all workers the same")
    references = prepared.rows["text"].iloc[list(prepared.folds[task.spec.fold].test)]
    transcripts = engine.transcribe(judged_clips(task), prepared.language, prepared.sentences)
    rows = [
        {"transcript": transcript, **asdict(count_errors(reference, transcript, prepared.language))}
        for reference, transcript in zip(references, transcripts, strict=True)
    ]
    (task.into / TRANSCRIPTS).write_text(json.dumps(rows), encoding="utf-8")


def judged_clips(task: Task[Any]) -> Clips:
    """Return the stored sound of a job's perturbed clips.

    Raises:
        NotApplicableError: if the source's features cannot be turned back into sound.
    """
    path = task.inputs["crafted"].path(AUDIO)
    if not path.exists():
        raise NotApplicableError("this model's features cannot be turned back into sound")
    return load_clips(path)


def clean_clips(task: Task[Any]) -> Clips:
    """Return the clean test clips of a job's fold."""
    return test_sound(task.inputs["prepared"], task.spec.fold)
