"""Times of one thing as a share of another's, measured in turns, and the table that they make."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from advser.store import replacing


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        part: what it is about: ``attack loop``.
        what: what was measured, in words.
        ours: how much it took.
        reference: how much the reference took; 1 where the goal is absolute.
        against: what the reference is; empty where the goal is absolute.
        unit: of both.
        goal: of ``ours / reference``.
        at_least: whether the ratio is to be at least the goal; else at most.
    """

    part: str
    what: str
    ours: float
    reference: float
    against: str
    unit: str
    goal: float
    at_least: bool = False

    @property
    def ratio(self) -> float:
        """Ours as a share of the reference."""
        return self.ours / self.reference

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal


@dataclass
class Table:
    """All figures of one run, and what it ran on."""

    figures: list[Figure] = field(default_factory=list)
    circumstances: Mapping[str, Any] = field(default_factory=dict)

    def add(self, figure: Figure) -> None:
        """Add a line."""
        self.figures.append(figure)

    def save(self, path: Path) -> None:
        """Write the table as JSON."""
        told = {"circumstances": dict(self.circumstances), "figures": [asdict(one) for one in self.figures]}
        with replacing(path) as beside:
            beside.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read a table that was saved."""
        told = json.loads(path.read_text(encoding="utf-8"))
        return cls([Figure(**one) for one in told["figures"]], told["circumstances"])

    def text(self, form: str = "simple") -> str:
        """Return the table in a format of tabulate's."""
        lines = [
            [
                one.part,
                one.what,
                f"{_short(one.ours)} {one.unit}",
                f"{_short(one.reference)} {one.unit}, {one.against}" if one.against else "",
                f"{one.ratio:.2f}" if one.against else "",
                f"{'≥' if one.at_least else '≤'} {one.goal:g}{'' if one.against else f' {one.unit}'}",
                "met" if one.met else "not met",
            ]
            for one in self.figures
        ]
        return tabulate(lines, ["", "figure", "ours", "reference", "ratio", "goal", ""], tablefmt=form)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def interleaved(candidates: Mapping[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Return the median seconds of each candidate.

    They are called in turns, each round in another order, so that a machine that slows down slows all alike; a first
    round does not count.
    """
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            candidates[name]()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}
