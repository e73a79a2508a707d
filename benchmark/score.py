"""From stored artefacts to the results table: pool the folds of each cell, then compute every metric on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from advser.errors import ContractError
from advser.job import Outcome
from advser.jobs import Speech
from advser.metrics.base import ClipMetric, Metric
from advser.metrics.statistics import Interval, bootstrap
from advser.models.base import Outputs
from advser.parameters import build
from advser.plan import Cell, FoldKeys, Plan
from advser.plugins import METRICS
from advser.stages.craft import COSTS
from advser.stages.judge import LOGITS
from advser.stages.prepare import Prepared, load_prepared
from advser.store import Artefact, Store
from advser.target import cross_entropy, margin

TRANSCRIPT_COLUMNS = ("transcript", "word_errors", "words", "char_errors", "chars")


@dataclass(frozen=True)
class Status:
    """Whether a figure exists: ``ok``, ``failed`` or ``not-applicable``, and why not."""

    status: str
    reason: str


OK = Status("ok", "")


class Scorer:
    """Scores the cells of one plan.

    Args:
        plan: the plan, carried out.
        store: where its artefacts are.
        failed: outcomes of the jobs that left no artefact, by key.
        speech: the transcriber, or the reason why there is none.
    """

    def __init__(self, plan: Plan, store: Store, failed: Mapping[str, Outcome], speech: Speech) -> None:
        self._plan = plan
        self._store = store
        self._failed = failed
        self._speech = speech
        self._metrics = {
            entry.title: build(METRICS.get(entry.name), entry.params, f"metric '{entry.name}'")
            for entry in plan.suite.metrics
        }
        self._read = lru_cache(maxsize=None)(self._read_columns)
        self._stored = lru_cache(maxsize=None)(self._get)

    def score(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the long results table and the examples table (see ``docs/results.md``)."""
        rows: list[dict[str, Any]] = []
        examples: list[pd.DataFrame] = []
        for cell in self._plan.cells:
            clips, reasons = self._examples(cell)
            examples.append(clips.assign(**cell.columns))
            classes = len(self._prepared(cell.folds[0].prepared).classes)
            for title, metric in self._metrics.items():
                state = self._applicable(metric, cell)
                state = self._present(metric, title, cell) if state == OK else state
                figure = self._figure(title, metric, clips, classes, state, reasons)
                rows.append({**cell.columns, "metric": title, "higher_is_better": metric.higher_is_better, **figure})
        return pd.DataFrame(rows), pd.concat(examples, ignore_index=True)

    def _figure(
        self, title: str, metric: Metric, clips: pd.DataFrame, classes: int, state: Status, reasons: Mapping[str, str]
    ) -> dict[str, Any]:
        empty = {"value": np.nan, "ci_low": np.nan, "ci_high": np.nan, "n": 0, "n_failed": 0}
        if state != OK:
            return {**empty, "status": state.status, "reason": state.reason}
        try:
            interval = self._interval(metric, title, clips, classes)
        except Exception as error:
            return {**empty, "status": "failed", "reason": " ".join(f"{type(error).__name__}: {error}".split())}
        counts = {"n": interval.n, "n_failed": interval.n_failed}
        if interval.n_failed == len(clips):
            return {**empty, **counts, "status": "failed", "reason": reasons.get(title, "no clip could be measured")}
        if np.isnan(interval.value):
            return {**empty, **counts, "status": "not-applicable", "reason": "no clip qualifies"}
        return {
            "value": interval.value, "ci_low": interval.low, "ci_high": interval.high, **counts,
            "status": "ok", "reason": reasons.get(title, ""),
        }  # fmt: skip

    def _interval(self, metric: Metric, title: str, clips: pd.DataFrame, classes: int) -> Interval:
        examples = clips.assign(**{metric.column: clips[title]}) if isinstance(metric, ClipMetric) else clips
        statistics = np.asarray(metric.statistics(examples, classes), np.float64)
        if statistics.ndim != 2 or len(statistics) != len(clips):
            raise ContractError(f"statistics returned the shape {statistics.shape}, allowed: ({len(clips)}, k)")
        speakers = clips["speaker"].to_numpy()
        return bootstrap(metric, statistics, speakers, draws=self._plan.suite.bootstrap, seed=0)

    def _applicable(self, metric: Metric, cell: Cell) -> Status:
        """Tell whether the metric has a meaning on the cell at all."""
        columns = cell.columns
        if "attack" in metric.needs and columns["attack"] == "none":
            return Status("not-applicable", "clean row")
        if "source" in metric.needs and columns["access"] != "transfer":
            return Status("not-applicable", "not a transfer row")
        heard = isinstance(metric, ClipMetric) or {"audio", "transcripts"} & metric.needs
        if heard and columns["delivery"] == "features":
            return Status("not-applicable", "features are no sound")
        if "transcripts" in metric.needs and self._speech.transcriber is None:
            return Status("not-applicable", self._speech.reason)
        return OK

    def _present(self, metric: Metric, title: str, cell: Cell) -> Status:
        """Tell whether all artefacts that the metric is computed from were made."""
        for fold in cell.folds:
            for key in self._keys(metric, title, fold):
                if key in self._failed:
                    return Status("failed", f"fold {fold.fold}: {self._failed[key].reason}")
                stored = self._stored(key)
                if stored is not None and stored.not_applicable:
                    return Status("not-applicable", f"fold {fold.fold}: {stored.not_applicable}")
        return OK

    def _keys(self, metric: Metric, title: str, fold: FoldKeys) -> list[str]:
        keys: list[str | None] = [fold.crafted]
        against_clean = "attack" in metric.needs
        if {"predictions", "source"} & metric.needs:
            keys += [fold.predicted, fold.clean_predicted if against_clean else None]
        if "source" in metric.needs:
            keys.append(fold.source_predicted)
        if isinstance(metric, ClipMetric):
            keys.append(fold.measured[title])
        if "transcripts" in metric.needs:
            keys += [fold.transcribed, fold.clean_transcribed if against_clean else None]
        return [key for key in keys if key is not None]

    def _examples(self, cell: Cell) -> tuple[pd.DataFrame, dict[str, str]]:
        """Return the clips of all folds of a cell, and the commonest failure of each clip metric."""
        parts: list[pd.DataFrame] = []
        failures: dict[str, Counter[str]] = {}
        for fold in cell.folds:
            prepared = self._prepared(fold.prepared)
            rows = prepared.rows.iloc[list(prepared.folds[fold.fold].test)]
            columns: dict[str, Any] = {
                "clip": rows["clip"].to_numpy(),
                "speaker": rows["speaker"].to_numpy(),
                "text": rows["text"].to_numpy(),
                "label": rows["target"].to_numpy(),
                "fold": fold.fold,
                "audio_key": fold.crafted,
                **self._predictions(fold, rows["target"].to_numpy()),
                **self._costs(fold),
                **self._transcripts(fold),
            }
            for title, key in fold.measured.items():
                columns[title], reasons = self._values(key, len(rows))
                failures.setdefault(title, Counter()).update(reasons)
            parts.append(pd.DataFrame(columns))
        commonest = {
            title: f"{counter.total()} clips failed, most often: {counter.most_common(1)[0][0]}"
            for title, counter in failures.items()
            if counter
        }
        return pd.concat(parts, ignore_index=True), commonest

    def _predictions(self, fold: FoldKeys, targets: Any) -> dict[str, Any]:
        logits = self._logits(fold.predicted)
        clean = self._logits(fold.clean_predicted)
        source = self._logits(fold.source_predicted)
        columns: dict[str, Any] = {
            "clean_prediction": -1 if clean is None else clean.argmax(1).numpy(),
            "source_prediction": -1 if source is None else source.argmax(1).numpy(),
        }
        if logits is None:
            return {**columns, "prediction": -1, "loss": np.nan, "margin": np.nan}
        labels = torch.tensor(targets)
        outputs = Outputs(logits, embedding=logits.new_empty(len(logits), 0))
        return {
            **columns,
            "prediction": logits.argmax(1).numpy(),
            "loss": cross_entropy(outputs, labels).numpy(),
            "margin": -margin(outputs, labels).numpy(),
        }

    def _logits(self, key: str | None) -> torch.Tensor | None:
        artefact = self._artefact(key)
        return None if artefact is None else load_file(artefact.path(LOGITS))["logits"]

    def _costs(self, fold: FoldKeys) -> dict[str, Any]:
        artefact = self._artefact(fold.crafted)
        if artefact is None:
            return dict.fromkeys(("seconds", "forwards", "backwards"), np.nan)
        return {name: value.double().numpy() for name, value in load_file(artefact.path(COSTS)).items()}

    def _transcripts(self, fold: FoldKeys) -> dict[str, Any]:
        heard = self._read(fold.transcribed, "transcripts.json")
        clean = self._read(fold.clean_transcribed, "transcripts.json")
        columns: dict[str, Any] = {
            name: None if heard is None else [one[name] for one in heard] for name in TRANSCRIPT_COLUMNS
        }
        for name in ("word_errors", "char_errors"):
            columns[f"clean_{name}"] = None if clean is None else [one[name] for one in clean]
        return columns

    def _values(self, key: str, clips: int) -> tuple[list[float], list[str]]:
        found = self._read(key, "values.json")
        if found is None:
            return [np.nan] * clips, []
        values = [np.nan if one["value"] is None else one["value"] for one in found]
        return values, [one["reason"] for one in found if one["value"] is None]

    def _read_columns(self, key: str | None, name: str) -> list[dict[str, Any]] | None:
        artefact = self._artefact(key)
        found: list[dict[str, Any]] | None = None if artefact is None else artefact.json(name)
        return found

    def _artefact(self, key: str | None) -> Artefact | None:
        """Return what a job made; None if there is no such job, it failed, or it has no meaning."""
        stored = None if key is None else self._stored(key)
        return None if stored is None or stored.not_applicable else stored

    def _get(self, key: str) -> Artefact | None:
        return self._store.get(key) if key in self._store else None

    def _prepared(self, key: str) -> Prepared:
        return load_prepared(self._store.get(key))
