"""A comparison of two results for people and for CI: a board of changes, JUnit XML, GitHub's annotations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree

import pandas as pd

from advser.leaderboards.boards.board import Board, Cell, Column, Entries, frame_of, is_varying
from advser.leaderboards.boards.rows import Row, rows
from advser.leaderboards.boards.sheet import figure_text
from advser.leaderboards.boards.texts import visible
from advser.results.folder import Results
from advser.scoring.differences import CELL, Comparison, Move

PLACE: Final = (
    "part", "model", "defense", "attack", "epsilon", "domain", "delivery", "labels", "access", "source_model",
    "source_defense",
)  # fmt: skip
"""Keys that identify a line of the board."""

MEANING: Final = {
    "better": "better",
    "worse": "worse, but within the tolerance or not gated",
    "noise": "worse beyond the tolerance, but no more than chance explains",
    "regression": "worse beyond the tolerance, and more than chance explains",
    "lost": "the base has a figure, the new results have none",
    "new": "the new results have a figure, the base has none",
}
"""Verdict → its meaning."""

_FIRST: Final = ("regression", "lost", "noise", "worse", "better", "new")


@dataclass(frozen=True)
class Line:
    """One move and its row of the results."""

    move: Move
    row: Row

    @property
    def place(self) -> str:
        """The cell in words: ``cnn4 / none, ifgsm (steps=10), true labels, 0.001 FS, waveform``."""
        keys = ("epsilon", "domain", "delivery", "access", "part")
        texts = [self.row.attack, self.row.labels, *(self.row.text(key) for key in keys)]
        source = [self.row.text(key) for key in ("source_model", "source_defense") if self.row.transfer]
        from_source = f"from {' / '.join(source)}" if any(source) else ""
        victim = f"{self.row.text('model')} / {self.row.text('defense')}"
        return visible(", ".join(text for text in (victim, *texts, from_source) if text))

    @property
    def summary(self) -> str:
        """The move, in a line."""
        move = self.move
        if math.isnan(move.difference):
            return visible(f"{move.metric}: {move.reason}")
        test = "" if math.isnan(move.adjusted) else f", p = {move.adjusted:.3g} on {move.n} clips"
        base, new, change = (_figure(value) for value in (move.base, move.new, move.difference))
        return f"{visible(move.metric)}: {base} → {new} ({'+' if move.difference > 0 else ''}{change}{test})"


def _figure(value: float) -> str:
    return figure_text(Cell(value, status="ok"), 3, interval=False)


def lines(comparison: Comparison, base: Results, new: Results) -> list[Line]:
    """Return the figures that moved, failures first; unchanged figures are left out."""
    row_of = {**_row_of(new), **_row_of(base)}
    moved = [move for move in comparison.moves if move.verdict != "same"]
    ordered = sorted(moved, key=lambda move: (not move.failed, _FIRST.index(move.verdict)))
    return [Line(move, row_of[tuple(move.keys.values())]) for move in ordered]


def _row_of(results: Results) -> dict[tuple[Any, ...], Row]:
    return {row.values(CELL): row for row in rows(results)}


def board(comparison: Comparison, moved: Sequence[Line], gates: str) -> Board:
    """Return a board of the figures that moved.

    Args:
        comparison: the comparison.
        moved: its `lines`.
        gates: the gated metrics, in words.
    """
    shown = [key for key in PLACE if is_varying([line.row.text(key) for line in moved])]
    texts: Mapping[str, list[object]] = {
        "verdict": [line.move.verdict for line in moved],
        "metric": [line.move.metric for line in moved],
        **{key: [line.row.text(key) for line in moved] for key in shown},
    }
    figures: Mapping[str, list[object]] = {
        "base": [_cell(line.move.base, line.move.reason) for line in moved],
        "new": [_cell(line.move.new, line.move.reason) for line in moved],
        "change": [_cell(line.move.difference, "") for line in moved],
        "p": [_cell(line.move.adjusted, "") for line in moved],
    }
    entries: Entries = {
        Column(key, (key.replace("_", " "),), measured=key in figures): values
        for key, values in {**texts, **figures}.items()
    }
    index = pd.DataFrame([line.row.values(CELL) for line in moved], columns=list(CELL), dtype=object)
    verdicts = dict.fromkeys(line.move.verdict for line in moved)
    return Board(
        "changes",
        "Figures that moved",
        tuple(entries),
        frame_of(entries),
        index,
        tuple("" for _ in moved),
        "",
        (),
        (*_summary(comparison), gates, *(f"{verdict}: {MEANING[verdict]}." for verdict in verdicts), *comparison.notes),
    )


def _cell(value: float, reason: str) -> Cell:
    return Cell(reason=reason) if math.isnan(value) else Cell(value, status="ok")


def _summary(comparison: Comparison) -> tuple[str, ...]:
    moves = comparison.moves
    gated = sum(move.tolerance is not None for move in moves)
    moved = sum(move.verdict != "same" for move in moves)
    failed = len(comparison.failures)
    return (f"{len(moves)} figures, {moved} moved; {gated} gated, {failed} of them failed.",)


def junit(comparison: Comparison, moved: Sequence[Line]) -> str:
    """Return JUnit XML: a test case per gated figure that moved, and a single one for all that did not move."""
    gated = [line for line in moved if line.move.tolerance is not None]
    same = sum(move.tolerance is not None and move.verdict == "same" for move in comparison.moves)
    failures = str(len(comparison.failures))
    tests = str(len(gated) + (same > 0))
    suite = ElementTree.Element("testsuite", name="advser compare", tests=tests, failures=failures, errors="0")
    for line in gated:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"advser.{visible(line.move.metric)}", name=line.place
        )
        if line.move.failed:
            ElementTree.SubElement(case, "failure", type=line.move.verdict, message=line.summary)
    if same:
        ElementTree.SubElement(suite, "testcase", classname="advser", name=f"{same} gated figures are the same")
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


def workflow_commands(moved: Sequence[Line]) -> str:
    """Return GitHub's workflow commands: an error per figure that fails, a warning per figure reported as noise."""
    annotated = [line for line in moved if line.move.failed or line.move.verdict == "noise"]
    return "\n".join(
        f"::{'error' if line.move.failed else 'warning'} title=AdvSER {line.move.verdict}::"
        f"{_escaped(f'{line.place}: {line.summary}')}"
        for line in annotated
    )


def _escaped(text: str) -> str:
    """Return a text escaped for a workflow command, which has one line."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
