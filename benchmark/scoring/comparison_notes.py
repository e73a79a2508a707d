"""Notes on a comparison: other differences between the two results, and the smallest drop that it could detect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from advser.results.folder import Results
from advser.scoring.differences import MOVED, Move
from advser.scoring.paired_test import counted_tests, detectable

POWERED: Final = ("uar", "accuracy")
"""Metrics whose detectable drop is noted; the power for UAR is approximated by that for accuracy."""

SHOWN: Final = 6
"""Largest number of differences between the suites that a note lists."""


def remarks(moves: Sequence[Move], base: Results, new: Results, level: float) -> Iterator[str]:
    """Yield notes on a comparison, a sentence each.

    Args:
        moves: figures with their verdicts.
        base: results that were compared with.
        new: results that were judged.
        level: chance of a false alarm over all gated figures.
    """
    yield from _untested(moves)
    yield from _packages(base, new)
    yield from _suites(base, new)
    yield from _precisions(base, new)
    yield from _lost(moves, new)
    yield from _detectable_drops(moves, level)


def _untested(moves: Sequence[Move]) -> Iterator[str]:
    untested = [move for move in moves if move.tolerance is not None and np.isnan(move.p) and move.verdict in MOVED]
    if untested:
        metrics = ", ".join(dict.fromkeys(move.metric for move in untested))
        yield f"Without a test, since there are no examples: {metrics}. There the tolerance alone decides."


def _packages(base: Results, new: Results) -> Iterator[str]:
    before, after = (results.run.get("packages", {}) for results in (base, new))
    differing = sorted(name for name in {**before, **after} if before.get(name) != after.get(name))
    if differing:
        versions = ", ".join(f"{name} {before.get(name, '–')} → {after.get(name, '–')}" for name in differing)
        yield f"Packages differ: {versions}."


def _suites(base: Results, new: Results) -> Iterator[str]:
    if differing := [*_differing(_flat(base.run.get("suite", {})), _flat(new.run.get("suite", {})))]:
        more = f", and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        yield f"The suites differ: {'; '.join(differing[:SHOWN])}{more}."


def _precisions(base: Results, new: Results) -> Iterator[str]:
    # Only keys of both: a run may be cut, and older results lack the precision, or that of each attack.
    before, after = (dict(_flat(results.run.get("precision", {}))) for results in (base, new))
    if differing := [key for key in before if key in after and before[key] != after[key]]:
        yield f"The precisions differ: {'; '.join(f'{key} {before[key]} → {after[key]}' for key in differing)}."


def _lost(moves: Sequence[Move], new: Results) -> Iterator[str]:
    lost = sum(move.verdict == "lost" for move in moves)
    if lost and new.run.get("only"):
        only = ", ".join(f"{key}={glob}" for key, glob in new.run["only"].items())
        yield f"The new results are cut (--only {only}): {lost} figures of the base are lost."


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
        old_value, new_value = before.get(path), after.get(path)
        if old_value != new_value:
            listed = isinstance(old_value, list) or isinstance(new_value, list)
            yield path if listed else f"{path} {old_value} → {new_value}"


def _detectable_drops(moves: Sequence[Move], level: float) -> Iterator[str]:
    """Yield, for each gated metric of `POWERED`, the drop that the comparison detects with a power of 80 %."""
    gated = [move for move in moves if not np.isnan(move.adjusted)]
    single = level / counted_tests([move.least for move in gated], level)
    for metric in dict.fromkeys(move.metric for move in gated if move.metric in POWERED):
        rows = [move for move in gated if move.metric == metric]
        clips, tolerance = min(move.n for move in rows), max(move.tolerance or 0.0 for move in rows)
        churn = float(np.mean([move.changed / max(move.n, 1) for move in rows]))
        drop = detectable(clips, churn, tolerance, single)
        yield (
            f"{metric}: on {clips} clips, of which {churn:.1%} changed on average, a true drop of {drop:.3f} in one "
            "figure is called a regression four times in five."
        )
