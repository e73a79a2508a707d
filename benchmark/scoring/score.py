"""From stored artefacts to the results table: pool the folds of each cell, then compute every metric on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
from advser.scoring.chance_baselines import MAJORITY, READ, REASONS, anchors, commonest
from advser.scoring.examples import Measured, Readings
from advser.scoring.ranks import Judged, ranks
from advser.scoring.significance import pooled
from advser.stages.job import Outcome
from advser.stages.train import fitted_on
from advser.store.artefacts import Store


@dataclass(frozen=True)
class Status:
    """Whether a figure exists: ``ok``, ``failed`` or ``not-applicable``, and why not."""

    status: str
    reason: str


OK = Status("ok", "")

UNTOUCHED: Final[Mapping[str, Any]] = {"value": None, "reason": "the clip was left as it is", "counts": False}
"""What a clip metric that is about attacks has of a clip whose worst case is no attack."""


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


@dataclass(frozen=True, eq=False)
class _Found:
    """What was found of a cell: its clips, what was measured of each, and the cells that it is the worst of, if any."""

    cell: Cell
    clips: pd.DataFrame
    measured: Measured
    of: tuple[Cell, ...] = ()

    @cached_property
    def unmeasured(self) -> _Unmeasured:
        return _unmeasured(self.measured)


@dataclass(frozen=True, eq=False)
class Scored:
    """The tables of the results, as `advser.results.Results` has them."""

    table: pd.DataFrame
    examples: pd.DataFrame
    ranks: pd.DataFrame
    pooled: pd.DataFrame


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
        self._readings = Readings(plan, store)
        self._failed = failed
        self._speech = speech
        self._metrics = {
            entry.title: build(METRICS.get(entry.name), entry.params, f"metric '{entry.name}'")
            for entry in plan.suite.metrics
        }
        self._models = {entry.title: entry.name for entry in plan.suite.models}

    def score(self) -> Scored:
        """Return the tables of the results (see ``docs/results.md``)."""
        found = [_Found(cell, *self._readings.examples(cell)) for cell in self._plan.cells]
        for declared in self._plan.suite.worst:
            for cells in members(self._plan.cells, declared):
                whole = Cell(columns_of(cells, declared), cells[0].folds)
                found.append(_Found(whole, *self._worst(cells), of=tuple(cells)))
        rows = [row for one in found for row in self._rows(one)]
        judged = [Judged(one.cell.columns, one.clips) for one in found]
        classes = self._readings.classes(found[0].cell)
        anchored, anchored_pooled = self._anchors(found)
        return Scored(
            pd.DataFrame([*rows, *anchored]),
            pd.concat([one.clips.assign(**one.cell.columns) for one in found], ignore_index=True),
            ranks(judged, self._plan.suite, self._metrics, classes),
            pd.DataFrame([*self._pooled(found, rows), *anchored_pooled], columns=POOLED_SCHEMA.names),
        )

    def _rows(self, found: _Found) -> Iterator[dict[str, Any]]:
        """Yield a row a metric."""
        cell, clips, of = found.cell, found.clips, found.of
        for title, metric in self._metrics.items():
            state = self._applicable(metric, cell)
            for part in of or (cell,):
                state = self._present(metric, title, part) if state == OK else state
            state = _detected(metric, clips) if state == OK else state
            figure = self._figure(title, metric, found, state)
            if of and figure["status"] == "ok":
                several = f"worst of {len(of) - 1} and of no attack, clip by clip"
                figure["reason"] = "; ".join(filter(None, [several, figure["reason"]]))
            yield {**cell.columns, "metric": title, "higher_is_better": metric.higher_is_better, **figure}

    def _pooled(self, found: Sequence[_Found], rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield a row for each cell and metric over all seeds, if there are several."""
        if len({one.cell.columns["seed"] for one in found}) < 2:
            return
        for together in _over_seeds(found):
            for number, (title, metric) in enumerate(self._metrics.items()):
                alone = [rows[place * len(self._metrics) + number] for place in together]
                yield self._over_seeds(title, metric, [found[place] for place in together], alone)

    def _over_seeds(
        self, title: str, metric: Metric, cells: Sequence[_Found], alone: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Return a metric's row over the seeds: their mean if all of them have a figure, else why one has none."""
        told = next((row for row in alone if row["status"] != "ok"), None)
        counts = {name: sum(row[name] for row in alone) for name in ("n", "n_failed")}
        row = {**(told or alone[0]), **counts, "seeds": len(alone), "spread": np.nan}
        if told is None:
            names = sorted({name for one in cells for name in one.clips["speaker"].astype(str)})
            measured = [_without_failed(self._statistics(title, metric, one)) for one in cells]
            sums = [
                aligned_sums(statistics, one.clips["speaker"].to_numpy(), names)
                for statistics, one in zip(measured, cells, strict=True)
            ]
            row |= pooled(metric, np.stack(sums), self._plan.suite.bootstrap, seed=0).columns
        return row

    def _anchors(self, found: Sequence[_Found]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the rows of the anchors for each seed, and those over all seeds if there are several."""
        heads = {one.cell.columns["seed"]: one for one in reversed(found) if one.cell.columns["attack"] == CLEAN}
        clips = {seed: self._with_majority(heads[seed]) for seed in sorted(heads)}
        rows = [
            {key: value for key, value in row.items() if key != "spread"}
            for seed in clips
            for row in self._anchor_rows(heads[seed].cell, [clips[seed]])
        ]
        over_seeds = self._anchor_rows(found[0].cell, list(clips.values())) if len(clips) > 1 else ()
        return rows, [{**row, "seeds": len(clips)} for row in over_seeds]

    def _anchor_rows(self, clean: Cell, clips: Sequence[pd.DataFrame]) -> Iterator[dict[str, Any]]:
        classes, draws = self._readings.classes(clean), self._plan.suite.bootstrap
        for title, metric in self._metrics.items():
            if isinstance(metric, READ):
                for name, figure in anchors(metric, clips, classes, draws, seed=0):
                    yield {
                        **clean.columns, "model": name, "defense": "none", "metric": title,
                        "higher_is_better": metric.higher_is_better, **figure.columns,
                        "n": sum(map(len, clips)), "n_failed": 0, "status": "ok", "reason": REASONS[name],
                    }  # fmt: skip

    def _with_majority(self, clean: _Found) -> pd.DataFrame:
        """Return the clips, with the class that is commonest among the training clips of each one's fold."""
        said = {}
        for keys in clean.cell.folds:
            prepared = self._readings.prepared(keys.prepared)
            fitted = fitted_on(prepared.folds[keys.fold], self._plan.suite.training.fit_on)
            said[keys.fold] = commonest(prepared.targets[list(fitted)])
        return clean.clips.assign(**{MAJORITY: clean.clips["fold"].map(said)})

    def _worst(self, cells: Sequence[Cell]) -> tuple[pd.DataFrame, Measured]:
        """Return the worst row of each clip over several cells of one victim, and what was measured of it there."""
        examples, measured = zip(*(self._readings.examples(cell) for cell in cells), strict=True)
        lowest = choices(examples)
        chosen = [*enumerate(lowest)]
        found = {
            title: [measured[which][title][clip] if title in measured[which] else UNTOUCHED for clip, which in chosen]
            for title in measured[0]
        }
        return taken(examples, lowest), found

    def _figure(self, title: str, metric: Metric, found: _Found, state: Status) -> dict[str, Any]:
        empty = {"value": np.nan, "ci_low": np.nan, "ci_high": np.nan, "n": 0, "n_failed": 0}
        if state != OK:
            return {**empty, "status": state.status, "reason": state.reason}
        try:
            statistics = self._statistics(title, metric, found)
            speakers = found.clips["speaker"].to_numpy()
            interval = bootstrap(metric, statistics, speakers, draws=self._plan.suite.bootstrap, seed=0)
        except Exception as error:
            return {**empty, "status": "failed", "reason": one_line(error)}
        unmeasured = found.unmeasured
        counts = {"n": interval.n, "n_failed": interval.n_failed}
        if interval.n_failed == len(found.clips):
            reason = unmeasured.reasons.get(title, "no clip could be measured")
            return {**empty, **counts, "status": "failed", "reason": reason}
        if np.isnan(interval.value):
            reason = unmeasured.without_meaning.get(title, "no clip qualifies")
            return {**empty, **counts, "status": "not-applicable", "reason": reason}
        return {
            "value": interval.value, "ci_low": interval.low, "ci_high": interval.high, **counts,
            "status": "ok", "reason": unmeasured.reasons.get(title, ""),
        }  # fmt: skip

    def _statistics(self, title: str, metric: Metric, found: _Found) -> Array:
        """Return the statistics (N, k): NaN where a clip could not be measured, zeros where it does not count."""
        clips = found.clips
        examples = clips.assign(**{metric.column: clips[title]}) if isinstance(metric, MEASURED) else clips
        # A copy: what one metric changes must not reach the next.
        statistics = np.asarray(metric.statistics(examples.copy(), self._readings.classes(found.cell)), np.float64)
        if statistics.ndim != 2 or len(statistics) != len(clips):
            raise ContractError(f"statistics returned the shape {statistics.shape}, expected ({len(clips)}, k)")
        uncounted = found.unmeasured.uncounted.get(title)
        return statistics if uncounted is None else np.where(uncounted[:, None], 0.0, statistics)

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
        stored = self._readings.stored(key)
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
            # A worst case is also taken over the clean cell, on which some metrics have no meaning.
            keys.append({**fold.measured, **fold.examined}.get(title))
        if "transcripts" in metric.needs:
            keys += [fold.transcribed, fold.clean_transcribed if against_clean else None]
        return [key for key in keys if key is not None]


def _over_seeds(found: Sequence[_Found]) -> list[list[int]]:
    """Return the places of the cells that differ in nothing but the seed."""
    together: dict[tuple[Any, ...], list[int]] = {}
    for place, one in enumerate(found):
        keys = tuple(value for key, value in one.cell.columns.items() if key != "seed")
        together.setdefault(keys, []).append(place)
    return list(together.values())


def _without_failed(statistics: Array) -> Array:
    """Return statistics with zeros for the clips that could not be measured: they are in no figure."""
    failed = np.asarray(np.isnan(statistics).any(axis=1))
    return np.where(failed[:, None], 0.0, statistics)


def _detected(metric: Metric, clips: pd.DataFrame) -> Status:
    """Tell whether the victim has the detector that the metric is about."""
    if "detections" in metric.needs and clips["detection"].isna().all():
        return Status("not-applicable", "the victim has no detector")
    return OK
