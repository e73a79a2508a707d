"""From stored artefacts to the results table: pool the folds of each cell, then compute every metric on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors.torch import load_file

from advser.errors import ContractError
from advser.job import Outcome
from advser.jobs import MEASURED, Speech, no_meaning
from advser.metrics.base import Metric
from advser.metrics.statistics import Interval, bootstrap
from advser.models.base import Outputs
from advser.parameters import build
from advser.plan import Cell, FoldKeys, Plan
from advser.plugins import METRICS, MODELS
from advser.stages.craft import COSTS
from advser.stages.judge import LOGITS
from advser.stages.prepare import Prepared, load_prepared
from advser.store import Artefact, Store
from advser.target import cross_entropy, margin
from advser.worst import choices, columns_of, members, taken

TRANSCRIPT_COLUMNS = ("transcript", "word_errors", "words", "char_errors", "chars")


@dataclass(frozen=True)
class Status:
    """Whether a figure exists: ``ok``, ``failed`` or ``not-applicable``, and why not."""

    status: str
    reason: str


OK = Status("ok", "")

NOTHING: Final[dict[str, Any]] = {"value": None, "reason": None}

Measured = Mapping[str, Sequence[Mapping[str, Any]]]
"""By the metric's title, what was found of each clip: ``value``, ``reason`` and, if it has no meaning, ``counts``."""


@dataclass(frozen=True)
class _Unmeasured:
    """What clip metrics did not measure, by the metric's title.

    Attributes:
        reasons: how many clips failed, and the commonest reason.
        uncounted: which clips the metric has no meaning on (N,); they count neither as measured nor as failed.
        without_meaning: the commonest reason of that.
    """

    reasons: Mapping[str, str]
    uncounted: Mapping[str, npt.NDArray[np.bool_]]
    without_meaning: Mapping[str, str]


def _unmeasured(measured: Measured) -> _Unmeasured:
    failed, without, masks = {}, {}, {}
    for title, found in measured.items():
        meant = [one.get("counts", True) for one in found]
        failures = Counter(one["reason"] for one, counts in zip(found, meant, strict=True) if counts and one["reason"])
        if failures:
            failed[title] = f"{failures.total()} clips failed, most often: {failures.most_common(1)[0][0]}"
        if not all(meant):
            masks[title] = ~np.array(meant)
            reasons = Counter(one["reason"] for one, counts in zip(found, meant, strict=True) if not counts)
            without[title] = reasons.most_common(1)[0][0]
    return _Unmeasured(failed, masks, without)


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
        self._models = {entry.title: entry.name for entry in plan.suite.models}
        self._read = lru_cache(maxsize=None)(self._read_columns)
        self._stored = lru_cache(maxsize=None)(self._get)

    def score(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the long results table and the examples table (see ``docs/results.md``)."""
        rows: list[dict[str, Any]] = []
        examples: list[pd.DataFrame] = []
        for cell in self._plan.cells:
            clips, measured = self._examples(cell)
            examples.append(clips.assign(**cell.columns))
            rows += self._rows(cell, clips, measured)
        for declared in self._plan.suite.worst:
            for cells in members(self._plan.cells, declared):
                columns = columns_of(cells, declared)
                clips, measured = self._worst(cells)
                examples.append(clips.assign(**columns))
                rows += self._rows(Cell(columns, cells[0].folds), clips, measured, of=cells)
        return pd.DataFrame(rows), pd.concat(examples, ignore_index=True)

    def _rows(
        self, cell: Cell, clips: pd.DataFrame, measured: Measured, of: Sequence[Cell] = ()
    ) -> Iterator[dict[str, Any]]:
        """Yield a row a metric; ``of`` are the cells that ``cell`` is the worst of."""
        unmeasured = _unmeasured(measured)
        classes = len(self._prepared(cell.folds[0].prepared).classes)
        for title, metric in self._metrics.items():
            state = self._applicable(metric, cell)
            for part in of or (cell,):
                state = self._present(metric, title, part) if state == OK else state
            state = _detected(metric, clips) if state == OK else state
            figure = self._figure(title, metric, clips, classes, state, unmeasured)
            if of and figure["status"] == "ok":
                figure["reason"] = "; ".join(filter(None, [f"worst of {len(of)}, clip by clip", figure["reason"]]))
            yield {**cell.columns, "metric": title, "higher_is_better": metric.higher_is_better, **figure}

    def _worst(self, cells: Sequence[Cell]) -> tuple[pd.DataFrame, Measured]:
        """Return the worst row of each clip over several cells of one victim, and what was measured of it there."""
        examples, measured = zip(*(self._examples(cell) for cell in cells), strict=True)
        chosen = choices(examples)
        found = {title: [measured[which][title][clip] for clip, which in enumerate(chosen)] for title in measured[0]}
        return taken(examples, chosen), found

    def _figure(
        self, title: str, metric: Metric, clips: pd.DataFrame, classes: int, state: Status, unmeasured: _Unmeasured
    ) -> dict[str, Any]:
        empty = {"value": np.nan, "ci_low": np.nan, "ci_high": np.nan, "n": 0, "n_failed": 0}
        if state != OK:
            return {**empty, "status": state.status, "reason": state.reason}
        uncounted = unmeasured.uncounted.get(title)
        try:
            interval = self._interval(metric, title, clips, classes, uncounted)
        except Exception as error:
            return {**empty, "status": "failed", "reason": " ".join(f"{type(error).__name__}: {error}".split())}
        counts = {"n": interval.n, "n_failed": interval.n_failed}
        if interval.n_failed == len(clips):
            reason = unmeasured.reasons.get(title, "no clip could be measured")
            return {**empty, **counts, "status": "failed", "reason": reason}
        if np.isnan(interval.value):
            reason = unmeasured.without_meaning.get(title, "no clip qualifies")
            return {**empty, **counts, "status": "not-applicable", "reason": reason}
        return {
            "value": interval.value, "ci_low": interval.low, "ci_high": interval.high, **counts,
            "status": "ok", "reason": unmeasured.reasons.get(title, ""),
        }  # fmt: skip

    def _interval(
        self, metric: Metric, title: str, clips: pd.DataFrame, classes: int, uncounted: npt.NDArray[np.bool_] | None
    ) -> Interval:
        examples = clips.assign(**{metric.column: clips[title]}) if isinstance(metric, MEASURED) else clips
        statistics = np.asarray(metric.statistics(examples, classes), np.float64)
        if statistics.ndim != 2 or len(statistics) != len(clips):
            raise ContractError(f"statistics returned the shape {statistics.shape}, allowed: ({len(clips)}, k)")
        if uncounted is not None:
            statistics = np.where(uncounted[:, None], 0.0, statistics)
        speakers = clips["speaker"].to_numpy()
        return bootstrap(metric, statistics, speakers, draws=self._plan.suite.bootstrap, seed=0)

    def _applicable(self, metric: Metric, cell: Cell) -> Status:
        """Tell whether the metric has a meaning on the cell at all."""
        victim = MODELS.get(self._models[cell.columns["model"]])
        if reason := no_meaning(type(metric), cell.columns, differentiable=victim.differentiable):
            return Status("not-applicable", reason)
        if "transcripts" in metric.needs and self._speech.transcriber is None:
            return Status("not-applicable", self._speech.reason)
        return OK

    def _present(self, metric: Metric, title: str, cell: Cell) -> Status:
        """Tell whether all artefacts that the metric is computed from were made; a failure outweighs no meaning."""
        found = [self._state(fold.fold, key) for fold in cell.folds for key in self._keys(metric, title, fold)]
        return min(found, key=lambda state: ("failed", "not-applicable", "ok").index(state.status), default=OK)

    def _state(self, fold: str, key: str) -> Status:
        if key in self._failed:
            return Status("failed", f"fold {fold}: {self._failed[key].reason}")
        stored = self._stored(key)
        if stored is None:
            return Status("failed", f"fold {fold}: its artefact is not in the store")
        return Status("not-applicable", f"fold {fold}: {stored.not_applicable}") if stored.not_applicable else OK

    def _keys(self, metric: Metric, title: str, fold: FoldKeys) -> list[str]:
        keys: list[str | None] = [fold.crafted]
        against_clean = "attack" in metric.needs
        if {"predictions", "source"} & metric.needs:
            keys += [fold.predicted, fold.clean_predicted if against_clean else None]
        if "source" in metric.needs:
            keys.append(fold.source_predicted)
        if isinstance(metric, MEASURED):
            keys.append({**fold.measured, **fold.examined}[title])
        if "transcripts" in metric.needs:
            keys += [fold.transcribed, fold.clean_transcribed if against_clean else None]
        return [key for key in keys if key is not None]

    def _examples(self, cell: Cell) -> tuple[pd.DataFrame, Measured]:
        """Return the clips of all folds of a cell, and what was measured of them."""
        parts: list[pd.DataFrame] = []
        measured: dict[str, list[dict[str, Any]]] = {}
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
            for title, key in {**fold.measured, **fold.examined}.items():
                found = self._read(key, "values.json") or [NOTHING] * len(rows)
                columns[title] = [np.nan if one["value"] is None else one["value"] for one in found]
                measured.setdefault(title, []).extend(found)
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True), measured

    def _predictions(self, fold: FoldKeys, targets: Any) -> dict[str, Any]:
        judged, unattacked = self._said(fold.predicted), self._said(fold.clean_predicted)
        logits, clean = judged.get("logits"), unattacked.get("logits")
        source = self._said(fold.source_predicted).get("logits")
        columns: dict[str, Any] = {
            "clean_prediction": -1 if clean is None else clean.argmax(1).numpy(),
            "source_prediction": -1 if source is None else source.argmax(1).numpy(),
            "detection": judged["detections"].numpy() if "detections" in judged else np.nan,
            "clean_detection": unattacked["detections"].numpy() if "detections" in unattacked else np.nan,
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

    def _said(self, key: str | None) -> dict[str, torch.Tensor]:
        """Return what a model said of the clips: its logits, and its detector's; nothing if there is no such job."""
        artefact = self._artefact(key)
        return {} if artefact is None else load_file(artefact.path(LOGITS))

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


def _detected(metric: Metric, clips: pd.DataFrame) -> Status:
    """Tell whether the victim has the detector that the metric is about."""
    if "detections" in metric.needs and clips["detection"].isna().all():
        return Status("not-applicable", "the victim has no detector")
    return OK
