"""The results table from stored artefacts: pool the folds of each cell, then compute every metric on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from advser.errors import ContractError, one_line
from advser.metrics.base import Array, Metric
from advser.plan.cells import Cell, FoldKeys, Plan, Speech
from advser.plan.jobs import MEASURED, no_meaning
from advser.plan.worst_case import choices, columns_of, members, taken
from advser.plugins.parameters import build
from advser.plugins.registries import METRICS, MODELS
from advser.results.schema import CLEAN, POOLED_SCHEMA
from advser.scoring.bootstrap import aligned_sums, bootstrap
from advser.scoring.chance_baselines import BASELINE_METRICS, MAJORITY, REASONS, chance_baselines, most_frequent
from advser.scoring.examples import ExampleReader, Measurements
from advser.scoring.ranks import EvaluatedCell, ranks
from advser.scoring.significance import pooled
from advser.stages.job import Outcome
from advser.stages.train import fitted_on
from advser.store.artefacts import Store

Row = dict[str, Any]
"""A row of the results table, by column."""


@dataclass(frozen=True)
class Status:
    """Whether a figure exists: ``ok``, ``failed`` or ``not-applicable``, and why not."""

    status: str
    reason: str


OK = Status("ok", "")

UNTOUCHED: Final[Mapping[str, Any]] = {"value": None, "reason": "the clip was left as it is", "counts": False}
"""Measurement by a metric of attacks on a clip whose worst case is no attack."""


@dataclass(frozen=True)
class _Unmeasured:
    """Clips without a measurement, by the metric's title.

    Attributes:
        reasons: number of failed clips, and the most frequent reason.
        uncounted: clips that the metric does not apply to (N,); they count neither as measured nor as failed.
        without_meaning: the most frequent reason of those.
    """

    reasons: Mapping[str, str]
    uncounted: Mapping[str, npt.NDArray[np.bool_]]
    without_meaning: Mapping[str, str]


def _unmeasured(measurements: Measurements) -> _Unmeasured:
    failed, without_meaning, masks = {}, {}, {}
    for title, clips in measurements.items():
        applies = [clip.get("counts", True) for clip in clips]
        failures = Counter(clip["reason"] for clip in clips if clip.get("counts", True) and clip["reason"])
        if failures:
            failed[title] = f"{failures.total()} clips failed, most often: {failures.most_common(1)[0][0]}"
        if not all(applies):
            masks[title] = ~np.array(applies)
            reasons = Counter(clip["reason"] for clip in clips if not clip.get("counts", True))
            without_meaning[title] = reasons.most_common(1)[0][0]
    return _Unmeasured(failed, masks, without_meaning)


@dataclass(frozen=True, eq=False)
class _CellExamples:
    """The examples of a cell.

    Attributes:
        cell: the cell.
        clips: table of its clips.
        measurements: of each clip.
        worst_of: the cells over which it is the worst case; empty for a cell with an attack of its own.
    """

    cell: Cell
    clips: pd.DataFrame
    measurements: Measurements
    worst_of: tuple[Cell, ...] = ()

    @cached_property
    def unmeasured(self) -> _Unmeasured:
        return _unmeasured(self.measurements)


_ScoredCell = tuple[_CellExamples, Mapping[str, Row]]
"""A cell's examples, and its row for each metric, by title."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The tables of the results, as in `advser.results.Results`."""

    table: pd.DataFrame
    examples: pd.DataFrame
    ranks: pd.DataFrame
    pooled: pd.DataFrame


class Scorer:
    """Computes the tables of the results of one plan.

    Args:
        plan: an executed plan.
        store: store with its artefacts.
        failed: outcomes of the jobs without an artefact, by key.
        speech: the transcriber, or the reason why there is none.
    """

    def __init__(self, plan: Plan, store: Store, failed: Mapping[str, Outcome], speech: Speech) -> None:
        self._plan = plan
        self._reader = ExampleReader(plan, store)
        self._failed = failed
        self._speech = speech
        self._metrics = {
            entry.title: build(METRICS.get(entry.name), entry.params, f"metric '{entry.name}'")
            for entry in plan.suite.metrics
        }
        self._models = {entry.title: entry.name for entry in plan.suite.models}

    def score(self) -> Scored:
        """Return the tables of the results (see ``docs/results.md``)."""
        cells = [_CellExamples(cell, *self._reader.examples(cell)) for cell in self._plan.cells]
        for declared in self._plan.suite.worst:
            for attacked in members(self._plan.cells, declared):
                worst = Cell(columns_of(attacked, declared), attacked[0].folds)
                cells.append(_CellExamples(worst, *self._worst(attacked), worst_of=tuple(attacked)))
        scored = [(examples, self._rows(examples)) for examples in cells]
        rows = [row for _, by_metric in scored for row in by_metric.values()]
        evaluated = [EvaluatedCell(examples.cell.columns, examples.clips) for examples in cells]
        classes = self._reader.classes(cells[0].cell)
        baselines, pooled_baselines = self._chance_baselines(cells)
        return Scored(
            pd.DataFrame([*rows, *baselines]),
            pd.concat([examples.clips.assign(**examples.cell.columns) for examples in cells], ignore_index=True),
            ranks(evaluated, self._plan.suite, self._metrics, classes),
            pd.DataFrame([*self._pooled(scored), *pooled_baselines], columns=POOLED_SCHEMA.names),
        )

    def _rows(self, examples: _CellExamples) -> dict[str, Row]:
        """Return the row of a cell for each metric, by the metric's title."""
        cell, worst_of = examples.cell, examples.worst_of
        rows: dict[str, Row] = {}
        for title, metric in self._metrics.items():
            state = self._applicable(metric, cell)
            for part in worst_of or (cell,):
                state = self._present(metric, title, part) if state == OK else state
            state = _detected(metric, examples.clips) if state == OK else state
            figure = self._figure(title, metric, examples, state)
            if worst_of and figure["status"] == "ok":
                several = f"worst of {len(worst_of) - 1} and of no attack, clip by clip"
                figure["reason"] = "; ".join(filter(None, [several, figure["reason"]]))
            rows[title] = {**cell.columns, "metric": title, "higher_is_better": metric.higher_is_better, **figure}
        return rows

    def _pooled(self, scored: Sequence[_ScoredCell]) -> Iterator[Row]:
        """Yield a row for each cell and metric over all seeds, if there are several."""
        if len({examples.cell.columns["seed"] for examples, _ in scored}) < 2:
            return
        for group in _over_seeds(scored):
            cells = [examples for examples, _ in group]
            for title, metric in self._metrics.items():
                yield self._pooled_row(title, metric, cells, [rows[title] for _, rows in group])

    def _pooled_row(self, title: str, metric: Metric, cells: Sequence[_CellExamples], rows: Sequence[Row]) -> Row:
        """Return a metric's row over the seeds: the mean of their figures, or the first status that is not ``ok``."""
        missing = next((row for row in rows if row["status"] != "ok"), None)
        counts = {name: sum(row[name] for row in rows) for name in ("n", "n_failed")}
        pooled_row = {**(missing or rows[0]), **counts, "seeds": len(rows), "spread": np.nan}
        if missing is None:
            names = sorted({name for examples in cells for name in examples.clips["speaker"].astype(str)})
            sums = []
            for examples in cells:
                statistics = _without_failed(self._statistics(title, metric, examples))
                sums.append(aligned_sums(statistics, examples.clips["speaker"].to_numpy(), names))
            pooled_row |= pooled(metric, np.stack(sums), self._plan.suite.bootstrap, seed=0).columns
        return pooled_row

    def _chance_baselines(self, cells: Sequence[_CellExamples]) -> tuple[list[Row], list[Row]]:
        """Return the rows of the chance baselines for each seed, and those over all seeds if there are several."""
        clean = {
            examples.cell.columns["seed"]: examples
            for examples in reversed(cells)
            if examples.cell.columns["attack"] == CLEAN
        }
        clips = {seed: self._with_majority(clean[seed]) for seed in sorted(clean)}
        rows = [
            {key: value for key, value in row.items() if key != "spread"}
            for seed in clips
            for row in self._baseline_rows(clean[seed].cell, [clips[seed]])
        ]
        over_seeds = self._baseline_rows(cells[0].cell, list(clips.values())) if len(clips) > 1 else ()
        return rows, [{**row, "seeds": len(clips)} for row in over_seeds]

    def _baseline_rows(self, clean: Cell, clips: Sequence[pd.DataFrame]) -> Iterator[Row]:
        classes, draws = self._reader.classes(clean), self._plan.suite.bootstrap
        for title, metric in self._metrics.items():
            if isinstance(metric, BASELINE_METRICS):
                for name, figure in chance_baselines(metric, clips, classes, draws, seed=0):
                    yield {
                        **clean.columns, "model": name, "defense": "none", "metric": title,
                        "higher_is_better": metric.higher_is_better, **figure.columns,
                        "n": sum(map(len, clips)), "n_failed": 0, "status": "ok", "reason": REASONS[name],
                    }  # fmt: skip

    def _with_majority(self, clean: _CellExamples) -> pd.DataFrame:
        """Return the clips with the column `MAJORITY`."""
        majority = {}
        for keys in clean.cell.folds:
            prepared = self._reader.prepared(keys.prepared)
            fitted = fitted_on(prepared.folds[keys.fold], self._plan.suite.training.fit_on)
            majority[keys.fold] = most_frequent(prepared.targets[list(fitted)])
        return clean.clips.assign(**{MAJORITY: clean.clips["fold"].map(majority)})

    def _worst(self, cells: Sequence[Cell]) -> tuple[pd.DataFrame, Measurements]:
        """Return each clip's worst row over several cells of one victim, and its measurements there."""
        examples, measurements = zip(*(self._reader.examples(cell) for cell in cells), strict=True)
        lowest = choices(examples)
        of_worst = {
            title: [
                measurements[chosen][title][clip] if title in measurements[chosen] else UNTOUCHED
                for clip, chosen in enumerate(lowest)
            ]
            for title in measurements[0]
        }
        return taken(examples, lowest), of_worst

    def _figure(self, title: str, metric: Metric, examples: _CellExamples, state: Status) -> Row:
        empty = {"value": np.nan, "ci_low": np.nan, "ci_high": np.nan, "n": 0, "n_failed": 0}
        if state != OK:
            return {**empty, "status": state.status, "reason": state.reason}
        try:
            statistics = self._statistics(title, metric, examples)
            speakers = examples.clips["speaker"].to_numpy()
            interval = bootstrap(metric, statistics, speakers, draws=self._plan.suite.bootstrap, seed=0)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return {**empty, "status": "failed", "reason": one_line(error)}
        unmeasured = examples.unmeasured
        counts = {"n": interval.n, "n_failed": interval.n_failed}
        if interval.n_failed == len(examples.clips):
            reason = unmeasured.reasons.get(title, "no clip could be measured")
            return {**empty, **counts, "status": "failed", "reason": reason}
        if np.isnan(interval.value):
            reason = unmeasured.without_meaning.get(title, "no clip qualifies")
            return {**empty, **counts, "status": "not-applicable", "reason": reason}
        return {
            "value": interval.value, "ci_low": interval.low, "ci_high": interval.high, **counts,
            "status": "ok", "reason": unmeasured.reasons.get(title, ""),
        }  # fmt: skip

    def _statistics(self, title: str, metric: Metric, examples: _CellExamples) -> Array:
        """Return the statistics (N, k): NaN for a failed clip, zeros for a clip that does not count."""
        clips = examples.clips
        table = clips.assign(**{metric.column: clips[title]}) if isinstance(metric, MEASURED) else clips
        # A copy: changes by one metric must not reach the next.
        statistics = np.asarray(metric.statistics(table.copy(), self._reader.classes(examples.cell)), np.float64)
        if statistics.ndim != 2 or len(statistics) != len(clips):
            raise ContractError(f"statistics returned the shape {statistics.shape}, expected ({len(clips)}, k)")
        uncounted = examples.unmeasured.uncounted.get(title)
        return statistics if uncounted is None else np.where(uncounted[:, None], 0.0, statistics)

    def _applicable(self, metric: Metric, cell: Cell) -> Status:
        """Return whether the metric applies to the cell at all."""
        victim = MODELS.get(self._models[cell.columns["model"]])
        if reason := no_meaning(type(metric), cell.columns, differentiable=victim.differentiable):
            return Status("not-applicable", reason)
        if "transcripts" in metric.needs and self._speech.transcriber is None:
            return Status("not-applicable", self._speech.reason)
        return OK

    def _present(self, metric: Metric, title: str, cell: Cell) -> Status:
        """Return whether the store has all artefacts that the metric needs; ``failed`` outweighs ``not-applicable``."""
        states = [self._state(fold.fold, key) for fold in cell.folds for key in self._keys(metric, title, fold)]
        return min(states, key=lambda state: ("failed", "not-applicable", "ok").index(state.status), default=OK)

    def _state(self, fold: str, key: str) -> Status:
        if key in self._failed:
            return Status("failed", f"fold {fold}: {self._failed[key].reason}")
        stored = self._reader.stored(key)
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
            # A worst case also covers the clean cell, to which some metrics do not apply.
            keys.append({**fold.measured, **fold.examined}.get(title))
        if "transcripts" in metric.needs:
            keys += [fold.transcribed, fold.clean_transcribed if against_clean else None]
        return [key for key in keys if key is not None]


def _over_seeds(scored: Iterable[_ScoredCell]) -> list[list[_ScoredCell]]:
    """Return groups of the cells that differ in nothing but the seed."""
    groups: dict[tuple[Any, ...], list[_ScoredCell]] = {}
    for examples, rows in scored:
        keys = tuple(value for key, value in examples.cell.columns.items() if key != "seed")
        groups.setdefault(keys, []).append((examples, rows))
    return list(groups.values())


def _without_failed(statistics: Array) -> Array:
    """Return statistics with zeros for failed clips, which no figure includes."""
    failed = np.asarray(np.isnan(statistics).any(axis=1))
    return np.where(failed[:, None], 0.0, statistics)


def _detected(metric: Metric, clips: pd.DataFrame) -> Status:
    """Return whether the victim has the detector that the metric evaluates."""
    if "detections" in metric.needs and clips["detection"].isna().all():
        return Status("not-applicable", "the victim has no detector")
    return OK
