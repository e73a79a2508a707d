"""What a victim itself tells of each stored clip: metrics that need the model, not its decision alone."""

from __future__ import annotations

import json

import torch

from advser.audio.clips import batches_by_length
from advser.errors import ContractError
from advser.metrics.base import ModelMetric
from advser.plugins.parameters import build
from advser.plugins.registries import METRICS
from advser.stages.job import Task
from advser.stages.judge import clean_clips, judged_clips
from advser.stages.prepare import load_prepared
from advser.stages.train import load_model
from advser.store.seeds import seed_from


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
