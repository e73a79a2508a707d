"""A board independent of its format: columns, rows of texts and measured cells, facts and notes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import pandas as pd

CellStatus = Literal["ok", "failed", "not-applicable", "missing"]


@dataclass(frozen=True)
class Standing:
    """The rank of an entry among those that it is compared with, as in the table of ranks.

    Attributes:
        rank, low, high: the rank and its 95 % interval.
        tie: number of the tie group; the best entry and all that tie with it are in group 1.
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
    """One measured figure, or the reason why it is missing.

    Attributes:
        value, low, high: the figure and its 95 % interval; NaN if unmeasured.
        n, n_failed: number of measured clips, and of clips that could not be measured.
        status: as in the results, or ``missing`` if they lack the cell.
        reason: footnote: why the figure is missing, or a remark on it.
        spread: standard deviation over seeds; NaN with a single seed.
        standing: its rank; None if it is not ranked.
        origin: identifier of its cell of the results (`advser.leaderboards.boards.rows.cell_id`); empty: none.
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
"""Meaning of the marked figures on most boards."""


@dataclass(frozen=True)
class Column:
    """One column as boards show it.

    Attributes:
        key: its name in `Board.frame`, and in CSV.
        title: the heading, a text per line.
        measured: whether it holds `Cell` objects; otherwise texts.
        decimals: digits after the point.
        interval: whether the 95 % interval is shown beside the figure (CSV always has it).
        best: which figures are marked (`best_rows`).
        ranked: whether the interval of the rank is shown beside a ranked figure.
        identifies: of texts, whether they identify rows; otherwise they describe a row, as figures do.
    """

    key: str
    title: tuple[str, ...]
    measured: bool = True
    decimals: int = 3
    interval: bool = False
    best: Literal["", "highest", "lowest"] = ""
    ranked: bool = False
    identifies: bool = True


Entries = dict[Column, list[object]]
"""Column, in the order shown → a text or a cell for each row of the board."""


def frame_of(entries: Entries) -> pd.DataFrame:
    """Return the `Board.frame` of some columns."""
    by_key = {column.key: values for column, values in entries.items()}
    return pd.DataFrame(by_key, columns=list(by_key), dtype=object)


@dataclass(frozen=True, eq=False)
class Board:
    """A leaderboard.

    Attributes:
        name: short name, for files and references.
        title: its content, in a line.
        columns: the columns shown, texts before figures.
        frame: a row per row of the board, with a column for each of ``columns``.
        index: keys of the same rows in full precision, for CSV; it may repeat a column of ``frame``.
        sections: a heading per row, shown once for neighbours that share it. All empty: no sections.
        section_title: column heading for the section texts.
        facts: what holds for every row (``corpus emodb``), left out of the columns.
        notes: remarks that a reader needs.
        marked: meaning of the marked figures.
        label: label for LaTeX references; empty: ``tab:`` and the name.
        span: whether LaTeX sets it across both columns of a page.
        notes_of: column → the notes that belong to it; the column need not be among ``columns``.
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
        """Whether the board has section headings."""
        return any(self.sections)


def standing_of(column: Sequence[object]) -> list[Standing | None]:
    """Return the rank of each entry of a column; None for texts and unranked figures."""
    return [entry.standing if isinstance(entry, Cell) else None for entry in column]


def best_rows(board: Board, column: Column) -> frozenset[int]:
    """Return the positions of a column's marked figures.

    Of ranked figures, these are the best and all that tie with it. Results without ranks are marked section by
    section: the best figure, and those within its 95 % interval. A section with a single row or a missing figure has
    no marks, because an unmeasured row might be the best.
    """
    if not column.best:
        return frozenset()
    cells: list[Cell] = board.frame[column.key].tolist()
    standings = standing_of(cells)
    if any(standings):
        return frozenset(row for row, standing in enumerate(standings) if standing is not None and standing.tie == 1)
    marked: set[int] = set()
    rows_of: dict[str, list[int]] = {}
    for row, section in enumerate(board.sections):
        rows_of.setdefault(section, []).append(row)
    for rows in rows_of.values():
        if len(rows) < 2 or any(cells[row].status != "ok" for row in rows):
            continue
        shown = {row: round(cells[row].value, column.decimals) for row in rows}
        first = max(shown, key=shown.__getitem__) if column.best == "highest" else min(shown, key=shown.__getitem__)
        low, high = cells[first].low, cells[first].high
        marked.update(row for row, value in shown.items() if value == shown[first] or low <= value <= high)
    return frozenset(marked)


def is_varying(texts: Sequence[str]) -> bool:
    """Return whether a column's texts differ, ignoring empty ones (not applicable)."""
    return len({text for text in texts if text}) > 1
