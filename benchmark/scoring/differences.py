"""Figures before and after, and what is made of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from advser.results.schema import KEYS

Verdict = Literal["same", "better", "worse", "noise", "regression", "lost", "new"]
"""``same``; ``better`` or ``worse``, but not gated or within the tolerance; ``noise``: beyond the tolerance, and not
told from chance; ``regression``: beyond it, and told from chance; ``lost``: the base has a figure and the new results
have none; ``new``: the other way round."""

MOVED: Final = ("better", "worse", "noise", "regression")
"""Verdicts on figures that both results have."""

CELL: Final = tuple(key for key in KEYS if key not in ("suite", "seed"))
"""What a cell of one result and that of another have in common; seeds may differ, if there are as many of them."""


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
        p: of the paired test that nothing became worse (`advser.scoring.paired_test.worsening`); NaN if there is none.
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
