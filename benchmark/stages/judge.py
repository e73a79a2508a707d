"""Stage 4: judge stored examples: what a victim hears, how they sound, what a speech recogniser writes."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from advser.audio.clips import Clips, batches_by_length
from advser.audio.pcm import SAMPLE_RATE, Pcm, from_pcm
from advser.errors import ContractError, MeasurementError, NotApplicableError
from advser.metrics.base import ClipMetric, ModelMetric
from advser.metrics.transcription import count_errors
from advser.models.terms import Domain
from advser.plugins.parameters import build
from advser.plugins.registries import METRICS, TRANSCRIBERS
from advser.stages.craft import FEATURES
from advser.stages.job import Task
from advser.stages.prepare import AUDIO, load_clips, load_prepared
from advser.stages.train import load_model, load_models
from advser.store.digests import seed_from
from advser.store.tensors import StoredTensor

LOGITS = "logits.safetensors"


def predict(task: Task) -> None:
    """Write the victim's logits (N, C) on the stored sound, or on the stored features, and its detector's (N,), if any.

    A victim that draws at random (a randomised defense) draws the same at every run.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed_from(task.spec))
        _predict(task)


def _predict(task: Task) -> None:
    victim = load_models(task.inputs, "victim", task.device)
    by_features = task.spec["delivery"] == "features"
    domain: Domain = "spectrogram" if by_features else "waveform"
    features = StoredTensor.find(task.inputs["crafted"].path(FEATURES), "features") if by_features else None
    sound = clean_clips(task) if by_features else judged_clips(task)
    found: dict[str, dict[int, Tensor]] = {"logits": {}, "detections": {}}
    for batch in batches_by_length(sound.lengths, task.spec["batch_size"]):
        waveform, lengths = sound.batch(batch)
        x = waveform if features is None else features.rows(batch)
        outputs = victim.outputs(x.to(task.device), lengths.to(task.device), domain)
        found["logits"] |= zip(batch, outputs.logits.float().cpu(), strict=True)
        if outputs.detection is not None:
            found["detections"] |= zip(batch, outputs.detection.float().cpu(), strict=True)
    stacked = {name: torch.stack([rows[row] for row in range(len(sound))]) for name, rows in found.items() if rows}
    if not all(values.isfinite().all() for values in stacked.values()):
        raise ContractError("the model's logits are not finite")
    save_file(stacked, task.into / LOGITS)


def measure(task: Task) -> None:
    """Write one metric of each stored clip against the clean one: a value, or the reason why there is none."""
    metric = build(METRICS.get(task.spec["metric"]["name"]), task.spec["metric"]["params"], task.spec["metric"]["name"])
    assert isinstance(metric, ClipMetric)
    found = [_measured(metric, *pair) for pair in zip(clean_clips(task), judged_clips(task), strict=True)]
    (task.into / "values.json").write_text(json.dumps(found), encoding="utf-8")


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


def transcribe(task: Task) -> None:
    """Write the transcript of each stored clip and its errors against what was said."""
    spec = task.spec["transcriber"]
    params = {**spec["params"], **task.local}
    engine = build(TRANSCRIBERS.get(spec["name"]), params, f"transcriber '{spec['name']}'")
    prepared = load_prepared(task.inputs["prepared"])
    if engine.fingerprint(prepared.language) != task.spec["model"]:
        raise ContractError(f"this worker's {spec['name']} has another model; give all workers the same")
    judged = judged_clips(task)
    texts = prepared.rows["text"].iloc[list(prepared.folds[task.spec["fold"]].test)]
    heard = engine.transcribe(judged, prepared.language, prepared.sentences)
    found = [
        {"transcript": transcript, **asdict(count_errors(text, transcript, prepared.language))}
        for text, transcript in zip(texts, heard, strict=True)
    ]
    (task.into / "transcripts.json").write_text(json.dumps(found), encoding="utf-8")


def judged_clips(task: Task) -> Clips:
    """Return the stored sound of a job's crafted clips.

    Raises:
        NotApplicableError: if the source's features cannot be turned back into sound.
    """
    path = task.inputs["crafted"].path(AUDIO)
    if not path.exists():
        raise NotApplicableError("this model's features cannot be turned back into sound")
    return load_clips(path)


def clean_clips(task: Task) -> Clips:
    """Return the unperturbed test clips of a job's fold."""
    prepared = load_prepared(task.inputs["prepared"])
    return prepared.clips.select(prepared.folds[task.spec["fold"]].test)


def examine(task: Task) -> None:
    """Write one metric of each stored clip, as found by the victim: a value, or the reason why there is none.

    What a metric or a randomised victim draws is the same at every run.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed_from(task.spec))
        _examine(task)


def _examine(task: Task) -> None:
    spec = task.spec["metric"]
    metric = build(METRICS.get(spec["name"]), spec["params"], f"metric '{spec['name']}'")
    assert isinstance(metric, ModelMetric)
    prepared = load_prepared(task.inputs["prepared"])
    targets = torch.from_numpy(prepared.targets[list(prepared.folds[task.spec["fold"]].test)])
    victim = load_model(task.inputs["victim"], task.device)
    clean, judged = clean_clips(task), judged_clips(task)
    values = torch.full((len(clean),), torch.nan)
    for rows in batches_by_length(clean.lengths, task.spec["batch_size"]):
        waveform, lengths = (part.to(task.device) for part in clean.batch(rows))
        heard = judged.batch(rows)[0].to(task.device)
        found = metric.measure(victim, waveform, heard, lengths, targets[rows].to(task.device))
        if found.shape != (len(rows),):
            raise ContractError(f"measure returned the shape {tuple(found.shape)}, expected ({len(rows)},)")
        values[rows] = found.detach().float().cpu()
    described = [
        {"value": value, "reason": None} if value == value else {"value": None, "reason": metric.undefined}
        for value in values.tolist()
    ]
    (task.into / "values.json").write_text(json.dumps(described), encoding="utf-8")
