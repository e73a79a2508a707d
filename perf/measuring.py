"""What was measured, as a share of something else or of a goal, and the table that it makes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from advser.store.files import replacing

WHOLE = "whole suite"
"""The part of the table that takes longer than all others, and is measured by itself."""


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
        detail: what is told beside the reference.
        commit: of AdvSER, with a ``+`` if there were changes to it.
    """

    part: str
    what: str
    ours: float
    reference: float
    against: str
    unit: str
    goal: float
    at_least: bool = False
    detail: str = ""
    commit: str = ""

    @property
    def ratio(self) -> float:
        """Ours as a share of the reference."""
        return self.ours / self.reference

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal


@dataclass(frozen=True)
class Growth:
    """How the time for something grows.

    Attributes:
        what: takes the time.
        with_: what grows: ``clips``.
        counts: how many of them, rising.
        seconds: for each count.
    """

    what: str
    with_: str
    counts: Sequence[int]
    seconds: Sequence[float]

    @property
    def line(self) -> tuple[float, float]:
        """Seconds at the count 0, and seconds a count more: the line of least squares."""
        more, at_0 = np.polyfit(self.counts, self.seconds, 1)
        return float(at_0), float(more)

    @property
    def exponent(self) -> float:
        """The p of seconds ∝ count^p, by least squares of the logarithms: 1 is in proportion, −1 inversely so."""
        return float(np.polyfit(np.log(self.counts), np.log(self.seconds), 1)[0])


@dataclass
class Table:
    """All figures of one run, and what it ran on."""

    figures: list[Figure] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    circumstances: Mapping[str, Any] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """AdvSER's commit, with a ``+`` if there were changes to it; empty if it is not known."""
        git = self.circumstances.get("git")
        return f"{git['commit'][:7]}{'+' if git['dirty'] else ''}" if git else ""

    def add(self, figure: Figure) -> None:
        """Add a line."""
        self.figures.append(replace(figure, commit=self.commit))

    @property
    def commits(self) -> str:
        """How many of the lines are of which commit."""
        counts = Counter(one.commit for one in self.figures)
        return ", ".join(f"{commit} ({count} lines)" for commit, count in counts.most_common())

    def save(self, path: Path) -> None:
        """Write the table as JSON."""
        told = {
            "circumstances": dict(self.circumstances),
            "figures": [asdict(one) for one in self.figures],
            "growths": [asdict(one) for one in self.growths],
        }
        with replacing(path) as beside:
            beside.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read a table that was saved."""
        told = json.loads(path.read_text(encoding="utf-8"))
        figures = [Figure(**one) for one in told["figures"]]
        growths = [Growth(**one) for one in told["growths"]]
        return cls(figures, growths, told["circumstances"])

    def updating(self, kept: Table) -> Table:
        """Return what was kept, with these lines in the places of those about the same, and new ones at the end."""
        mine = {(one.part, one.what, one.against): one for one in self.figures}
        grown = {(one.what, one.with_): one for one in self.growths}
        figures = [mine.pop((one.part, one.what, one.against), one) for one in kept.figures]
        growths = [grown.pop((one.what, one.with_), one) for one in kept.growths]
        return Table([*figures, *mine.values()], [*growths, *grown.values()], self.circumstances)

    def beside(self, kept: Table, part: str) -> Table:
        """Return these lines, and from what was kept those of a part that was not measured now."""
        others = [one for one in kept.figures if one.part == part]
        return Table([*self.figures, *others], self.growths, self.circumstances)

    def growth_text(self, form: str = "simple") -> str:
        """Return how times grow, in a format of tabulate's."""
        lines = []
        for one in self.growths:
            at_0, more = one.line
            points = ", ".join(f"{_short(s)} s ({n})" for n, s in zip(one.counts, one.seconds, strict=True))
            fit = f"{_short(at_0)} s + {_short(1e3 * more)} ms" if one.exponent > 0 else ""
            lines.append([one.what, one.with_, points, fit, f"{one.exponent:.2f}"])
        headings = ["time of", "against", "seconds (count)", "line: at 0 + for each", "exponent"]
        return tabulate(lines, headings, tablefmt=form, disable_numparse=True)

    @property
    def standing(self) -> str:
        """How many goals are met, in all and of each part, in a sentence."""
        lines = Counter(one.part for one in self.figures)
        met = Counter(one.part for one in self.figures if one.met)
        told = ", ".join(f"{part} {met[part]} of {count}" for part, count in lines.items())
        return f"{met.total()} of {len(self.figures)} goals are met: {told}."

    def text(self, form: str = "simple") -> str:
        """Return the table in a format of tabulate's."""
        lines = [
            [
                one.part,
                one.what,
                f"{_short(one.ours)} {one.unit}",
                f"{_short(one.reference)} {one.unit}, {one.against}{one.detail}" if one.against else "",
                f"{one.ratio:.2f}" if one.against else "",
                f"{'≥' if one.at_least else '≤'} {one.goal:g}{'' if one.against else f' {one.unit}'}",
                "met" if one.met else "not met",
            ]
            for one in self.figures
        ]
        return tabulate(lines, ["", "figure", "ours", "reference", "ratio", "goal", ""], tablefmt=form)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
