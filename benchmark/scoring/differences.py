"""Figures of two results, before and after, with a verdict on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from advser.results.schema import KEYS

Verdict = Literal["same", "better", "worse", "noise", "regression", "lost", "new"]
"""``same``; ``better`` or ``worse``: not gated, or within the tolerance; ``noise``: beyond the tolerance, but not
significant; ``regression``: beyond the tolerance, and significant; ``lost``: only the base has a figure; ``new``: only
the new results have a figure."""

MOVED: Final = ("better", "worse", "noise", "regression")
"""Verdicts on figures that both results have."""

CELL: Final = tuple(key for key in KEYS if key not in ("suite", "seed"))
"""Keys by which cells of two results are matched; seeds may differ if their number is the same."""


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
    """A figure before and after.

    Attributes:
        keys: the cell's keys (`CELL`).
        metric: title of the metric.
        base, new: means over seeds; NaN for a missing figure.
        higher_is_better: the metric's better direction; None if it has none.
        n: number of clips measured in both results.
        changed: number of clips on which the two results differ.
        p: of the paired test that nothing became worse (`advser.scoring.paired_test.worsening`); NaN without a test.
        least: smallest p that this test can return.
        adjusted: ``p`` corrected for all gated figures; NaN without a gate.
        tolerance: of the gate; None without a gate.
        verdict: as `Verdict` lists them.
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
        """Change for the worse: negative if the new figure is better, 0 if the metric has no better direction."""
        return 0.0 if self.higher_is_better is None else (-1 if self.higher_is_better else 1) * self.difference

    @property
    def failed(self) -> bool:
        """Whether the figure fails its gate."""
        return self.verdict == "regression" or (self.verdict == "lost" and self.tolerance is not None)


@dataclass(frozen=True)
class Comparison:
    """Two results compared figure by figure.

    Attributes:
        moves: in the order of the base, then the figures that only the new results have.
        level: as in `advser.scoring.regression.compare`.
        notes: sentences for the reader (`advser.scoring.comparison_notes.remarks`).
    """

    moves: tuple[Move, ...]
    level: float
    notes: tuple[str, ...]

    @property
    def failures(self) -> tuple[Move, ...]:
        """The figures that fail their gate."""
        return tuple(move for move in self.moves if move.failed)
