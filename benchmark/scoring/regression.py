"""Comparison of two results of one protocol, with a verdict on each figure.

Both results cover the same clips, so the comparison is paired: the difficulty of a clip cancels. The intervals over
speakers on boards answer a different question, how figures vary between speakers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from advser.errors import InputError, did_you_mean
from advser.results.folder import Results
from advser.results.schema import MACHINE_DEPENDENT
from advser.results.terms import CHANCE_BASELINES
from advser.scoring.clip_pairs import Pairs, settings, without_nan
from advser.scoring.comparison_notes import remarks
from advser.scoring.differences import CELL, Comparison, Gate, Move, Verdict
from advser.scoring.paired_test import corrected

LEVEL: Final = 0.05
"""Chance that a comparison reports any regression although base and new results are alike."""

_ROUNDING: Final = 1e-9


def compare(base: Results, new: Results, gates: Sequence[Gate] = (), level: float = LEVEL) -> Comparison:
    """Compare two results of one protocol.

    A gated figure is a regression if it is worse by more than the tolerance *and* the paired test is significant: its
    p, corrected for all gated figures (`advser.scoring.paired_test.corrected`), is at most ``level``. Without a test
    the tolerance alone decides, which a note reports.

    Args:
        base: results to compare with.
        new: results to judge.
        gates: by default every metric with a better direction and a test, with the tolerance 0.
        level: chance of a false alarm over all gated figures; with 1 the tolerance alone decides.

    Raises:
        InputError: if the protocols, clips or labels differ, or a gate names no metric of the base.
    """
    _refuse_protocols(base, new)
    gated = {gate.metric: gate for gate in gates or _default_gates(base)}
    _refuse_metrics(gated, base)
    moves = [replace(move, **_gate(move, gated)) for move in _moves(base, new)]
    moves = _judged(moves, level)
    return Comparison(tuple(moves), level, tuple(remarks(moves, base, new, level)))


def gates_of(base: Results, texts: Mapping[str, str]) -> list[Gate]:
    """Return gates from the texts of a command line: metric → largest change for the worse that passes, signed.

    Raises:
        InputError: if a metric is unknown or has no better direction, or a text is not a number for the worse.
    """
    _refuse_metrics(texts, base)
    gates = []
    for name, text in texts.items():
        better = base.table.loc[base.table["metric"] == name, "higher_is_better"].iloc[0]
        if pd.isna(better):
            raise InputError(f"--fail-on {name}={text}: got no better direction, expected a metric with a direction")
        allowed = "a number ≤ 0, since higher is better" if better else "a number ≥ 0, since lower is better"
        try:
            delta = float(text)
        except ValueError:
            delta = float("nan")
        worse = -delta if better else delta
        if not 0 <= worse < float("inf"):
            raise InputError(f"--fail-on {name}={text}: got '{text}', expected {allowed}")
        gates.append(Gate(name, worse))
    return gates


def _default_gates(base: Results) -> list[Gate]:
    directed = base.table[base.table["higher_is_better"].notna()]
    tested = [] if base.examples.empty else dict.fromkeys(directed["metric"])
    return [Gate(metric) for metric in tested if metric not in MACHINE_DEPENDENT]


def _refuse_metrics(gated: Mapping[str, object], base: Results) -> None:
    known = list(dict.fromkeys(base.table["metric"]))
    for name in gated:
        if name not in known:
            raise InputError(
                f"gate '{name}': got an unknown metric, expected {', '.join(known)}{did_you_mean(name, known)}"
            )


def _protocol(results: Results) -> dict[str, Any]:
    """Return the settings that two results must share for their figures to be comparable."""
    parts = settings(results)
    protocol: dict[str, Any] = {"parts": [setting.part for setting in parts]}
    for setting in parts:
        for key, value in setting.model_dump(include={"corpus", "task", "classes", "protocol", "folds"}).items():
            protocol[f"{setting.part or 'suite'}.{key}"] = "all" if value is None else value
        protocol[f"{setting.part or 'suite'}.seeds"] = len(setting.seeds)
    for part, engine in results.run.get("transcribers", {}).items():
        protocol[f"transcriber{part and f' of {part}'}"] = {key: engine[key] for key in ("name", "params", "model")}
    return protocol


def _refuse_protocols(base: Results, new: Results) -> None:
    before, after = _protocol(base), _protocol(new)
    for key in {**before, **after}:
        if before.get(key) != after.get(key):
            raise InputError(f"{key}: got {after.get(key)}, expected {before.get(key)}, as in the base")


def _moves(base: Results, new: Results) -> Iterator[Move]:
    before, after = _figures(base), _figures(new)
    pairs = Pairs(base, new)
    for cell_and_metric in {**before, **after}:
        *keys, metric = cell_and_metric
        cell = dict(zip(CELL, keys, strict=True))
        old, new_figure = before.get(cell_and_metric), after.get(cell_and_metric)
        either = new_figure or old
        assert either is not None
        move = Move(cell, metric, _value(old), _value(new_figure), either.higher_is_better)
        if old is None or new_figure is None or np.isnan(move.difference):
            yield replace(move, reason=_why_missing(old, new_figure))
        else:
            yield pairs.tested(move)


@dataclass(frozen=True)
class _Figure:
    value: float
    higher_is_better: bool | None
    reason: str


def _figures(results: Results) -> dict[tuple[Any, ...], _Figure]:
    """Return the figures by cell and metric: means over seeds, NaN if the figure of any seed is missing."""
    table = results.table[~results.table["model"].isin(CHANCE_BASELINES)]
    figures = {}
    for keys, rows in table.groupby([*CELL, "metric"], dropna=False, sort=False):
        better = rows["higher_is_better"].iloc[0]
        reason = next((text for text in rows["reason"] if text), "")
        direction = None if pd.isna(better) else bool(better)
        figures[without_nan(keys)] = _Figure(float(rows["value"].mean(skipna=False)), direction, reason)
    return figures


def _value(figure: _Figure | None) -> float:
    return float("nan") if figure is None else figure.value


def _why_missing(old: _Figure | None, new: _Figure | None) -> str:
    if new is None:
        return "the new results lack this cell"
    if old is None:
        return "the base lacks this cell"
    return new.reason or old.reason


def _gate(move: Move, gated: Mapping[str, Gate]) -> dict[str, Any]:
    return {"tolerance": gated[move.metric].tolerance} if move.metric in gated else {}


def _judged(moves: Sequence[Move], level: float) -> list[Move]:
    tested = [row for row, move in enumerate(moves) if move.tolerance is not None and not np.isnan(move.p)]
    least = [moves[row].least for row in tested]
    adjusted = dict(zip(tested, corrected([moves[row].p for row in tested], least, level), strict=True))
    corrected_moves = (replace(move, adjusted=adjusted.get(row, float("nan"))) for row, move in enumerate(moves))
    return [replace(move, verdict=_verdict(move, level)) for move in corrected_moves]


def _verdict(move: Move, level: float) -> Verdict:
    if np.isnan(move.difference):
        return "same" if np.isnan(move.base) and np.isnan(move.new) else "lost" if np.isnan(move.new) else "new"
    if abs(move.difference) <= _ROUNDING:
        return "same"
    if move.tolerance is None or move.worsening <= move.tolerance + _ROUNDING:
        return "better" if move.worsening < 0 else "worse" if move.worsening > 0 else "same"
    return "noise" if move.adjusted > level + _ROUNDING else "regression"
