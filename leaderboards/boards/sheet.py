"""A board as texts: rounded figures, marks and numbered footnotes, for every format that people read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from advser.leaderboards.boards.board import Board, Cell, Column, best_rows, standing_of
from advser.leaderboards.boards.texts import visible

MISSING_MARK = "–"
NOT_APPLICABLE_MARK = "n/a"
FAILED_MARK = "†"
_LONGEST_REASON = 240


@dataclass(frozen=True)
class Shown:
    """One field: its text, the number of its footnote (0: none), and whether it is marked as the best."""

    text: str
    footnote: int = 0
    best: bool = False


@dataclass(frozen=True)
class Sheet:
    """A board as texts.

    Attributes:
        caption: the title and the facts.
        header: a heading per column, a text per line.
        measured: for each column, whether it holds figures.
        body: the fields of each row.
        sections: a heading per row, as in `Board`.
        section_title: column heading for the sections.
        best: meaning of the marked figures; empty if none is marked.
        legend: explanations of the figures.
        marks: mark that occurs → its meaning.
        footnotes: the numbered footnotes, from number 1.
        notes: remarks that a reader needs.
    """

    caption: str
    header: tuple[tuple[str, ...], ...]
    measured: tuple[bool, ...]
    body: tuple[tuple[Shown, ...], ...]
    sections: tuple[str, ...]
    section_title: str
    best: str
    legend: tuple[str, ...]
    marks: dict[str, str]
    footnotes: tuple[str, ...]
    notes: tuple[str, ...]


def sheet(board: Board) -> Sheet:
    """Return a board as texts."""
    numbers: dict[str, int] = {}
    shown = [_column(board, column, numbers) for column in board.columns]
    return Sheet(
        caption=visible(_caption(board)),
        header=tuple(tuple(map(visible, column.title)) for column in board.columns),
        measured=tuple(column.measured for column in board.columns),
        body=tuple(zip(*shown, strict=True)),
        sections=tuple(map(visible, board.sections)),
        section_title=visible(board.section_title),
        best=_best(board) if any(field.best for column in shown for field in column) else "",
        legend=tuple(_legend(board)),
        marks={mark: visible(meaning) for mark, meaning in _marks(board).items()},
        footnotes=tuple(map(visible, numbers)),
        notes=tuple(map(visible, board.notes)),
    )


def panels(widths: Sequence[int], texts: int, limit: int, gap: int) -> list[list[int]]:
    """Split columns into panels within a width limit; each panel repeats the leading columns of texts.

    Args:
        widths: width of each column, in characters.
        texts: number of leading columns that every panel repeats.
        limit: width of a panel, in characters; a single column of figures may exceed it.
        gap: characters between columns.

    Returns:
        The positions of each panel's columns.
    """
    leading = list(range(texts))
    split: list[list[int]] = [list(leading)]
    for position in range(texts, len(widths)):
        wider = [*split[-1], position]
        if sum(widths[i] for i in wider) + gap * (len(wider) - 1) > limit and len(split[-1]) > texts:
            split.append([*leading, position])
        else:
            split[-1].append(position)
    return split


def leading_texts(shown: Sheet) -> int:
    """Return the number of columns of texts before the first column of figures."""
    return shown.measured.index(True) if True in shown.measured else len(shown.measured)


def _caption(board: Board) -> str:
    return f"{board.title} ({', '.join(board.facts)})" if board.facts else board.title


def _column(board: Board, column: Column, numbers: dict[str, int]) -> list[Shown]:
    entries = board.frame[column.key].tolist()
    if not column.measured:
        return [Shown(visible(text)) for text in entries]
    best = best_rows(board, column)
    return [_field(cell, column, row in best, numbers) for row, cell in enumerate(entries)]


def _field(cell: Cell, column: Column, best: bool, numbers: dict[str, int]) -> Shown:
    if cell.status == "not-applicable":
        return Shown(NOT_APPLICABLE_MARK)
    remark = _remark(cell)
    footnote = numbers.setdefault(remark, len(numbers) + 1) if remark else 0
    if cell.status == "missing":
        return Shown(MISSING_MARK, footnote)
    if cell.status == "failed":
        return Shown(FAILED_MARK, footnote)
    text = figure_text(cell, column.decimals, interval=column.interval)
    if _has_spread(column) and not math.isnan(cell.spread):
        text += f" ±{_number(cell.spread, column.decimals)}"
    if column.ranked and cell.standing is not None:
        text += f" ({cell.standing.interval})"
    return Shown(text, footnote, best)


def _has_spread(column: Column) -> bool:
    """Return whether a column shows the standard deviation of its figures over seeds."""
    return column.interval or bool(column.best)


def figure_text(cell: Cell, decimals: int, *, interval: bool) -> str:
    """Return a measured figure as boards show it; with ``interval``, its interval too, unless it is NaN."""
    text = _number(cell.value, decimals)
    if interval and not math.isnan(cell.low):
        text += f" [{_number(cell.low, decimals)}, {_number(cell.high, decimals)}]"
    return text


def _number(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    # A negative figure that rounds to zero has no sign.
    return text.removeprefix("-") if not text.strip("-0.") else text.replace("-", "−")


def _remark(cell: Cell) -> str:
    reason = " ".join(cell.reason.split())
    if len(reason) > _LONGEST_REASON:
        reason = reason[: _LONGEST_REASON - 1] + "…"
    if cell.status == "ok" and cell.n_failed and not reason:
        return f"without {cell.n_failed} clips that could not be measured"
    if cell.status == "failed" and not reason:
        return "no reason is recorded"
    return reason


def _best(board: Board) -> str:
    ranked = any(any(standing_of(board.frame[column.key].tolist())) for column in board.columns)
    return f"{board.marked}, and all {'that tie with it' if ranked else 'within its 95 % interval'}"


def _legend(board: Board) -> Iterator[str]:
    cells = {column.key: board.frame[column.key].tolist() for column in board.columns if column.measured}
    ranked = [standing for column in board.columns if column.ranked for standing in standing_of(cells[column.key])]
    if any(ranked):
        yield "In parentheses: the ranks that tests of all pairs of entries do not exclude (adjusted p ≤ .05)."
    with_spread = [column for column in board.columns if column.measured and _has_spread(column)]
    if any(not math.isnan(cell.spread) for column in with_spread for cell in cells[column.key]):
        yield "±: standard deviation over seeds; the figures are means over seeds, the intervals over speakers."


def _marks(board: Board) -> dict[str, str]:
    cells = [cell for column in board.columns if column.measured for cell in board.frame[column.key]]
    # A missing cell with a reason has a footnote instead of the general mark.
    statuses = {cell.status for cell in cells if cell.status != "missing" or not cell.reason}
    reasons = dict.fromkeys(" ".join(c.reason.split()) for c in cells if c.status == "not-applicable" and c.reason)
    marks = {}
    if "missing" in statuses:
        marks[MISSING_MARK] = "not among the results"
    if "not-applicable" in statuses:
        marks[NOT_APPLICABLE_MARK] = "not applicable" + (f" ({'; '.join(reasons)})" if reasons else "")
    if "failed" in statuses:
        marks[FAILED_MARK] = "failed, for the reason in the footnote"
    return marks
