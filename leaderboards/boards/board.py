"""What a board is, whatever it is written as: columns, rows of texts and measured cells, facts and notes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import pandas as pd

CellStatus = Literal["ok", "failed", "not-applicable", "missing"]


@dataclass(frozen=True)
class Standing:
    """Where an entry stands among those that it is compared with, as in the table of ranks.

    Attributes:
        rank, low, high: its rank and the 95 % interval of it.
        tie: number of its tie group; the best and all that tie with it are in group 1.
    """

    rank: int
    low: int
    high: int
    tie: int

    @property
    def interval(self) -> str:
        """The interval as boards show it."""
        return f"{self.low}" if self.low == self.high else f"{self.low}–{self.high}"


@dataclass(frozen=True)
class Cell:
    """One measured figure, or why there is none.

    Attributes:
        value, low, high: the figure and its 95 % interval; NaN where there is none.
        n, n_failed: clips that were measured, and that could not be.
        status: as in the results, or ``missing`` if they do not have the cell.
        reason: why there is no figure, or what is to be known of it (a footnote).
        spread: standard deviation over seeds; NaN where there is one seed.
        standing: how it ranks; None where it does not.
        origin: the cell of the results that it is of (`advser.leaderboards.boards.rows.cell_id`); empty: none.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    n_failed: int = 0
    status: CellStatus = "missing"
    reason: str = ""
    spread: float = math.nan
    standing: Standing | None = None
    origin: str = ""


MISSING = Cell()

MARKED: Final = "the best of their section's column"
"""What the marked figures of most boards are."""


@dataclass(frozen=True)
class Column:
    """One column as it is shown.

    Attributes:
        key: its name in `Board.frame`, and in CSV.
        title: the heading, a text a line.
        measured: whether it holds `Cell` objects; else texts.
        decimals: digits after the point.
        interval: whether the 95 % interval is shown beside the figure (CSV always has it).
        best: which figures are marked (`best_rows`).
        ranked: whether the interval of the rank is shown beside the figure, where there is one.
        names: of texts, whether rows are told apart by them; else they tell of a row, as figures do.
    """

    key: str
    title: tuple[str, ...]
    measured: bool = True
    decimals: int = 3
    interval: bool = False
    best: Literal["", "highest", "lowest"] = ""
    ranked: bool = False
    names: bool = True


@dataclass(frozen=True, eq=False)
class Board:
    """A leaderboard.

    Attributes:
        name: short name, for files and references.
        title: what it shows, in a line.
        columns: what is shown, texts before figures.
        frame: a row a line of the board, with a column for each of ``columns``.
        index: the same rows' keys in full precision, for CSV; a column may be in both.
        sections: a text a row; neighbouring rows that share one stand under it as a heading. All empty: no sections.
        section_title: what the section texts are, as a column heading.
        facts: what holds for every row (``corpus emodb``), left out of the columns.
        notes: what a reader must know.
        marked: what the marked figures are the best of.
        label: what LaTeX refers to it by; empty: ``tab:`` and the name.
        span: whether LaTeX sets it across both columns of a page.
        notes_of: column → those of the notes that go with it; it need not be among ``columns``.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    frame: pd.DataFrame
    index: pd.DataFrame
    sections: tuple[str, ...]
    section_title: str
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    marked: str = MARKED
    label: str = ""
    span: bool = False
    notes_of: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def sectioned(self) -> bool:
        """Whether rows stand under section headings."""
        return any(self.sections)


def standing_of(column: Sequence[object]) -> list[Standing | None]:
    """Return how each entry of a column ranks; texts do not."""
    return [entry.standing if isinstance(entry, Cell) else None for entry in column]


def best_rows(board: Board, column: Column) -> frozenset[int]:
    """Return the positions of the figures of a column that are marked.

    Where figures rank, these are the best and all that tie with it. Results without ranks are marked section by
    section: the best figure, and those within its 95 % interval; a section is left out if it has one row only or lacks
    a figure, for a row that was not measured might be the best.
    """
    if not column.best:
        return frozenset()
    cells: list[Cell] = board.frame[column.key].tolist()
    standings = standing_of(cells)
    if any(standings):
        return frozenset(row for row, standing in enumerate(standings) if standing is not None and standing.tie == 1)
    found: set[int] = set()
    for section in dict.fromkeys(board.sections):
        rows = [row for row, name in enumerate(board.sections) if name == section]
        if len(rows) < 2 or any(cells[row].status != "ok" for row in rows):
            continue
        shown = {row: round(cells[row].value, column.decimals) for row in rows}
        first = max(shown, key=shown.__getitem__) if column.best == "highest" else min(shown, key=shown.__getitem__)
        low, high = cells[first].low, cells[first].high
        found.update(row for row, value in shown.items() if value == shown[first] or low <= value <= high)
    return frozenset(found)


def varying(texts: Sequence[str]) -> bool:
    """Tell whether a column's texts differ, those left empty (does not apply) aside."""
    return len({text for text in texts if text}) > 1
