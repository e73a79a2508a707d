"""Measurements, as shares of a reference or of a goal, and their table."""

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
"""The part of the table that takes longer than all others together, and is measured on request."""


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        part: part of the table, for example ``attack loop``.
        what: what is measured, in words.
        ours: AdvSER's value.
        reference: the reference's value; 1 if the goal is absolute.
        against: name of the reference; empty if the goal is absolute.
        unit: unit of both values.
        goal: goal of ``ours / reference``.
        at_least: whether the goal is a minimum of the ratio; otherwise it is a maximum.
        detail: text after the reference's name.
        commit: AdvSER's commit, with a ``+`` if its files were changed.
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
        """AdvSER's value as a share of the reference's."""
        return self.ours / self.reference

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal


@dataclass(frozen=True)
class Growth:
    """Times of an operation for growing counts.

    Attributes:
        what: the operation.
        with_: the counted things, for example ``clips``.
        counts: increasing counts.
        seconds: time for each count.
    """

    what: str
    with_: str
    counts: Sequence[int]
    seconds: Sequence[float]

    @property
    def line(self) -> tuple[float, float]:
        """Intercept in seconds and slope in seconds per count, by least squares."""
        slope, intercept = np.polyfit(self.counts, self.seconds, 1)
        return float(intercept), float(slope)

    @property
    def exponent(self) -> float:
        """The p of seconds ∝ count^p, by least squares of the logarithms; proportional: 1, inversely: −1."""
        return float(np.polyfit(np.log(self.counts), np.log(self.seconds), 1)[0])


@dataclass
class Table:
    """All figures of one run, with its machine and versions."""

    figures: list[Figure] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    circumstances: Mapping[str, Any] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """AdvSER's commit, with a ``+`` if its files were changed; empty if unknown."""
        git = self.circumstances.get("git")
        return f"{git['commit'][:7]}{'+' if git['dirty'] else ''}" if git else ""

    def add(self, figure: Figure) -> None:
        """Add a line."""
        self.figures.append(replace(figure, commit=self.commit))

    @property
    def commits(self) -> str:
        """The number of lines of each commit, in words."""
        counts = Counter(figure.commit for figure in self.figures)
        return ", ".join(f"{commit} ({count} lines)" for commit, count in counts.most_common())

    def save(self, path: Path) -> None:
        """Write the table as JSON."""
        data = {
            "circumstances": dict(self.circumstances),
            "figures": [asdict(figure) for figure in self.figures],
            "growths": [asdict(growth) for growth in self.growths],
        }
        with replacing(path) as beside:
            beside.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read a saved table."""
        data = json.loads(path.read_text(encoding="utf-8"))
        figures = [Figure(**figure) for figure in data["figures"]]
        growths = [Growth(**growth) for growth in data["growths"]]
        return cls(figures, growths, data["circumstances"])

    def updating(self, saved: Table) -> Table:
        """Return a saved table in which these lines replace their predecessors; further lines are at the end."""
        figures = {(figure.part, figure.what, figure.against): figure for figure in [*saved.figures, *self.figures]}
        growths = {(growth.what, growth.with_): growth for growth in [*saved.growths, *self.growths]}
        return Table([*figures.values()], [*growths.values()], self.circumstances)

    def with_part(self, saved: Table, part: str) -> Table:
        """Return these lines, and a saved table's lines of one part."""
        others = [figure for figure in saved.figures if figure.part == part]
        return Table([*self.figures, *others], self.growths, self.circumstances)

    def growth_text(self, form: str = "simple") -> str:
        """Return the growths as a table in a format of tabulate."""
        lines = []
        for growth in self.growths:
            intercept, slope = growth.line
            points = ", ".join(f"{_short(s)} s ({n})" for n, s in zip(growth.counts, growth.seconds, strict=True))
            fit = f"{_short(intercept)} s + {_short(1e3 * slope)} ms" if growth.exponent > 0 else ""
            lines.append([growth.what, growth.with_, points, fit, f"{growth.exponent:.2f}"])
        headings = ["time of", "against", "seconds (count)", "line: at 0 + for each", "exponent"]
        return tabulate(lines, headings, tablefmt=form, disable_numparse=True)

    @property
    def goals_met(self) -> str:
        """The number of met goals, in all and in each part, in a sentence."""
        lines = Counter(figure.part for figure in self.figures)
        met = Counter(figure.part for figure in self.figures if figure.met)
        parts = ", ".join(f"{part} {met[part]} of {count}" for part, count in lines.items())
        return f"{met.total()} of {len(self.figures)} goals are met: {parts}."

    def text(self, form: str = "simple") -> str:
        """Return the figures as a table in a format of tabulate."""
        headings = ["", "figure", "ours", "reference", "ratio", "goal", ""]
        return tabulate([_line(figure) for figure in self.figures], headings, tablefmt=form)


def _line(figure: Figure) -> list[str]:
    reference = f"{_short(figure.reference)} {figure.unit}, {figure.against}{figure.detail}" if figure.against else ""
    return [
        figure.part,
        figure.what,
        f"{_short(figure.ours)} {figure.unit}",
        reference,
        f"{figure.ratio:.2f}" if figure.against else "",
        f"{'≥' if figure.at_least else '≤'} {figure.goal:g}{'' if figure.against else f' {figure.unit}'}",
        "met" if figure.met else "not met",
    ]


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
