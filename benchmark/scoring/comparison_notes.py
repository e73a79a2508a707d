"""What a reader must know of a comparison: what else differs, and what it could not have seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from advser.results.folder import Results
from advser.scoring.differences import MOVED, Move
from advser.scoring.paired_test import counted, detectable

SEEN: Final = ("uar", "accuracy")
"""Metrics of which a comparison tells what drop it could have seen; UAR is taken as accuracy is."""

SHOWN: Final = 6
"""Differences of the suites that are told."""


def remarks(moves: Sequence[Move], base: Results, new: Results, level: float) -> Iterator[str]:
    """Yield sentences on a comparison.

    Args:
        moves: the figures, with their verdicts.
        base: what is compared with.
        new: what is judged.
        level: chance of a false alarm over all gated figures.
    """
    yield from _untested(moves)
    yield from _packages(base, new)
    yield from _suites(base, new)
    yield from _precisions(base, new)
    yield from _lost(moves, new)
    yield from _sight(moves, level)


def _untested(moves: Sequence[Move]) -> Iterator[str]:
    found = [move for move in moves if move.tolerance is not None and np.isnan(move.p) and move.verdict in MOVED]
    if found:
        metrics = ", ".join(dict.fromkeys(move.metric for move in found))
        yield f"Without a test, since there are no examples: {metrics}. There the tolerance alone decides."


def _packages(base: Results, new: Results) -> Iterator[str]:
    before, after = (results.run.get("packages", {}) for results in (base, new))
    differing = sorted(name for name in {**before, **after} if before.get(name) != after.get(name))
    if differing:
        told = ", ".join(f"{name} {before.get(name, '–')} → {after.get(name, '–')}" for name in differing)
        yield f"Packages differ: {told}."


def _suites(base: Results, new: Results) -> Iterator[str]:
    if differing := [*_differing(_flat(base.run["suite"]), _flat(new.run["suite"]))]:
        more = f", and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        yield f"The suites differ: {'; '.join(differing[:SHOWN])}{more}."


def _precisions(base: Results, new: Results) -> Iterator[str]:
    # Of what both tell: one may be cut, and older results tell no precision, or not that of each attack.
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
