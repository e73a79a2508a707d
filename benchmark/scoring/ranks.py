"""The table of ranks: which entries of a run are compared, and the rank of each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from advser.metrics.base import Array, Metric
from advser.metrics.recognition import UAR, Accuracy
from advser.plan.worst_case import choices, columns_of, members
from advser.results.schema import CLEAN, RANKS_SCHEMA, Among, no_ranks, value_text
from advser.scoring.bootstrap import aligned_sums
from advser.scoring.significance import Pooled, Standing, pooled, standings
from advser.suite.schema import Suite, WorstCase

RANKED: Final = (UAR, Accuracy)
"""Metrics by which entries are ranked."""

WORST: Final = "worst-case"
"""Attack name of the leaderboard's rows where the suite declares no worst case."""

_SETTING: Final = ("suite", "part", "corpus", "task", "protocol", "split")
_VICTIM: Final = ("model", "defense")
_ATTACK: Final = ("attack", "params", "labels", "access")
_PLACE: Final = ("domain", "delivery", "norm", "epsilon", "epsilon_unit")


@dataclass(frozen=True)
class EvaluatedCell:
    """A cell's key columns, and its clips with labels, predictions and margins."""

    columns: Mapping[str, Any]
    clips: pd.DataFrame

    @property
    def own(self) -> bool:
        """Whether the examples were crafted on no other model of the run: on the victim, or on no model."""
        return not (self.columns["access"] == "transfer" and self.columns["source_model"])

    @property
    def control(self) -> bool:
        """Whether the examples depend on no model; also true of the clean cell."""
        return bool(self.columns["access"] == "blind")

    def values(self, keys: Iterable[str]) -> tuple[Any, ...]:
        """Return some of the key columns."""
        return tuple(self.columns[key] for key in keys)


@dataclass(frozen=True)
class _Entry:
    """An entry of a ranking.

    Attributes:
        keys: keys that distinguish it in its field.
        cells: for each seed the cells over which each clip's worst case is taken.
        lacks: what the entry lacks that others have; empty if it is complete.
    """

    keys: Mapping[str, Any]
    cells: tuple[tuple[EvaluatedCell, ...], ...]
    lacks: str = ""


@dataclass(frozen=True)
class _Field:
    """Entries that are compared with each other, and their common keys.

    ``without`` names attacks that failed on every entry, so that no entry is ranked under them.
    """

    among: Among
    keys: Mapping[str, Any]
    entries: tuple[_Entry, ...]
    without: tuple[str, ...] = ()


def ranks(cells: Sequence[EvaluatedCell], suite: Suite, metrics: Mapping[str, Metric], classes: int) -> pd.DataFrame:
    """Return the table of ranks (`advser.results.schema.RANKS_SCHEMA`).

    Args:
        cells: cells of one setting, all seeds, with those for the worst of several attacks.
        suite: suite of the run. The leaderboard has its worst cases; a place (domain and delivery) without one is
            ranked under the worst of all its attacks, budget by budget.
        metrics: metrics of the suite, by title; those of `RANKED` are used.
        classes: number of classes.
    """
    if not cells:
        return no_ranks()
    table = _Table(suite, {title: metric for title, metric in metrics.items() if type(metric) in RANKED}, classes)
    setting = dict(zip(_SETTING, cells[0].values(_SETTING), strict=True))
    rows = [{**setting, **row} for field in _fields(cells, suite) for row in table.rows(field)]
    return pd.DataFrame(rows, columns=RANKS_SCHEMA.names) if rows else no_ranks()


def _fields(cells: Sequence[EvaluatedCell], suite: Suite) -> Iterator[_Field]:
    seeds = list(dict.fromkeys(cell.columns["seed"] for cell in cells))
    declared = {worst.name for worst in suite.worst}
    own = [cell for cell in cells if cell.own]
    victims = _distinct(own, _VICTIM)
    for keys in _distinct(own, (*_ATTACK, *_PLACE)):
        entries = [_entry(victim, _having(own, keys), seeds) for victim in victims]
        yield from _by("model", keys, entries)
        yield from _by("defense", keys, entries)
    attacks = [cell for cell in own if not cell.control and cell.columns["attack"] not in {CLEAN, *declared}]
    for keys in _distinct(attacks, (*_VICTIM, *_PLACE)):
        here = _having(attacks, keys)
        yield _Field("attacks", keys, tuple(_entry(attack, here, seeds) for attack in _distinct(here, _ATTACK)))
    yield from _leaderboard([cell for cell in cells if cell.columns["attack"] not in declared], suite, victims, seeds)


def _by(among: Literal["model", "defense"], keys: Mapping[str, Any], entries: Sequence[_Entry]) -> Iterator[_Field]:
    """Yield a field for each model, or for each defense."""
    for value in dict.fromkeys(entry.keys[among] for entry in entries):
        yield _Field(among, keys, tuple(entry for entry in entries if entry.keys[among] == value))


def _distinct(cells: Iterable[EvaluatedCell], keys: Sequence[str]) -> list[dict[str, Any]]:
    combinations = dict.fromkeys(cell.values(keys) for cell in cells)
    return [dict(zip(keys, values, strict=True)) for values in combinations]


def _having(cells: Iterable[EvaluatedCell], keys: Mapping[str, Any]) -> list[EvaluatedCell]:
    wanted = tuple(keys.values())
    return [cell for cell in cells if cell.values(keys) == wanted]


def _entry(keys: Mapping[str, Any], cells: Sequence[EvaluatedCell], seeds: Sequence[int]) -> _Entry:
    """Return an entry with one cell per seed."""
    by_seed = {cell.columns["seed"]: cell for cell in _having(cells, keys)}
    missing = [seed for seed in seeds if seed not in by_seed]
    lacks = "" if not missing else "this cell" if not by_seed else f"seed {', '.join(map(str, missing))}"
    return _Entry(keys, tuple((cell,) for cell in by_seed.values()), lacks)


def _leaderboard(
    judged: Sequence[EvaluatedCell], suite: Suite, victims: Sequence[Mapping[str, Any]], seeds: Sequence[int]
) -> Iterator[_Field]:
    """Yield a field of the clean cells, and for each worst case a field of all victims."""
    clean = [cell for cell in judged if cell.columns["attack"] == CLEAN]
    for keys in _distinct(clean, (*_ATTACK, *_PLACE)):
        yield _Field("leaderboard", keys, tuple(_entry(victim, clean, seeds) for victim in victims))
    for worst in [*suite.worst, *_undeclared(judged, suite)]:
        evaluated, failed = _without_failures(list(members(judged, worst)))
        of_victims = list(members(evaluated, worst))
        together = [cell for cells in of_victims for cell in cells]
        if together:
            columns = columns_of(together, worst)
            keys = {key: columns[key] for key in (*_ATTACK, *_PLACE)}
            expected = list(dict.fromkeys(_configuration(cell) for cell in together if cell.own))
            entries = [_worst_of(victim, of_victims, expected, seeds) for victim in victims]
            yield _Field("leaderboard", keys, tuple(entries), failed)


def _without_failures(of_victims: Sequence[Sequence[EvaluatedCell]]) -> tuple[list[EvaluatedCell], tuple[str, ...]]:
    """Return the cells without the attacks that failed on every victim, and the names of these attacks.

    An attack that fails on some victims takes the rank from these alone; one that fails on all would take every rank.
    """
    cells = [cell for cells in of_victims for cell in cells]
    attacks = [cell for cell in cells if cell.columns["attack"] != CLEAN]
    working = {_configuration(cell) for cell in attacks if cell.clips["prediction"].ge(0).any()}
    failed = tuple(dict.fromkeys(name for name in map(_configuration, attacks) if name not in working))
    if not working:
        return cells, ()
    return [cell for cell in cells if _configuration(cell) not in failed], failed


def _undeclared(judged: Sequence[EvaluatedCell], suite: Suite) -> Iterator[WorstCase]:
    """Yield a worst case for each budget of each place for which the suite declares none."""
    attacks = [cell for cell in judged if cell.own and not cell.control]
    taken = {(worst.domain, worst.delivery) for worst in suite.worst}
    for place in _distinct(attacks, ("domain", "delivery")):
        here = [cell for cell in _having(attacks, place) if tuple(place.values()) not in taken]
        budgets = [budget for budget in _distinct(here, ("norm", "epsilon")) if budget["epsilon"] is not None]
        budgets.sort(key=lambda budget: (budget["norm"], budget["epsilon"]))
        for budget in budgets or [{}] * bool(here):
            yield WorstCase(name=WORST, **place, **budget)


def _worst_of(
    victim: Mapping[str, Any],
    of_victims: Sequence[Sequence[EvaluatedCell]],
    expected: Sequence[str],
    seeds: Sequence[int],
) -> _Entry:
    by_seed = {cells[0].columns["seed"]: tuple(cells) for cells in of_victims if _having(cells[:1], victim)}
    attacks = [{_configuration(cell) for cell in by_seed.get(seed, ())} for seed in seeds]
    missing = [attack for attack in expected if any(attack not in of_seed for of_seed in attacks)]
    return _Entry(victim, tuple(by_seed.values()), ", ".join(dict.fromkeys(missing)))


def _configuration(cell: EvaluatedCell) -> str:
    """Return a readable name of an attack's configuration, as the reason of a missing rank has it."""
    given = [f"{name}={value_text(value)}" for name, value in json.loads(cell.columns["params"]).items()]
    labels = [f"{cell.columns['labels']} labels"] if cell.columns["labels"] != "none" else []
    return f"{cell.columns['attack']} ({', '.join([*given, *labels])})"


@dataclass(frozen=True)
class _Table:
    """Computes the rows of fields."""

    suite: Suite
    metrics: Mapping[str, Metric]
    classes: int

    def rows(self, field: _Field) -> Iterator[dict[str, Any]]:
        if len(field.entries) < 2 and field.among != "leaderboard":
            return
        speakers = _speakers(field)
        for title, metric in self.metrics.items():
            sums = [self._sums(metric, entry, speakers) for entry in field.entries]
            lacks = [_lacks(entry, summed) for entry, summed in zip(field.entries, sums, strict=True)]
            complete = [summed for summed, lack in zip(sums, lacks, strict=True) if summed is not None and not lack]
            reason = f"without {', '.join(field.without)}, which failed on every entry" if field.without else ""
            draws, lowest = self.suite.bootstrap, field.among == "attacks"
            ranked = iter(standings(metric, complete, draws, 0, lowest=lowest) if complete else ())
            for entry, summed, lack in zip(field.entries, sums, lacks, strict=True):
                keys = {"among": field.among, **field.keys, **entry.keys, "metric": title}
                counts = {"seeds": len(entry.cells), "entries": len(complete), "speakers": len(speakers),
                          "attacks": max(map(_attacks, entry.cells), default=0)}  # fmt: skip
                if not lack:
                    yield {**keys, **counts, **_standing(next(ranked)), "reason": reason}
                else:
                    figure = None if summed is None else pooled(metric, summed, draws, 0)
                    yield {**keys, **counts, **_unranked(figure), "reason": f"no rank: it lacks {lack}"}

    def _sums(self, metric: Metric, entry: _Entry, speakers: Sequence[str]) -> Array | None:
        """Return the statistics of each clip's worst cell, summed by speaker (R, S, k); None if any is missing."""
        summed = []
        for cells in entry.cells:
            statistics = np.stack([metric.statistics(cell.clips, self.classes) for cell in cells])
            chosen = choices([cell.clips for cell in cells])
            worst = statistics[chosen, np.arange(len(chosen))]
            if np.isnan(worst).any() or np.isnan(statistics).any():
                return None
            summed.append(aligned_sums(worst, cells[0].clips["speaker"].to_numpy(), speakers))
        return np.stack(summed) if summed else None


def _attacks(cells: Sequence[EvaluatedCell]) -> int:
    """Return the number of attacks and controls among cells; the number of all cells if they are all clean."""
    return sum(cell.columns["attack"] != CLEAN for cell in cells) or len(cells)


def _lacks(entry: _Entry, summed: Array | None) -> str:
    failed = ["a figure"] if entry.cells and summed is None else []
    return ", ".join([*filter(None, [entry.lacks]), *failed])


def _speakers(field: _Field) -> list[str]:
    names: set[str] = set()
    for entry in field.entries:
        for cell in itertools.chain.from_iterable(entry.cells):
            names |= {*cell.clips["speaker"].astype(str)}
    return sorted(names)


def _standing(standing: Standing) -> dict[str, Any]:
    own = {name: getattr(standing, name) for name in ("rank", "rank_low", "rank_high", "tie", "p")}
    difference = {name: getattr(standing, name) for name in ("difference", "difference_low", "difference_high")}
    return {**standing.figure.columns, **own, **difference}


def _unranked(figure: Pooled | None) -> dict[str, Any]:
    nan = float("nan")
    figure = figure or Pooled(nan, nan, nan, nan)
    missing = dict.fromkeys(("difference", "difference_low", "difference_high", "p"), nan)
    return {**figure.columns, **dict.fromkeys(("rank", "rank_low", "rank_high", "tie"), 0), **missing}
