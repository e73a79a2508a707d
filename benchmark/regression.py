"""What moved between two results of one protocol, and what of it is a regression.

Both were judged on the same clips, so they are compared clip by clip: what is hard in a clip is hard in both, and
cancels. Intervals over speakers, as boards have them, ask another question: what other speakers would bring.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from advser.errors import InputError, did_you_mean
from advser.metrics.base import Array, ClipMetric, Metric, ModelMetric
from advser.paired import corrected, counted, detectable, worsening
from advser.parameters import build
from advser.plugins import METRICS
from advser.reserved import ANCHORS
from advser.results import KEYS, MEASURED_ANEW, Results
from advser.suite import PluginEntry, Suite

Verdict = Literal["same", "better", "worse", "noise", "regression", "lost", "new"]
"""``same``; ``better`` or ``worse``, but not gated or within the tolerance; ``noise``: beyond the tolerance, and not
told from chance; ``regression``: beyond it, and told from chance; ``lost``: the base has a figure and the new results
have none; ``new``: the other way round."""

CELL: Final = tuple(key for key in KEYS if key not in ("suite", "seed"))
"""What a cell of one result and that of another have in common; seeds may differ, if there are as many of them."""

LEVEL: Final = 0.05
"""Chance that a comparison calls anything a regression where base and new results are alike."""

SEEN: Final = ("uar", "accuracy")
"""Metrics of which a comparison tells what drop it could have seen; UAR is taken as accuracy is."""

MOVED: Final = ("better", "worse", "noise", "regression")
"""Verdicts on figures that both results have."""

SHOWN: Final = 6
"""Differences of the suites that are told."""

_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class Gate:
    """The largest change for the worse that passes.

    Attributes:
        metric: title of the metric.
        tolerance: at least 0, in the metric's unit.
    """

    metric: str
    tolerance: float = 0.0


@dataclass(frozen=True)
class Move:
    """One figure, before and after.

    Attributes:
        keys: of the cell (`CELL`).
        metric: title of the metric.
        base, new: the figures, means over seeds; NaN where there is none.
        higher_is_better: the metric's better direction; None if it has none.
        n: clips that both were judged on.
        changed: clips that the two differ on.
        p: of the paired test that nothing became worse (`advser.paired.worsening`); NaN if there is none.
        least: the least p that this test could have given.
        adjusted: ``p`` corrected for all gated figures; NaN if it is not gated.
        tolerance: of its gate; None if it is not gated.
        verdict: what to make of it.
        reason: why there is no figure or no test; else empty.
    """

    keys: Mapping[str, Any]
    metric: str
    base: float
    new: float
    higher_is_better: bool | None
    n: int = 0
    changed: int = 0
    p: float = float("nan")
    least: float = 1.0
    adjusted: float = float("nan")
    tolerance: float | None = None
    verdict: Verdict = "same"
    reason: str = ""

    @property
    def difference(self) -> float:
        """New less base."""
        return self.new - self.base

    @property
    def worsening(self) -> float:
        """How much worse the new figure is: negative if it is better, 0 if the metric has no better direction."""
        return 0.0 if self.higher_is_better is None else (-1 if self.higher_is_better else 1) * self.difference

    @property
    def failed(self) -> bool:
        """Whether the gate is not passed."""
        return self.verdict == "regression" or (self.verdict == "lost" and self.tolerance is not None)


@dataclass(frozen=True)
class Comparison:
    """Two results, figure by figure.

    Attributes:
        moves: in the order of the base, then what only the new results have.
        level: as in `compare`.
        notes: what a reader must know.
    """

    moves: tuple[Move, ...]
    level: float
    notes: tuple[str, ...]

    @property
    def failures(self) -> tuple[Move, ...]:
        """The figures that do not pass their gate."""
        return tuple(move for move in self.moves if move.failed)


def compare(base: Results, new: Results, gates: Sequence[Gate] = (), level: float = LEVEL) -> Comparison:
    """Compare two results of one protocol.

    A gated figure is a regression if it is worse by more than the tolerance *and* the paired test tells this from
    chance: its p, corrected for all gated figures (`advser.paired.corrected`), is at most ``level``. Where there is no
    test, the tolerance alone decides, and a note says so.

    Args:
        base: what is compared with.
        new: what is judged.
        gates: by default every metric that has a better direction and a test, with the tolerance 0.
        level: chance of a false alarm over all gated figures; 1: the tolerance alone decides.

    Raises:
        InputError: if the protocols, clips or labels differ, or a gate names no metric of the base.
    """
    _refuse_protocols(base, new)
    gated = {gate.metric: gate for gate in gates or _usual(base)}
    _refuse_metrics(gated, base)
    moves = [replace(move, **_gate(move, gated)) for move in _moves(base, new)]
    moves = _judged(moves, level)
    return Comparison(tuple(moves), level, tuple(_notes(moves, base, new, level)))


def gates_of(base: Results, texts: Mapping[str, str]) -> list[Gate]:
    """Return gates as a command line has them: metric → the largest change for the worse that passes, with its sign.

    Raises:
        InputError: if a metric is unknown or has no better direction, or a text is no number or one for the better.
    """
    _refuse_metrics(texts, base)
    found = []
    for name, text in texts.items():
        better = base.table.loc[base.table["metric"] == name, "higher_is_better"].iloc[0]
        if pd.isna(better):
            raise InputError(
                f"--fail-on {name}={text}: found a metric without a better direction, allowed: one with it"
            )
        allowed = "a number ≤ 0, since higher is better" if better else "a number ≥ 0, since lower is better"
        try:
            delta = float(text)
        except ValueError:
            delta = float("nan")
        worse = -delta if better else delta
        if not 0 <= worse < float("inf"):
            raise InputError(f"--fail-on {name}={text}: found '{text}', allowed: {allowed}")
        found.append(Gate(name, worse))
    return found


def _usual(base: Results) -> list[Gate]:
    directed = base.table[base.table["higher_is_better"].notna()]
    tested = [] if base.examples.empty else dict.fromkeys(directed["metric"])
    return [Gate(metric) for metric in tested if metric not in MEASURED_ANEW]


def _refuse_metrics(gated: Mapping[str, object], base: Results) -> None:
    known = list(dict.fromkeys(base.table["metric"]))
    for name in gated:
        if name not in known:
            raise InputError(f"metric '{name}': allowed: {', '.join(known)}{did_you_mean(name, known)}")


def settings(results: Results) -> list[Suite]:
    """Return the parts of the suite that results were made with.

    Raises:
        InputError: if they do not tell it.
    """
    try:
        return Suite.model_validate(results.run["suite"]).settings
    except (KeyError, ValueError) as error:
        raise InputError(f"results: suite: {' '.join(str(error).split())[:200]}") from None


def _protocol(results: Results) -> dict[str, Any]:
    """Return what two results must have in common for their figures to mean the same."""
    parts = settings(results)
    found: dict[str, Any] = {"parts": [setting.part for setting in parts]}
    for setting in parts:
        said = setting.model_dump(include={"corpus", "task", "classes", "protocol", "folds"})
        said = {key: "all" if value is None else value for key, value in said.items()}
        found |= {f"{setting.part or 'suite'}.{key}": value for key, value in said.items()}
        found[f"{setting.part or 'suite'}.seeds"] = len(setting.seeds)
    heard = results.run.get("transcribers", {})
    return found | {
        f"transcriber{part and f' of {part}'}": {key: engine[key] for key in ("name", "params", "model")}
        for part, engine in heard.items()
    }


def _refuse_protocols(base: Results, new: Results) -> None:
    before, after = _protocol(base), _protocol(new)
    for key in {**before, **after}:
        if before.get(key) != after.get(key):
            raise InputError(f"{key}: found {after.get(key)}, allowed: that of the base, {before.get(key)}")


def _moves(base: Results, new: Results) -> Iterator[Move]:
    before, after = _figures(base), _figures(new)
    pairs = _Pairs(base, new)
    for place in {**before, **after}:
        *keys, metric = place
        cell = dict(zip(CELL, keys, strict=True))
        old, young = before.get(place), after.get(place)
        either = young or old
        assert either is not None
        move = Move(cell, metric, _value(old), _value(young), either.higher_is_better)
        if old is None or young is None or np.isnan(move.difference):
            yield replace(move, reason=_why(old, young))
        else:
            yield pairs.tested(move)


@dataclass(frozen=True)
class _Figure:
    value: float
    higher_is_better: bool | None
    reason: str


def _figures(results: Results) -> dict[tuple[Any, ...], _Figure]:
    """Return the figures by cell and metric: means over seeds, NaN if any is missing."""
    table = results.table[~results.table["model"].isin(ANCHORS)]
    found = {}
    for place, rows in table.groupby([*CELL, "metric"], dropna=False, sort=False):
        better = rows["higher_is_better"].iloc[0]
        reason = next((text for text in rows["reason"] if text), "")
        direction = None if pd.isna(better) else bool(better)
        found[_plain(place)] = _Figure(float(rows["value"].mean(skipna=False)), direction, reason)
    return found


def _plain(place: Any) -> tuple[Any, ...]:
    """Return keys that compare as equal: NaN, which stands for no budget, as None."""
    return tuple(None if isinstance(value, float) and np.isnan(value) else value for value in place)


def _value(figure: _Figure | None) -> float:
    return float("nan") if figure is None else figure.value


def _why(old: _Figure | None, young: _Figure | None) -> str:
    if young is None:
        return "not among the new results"
    if old is None:
        return "not among the base"
    return young.reason or old.reason


class _Pairs:
    """The clips of two results, cell by cell."""

    def __init__(self, base: Results, new: Results) -> None:
        self._both = (_by_cell(base), _by_cell(new))
        self._metrics = {}
        for setting in settings(base):
            for entry in setting.metrics:
                self._metrics[setting.part, entry.title] = entry
        labels = pd.concat([base.examples["label"], new.examples["label"]])
        self._classes = int(labels.max()) + 1 if len(labels) else 0

    def tested(self, move: Move) -> Move:
        """Return a move with the paired test of its clips."""
        place = tuple(move.keys.values())
        clips = [cells.get(place) for cells in self._both]
        entry = self._metrics.get((move.keys["part"], move.metric))
        if clips[0] is None or clips[1] is None or entry is None:
            return replace(move, reason="no examples to test by")
        _refuse_clips(clips[0], clips[1], move)
        metric = build(METRICS.get(entry.name), entry.params, f"metric '{entry.title}'")
        one, other = (_statistics(metric, entry, seeds, self._classes) for seeds in (clips[1], clips[0]))
        measured = ~(np.isnan(one) | np.isnan(other)).any(axis=(0, 2))
        one, other = one[:, measured], other[:, measured]
        differing = (one != other).any(axis=(0, 2))
        found = replace(move, n=int(measured.sum()), changed=int(differing.sum()))
        if move.higher_is_better is None:
            return found
        test = worsening(metric, one, other, higher_is_better=move.higher_is_better)
        return replace(found, p=test.p, least=test.least)


def _by_cell(results: Results) -> dict[tuple[Any, ...], list[pd.DataFrame]]:
    """Return the examples of each cell, a table a seed, all in the order of the clips' names."""
    found: dict[tuple[Any, ...], list[pd.DataFrame]] = {}
    for place, rows in results.examples.groupby([*CELL, "seed"], dropna=False, sort=False):
        found.setdefault(_plain(place[:-1]), []).append(rows.sort_values(["fold", "clip"], ignore_index=True))
    return found


def _refuse_clips(base: Sequence[pd.DataFrame], new: Sequence[pd.DataFrame], move: Move) -> None:
    for before, after in zip(base, new, strict=True):
        if not before[["fold", "clip", "label"]].equals(after[["fold", "clip", "label"]]):
            raise InputError(
                f"clips of {move.keys['model']} / {move.keys['defense']}: found {len(after)}, not those of the base "
                f"({len(before)}) or in other folds or with other labels, allowed: the same clips"
            )


def _statistics(metric: Metric, entry: PluginEntry, seeds: Sequence[pd.DataFrame], classes: int) -> Array:
    """Return the statistics (R seeds, N clips, k)."""
    tables = seeds
    if isinstance(metric, (ClipMetric, ModelMetric)):
        tables = [rows.assign(**{metric.column: rows[entry.title]}) for rows in seeds]
    return np.stack([np.asarray(metric.statistics(rows, classes), np.float64) for rows in tables])


def _gate(move: Move, gated: Mapping[str, Gate]) -> dict[str, Any]:
    return {"tolerance": gated[move.metric].tolerance} if move.metric in gated else {}


def _judged(moves: Sequence[Move], level: float) -> list[Move]:
    tested = [row for row, move in enumerate(moves) if move.tolerance is not None and not np.isnan(move.p)]
    least = [moves[row].least for row in tested]
    adjusted = dict(zip(tested, corrected([moves[row].p for row in tested], least, level), strict=True))
    found = (replace(move, adjusted=adjusted.get(row, float("nan"))) for row, move in enumerate(moves))
    return [replace(move, verdict=_verdict(move, level)) for move in found]


def _verdict(move: Move, level: float) -> Verdict:
    if np.isnan(move.difference):
        return "same" if np.isnan(move.base) and np.isnan(move.new) else "lost" if np.isnan(move.new) else "new"
    if abs(move.difference) <= _ROUNDING:
        return "same"
    if move.tolerance is None or move.worsening <= move.tolerance + _ROUNDING:
        return "better" if move.worsening < 0 else "worse" if move.worsening > 0 else "same"
    return "noise" if move.adjusted > level + _ROUNDING else "regression"


def _notes(moves: Sequence[Move], base: Results, new: Results, level: float) -> Iterator[str]:
    untested = [move for move in moves if move.tolerance is not None and np.isnan(move.p) and move.verdict in MOVED]
    if untested:
        metrics = ", ".join(dict.fromkeys(move.metric for move in untested))
        yield f"Without a test, since there are no examples: {metrics}. There the tolerance alone decides."
    before, after = (results.run.get("packages", {}) for results in (base, new))
    differing = sorted(name for name in {**before, **after} if before.get(name) != after.get(name))
    if differing:
        told = ", ".join(f"{name} {before.get(name, '–')} → {after.get(name, '–')}" for name in differing)
        yield f"Packages differ: {told}."
    if differing := [*_differing(_flat(base.run["suite"]), _flat(new.run["suite"]))]:
        more = f", and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        yield f"The suites differ: {'; '.join(differing[:SHOWN])}{more}."
    # Of what both tell: one may be cut, and older results tell no precision, or not that of each attack.
    before, after = (dict(_flat(results.run.get("precision", {}))) for results in (base, new))
    if differing := [key for key in before if key in after and before[key] != after[key]]:
        yield f"The precisions differ: {'; '.join(f'{key} {before[key]} → {after[key]}' for key in differing)}."
    lost = sum(move.verdict == "lost" for move in moves)
    if lost and new.run.get("only"):
        only = ", ".join(f"{key}={glob}" for key, glob in new.run["only"].items())
        yield f"The new results are cut (--only {only}): {lost} figures of the base are lost."
    yield from _sight(moves, level)


def _flat(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by their path; lists count as values."""
    if not isinstance(data, Mapping):
        yield path, data
        return
    for key, value in data.items():
        yield from _flat(value, f"{path}.{key}" if path else str(key))


def _differing(base: Iterator[tuple[str, Any]], new: Iterator[tuple[str, Any]]) -> Iterator[str]:
    before, after = dict(base), dict(new)
    for path in {**before, **after}:
        if before.get(path) != after.get(path):
            one, other = before.get(path), after.get(path)
            plain = not isinstance(one, list) and not isinstance(other, list)
            yield f"{path} {one} → {other}" if plain else path


def _sight(moves: Sequence[Move], level: float) -> Iterator[str]:
    """Tell what drop of a gated recognition figure could have been seen."""
    gated = [move for move in moves if not np.isnan(move.adjusted)]
    single = level / counted([move.least for move in gated], level)
    for metric in dict.fromkeys(move.metric for move in gated if move.metric in SEEN):
        rows = [move for move in gated if move.metric == metric]
        clips, tolerance = min(move.n for move in rows), max(move.tolerance or 0.0 for move in rows)
        churn = float(np.mean([move.changed / max(move.n, 1) for move in rows]))
        drop = detectable(clips, churn, tolerance, single)
        yield (
            f"{metric}: on {clips} clips, of which {churn:.1%} changed on average, a true drop of {drop:.3f} in one "
            "figure is called a regression four times in five."
        )
