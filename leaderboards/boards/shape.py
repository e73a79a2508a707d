"""A board shaped for a paper: its columns, their order and precision, and one key's values side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pandas as pd

from advser.errors import InputError, did_you_mean
from advser.leaderboards.boards.board import MISSING, Board, Column, Entries, frame_of


@dataclass(frozen=True)
class Shape:
    """The shape that a board is cut to.

    Attributes:
        columns: the columns to keep, in this order, texts first; none: all.
        pivot: the column of texts, or key of a section, whose values become columns; empty: none.
        decimals: column → digits after the point; ``""``: all other columns.
        bold: whether the best figures are marked.
        intervals: whether confidence intervals are shown.
        notes: whether the board's notes are kept.
        caption: text in place of the title; facts move to the notes. Empty: the title.
        label: label for LaTeX references; empty: the board's.
        span: whether LaTeX sets it across both columns of a page (``table*``).

    Raises:
        InputError: if the label has characters that are invalid in LaTeX labels.
    """

    columns: tuple[str, ...] = ()
    pivot: str = ""
    decimals: Mapping[str, int] = field(default_factory=dict)
    bold: bool = True
    intervals: bool = True
    notes: bool = True
    caption: str = ""
    label: str = ""
    span: bool = False

    def __post_init__(self) -> None:
        """Raise InputError if the label would break the document."""
        if wrong := re.search(r"[^A-Za-z0-9:._-]", self.label):
            raise InputError(f"label {self.label}: got '{wrong[0]}', expected letters, digits and : . _ -")


def shaped(board: Board, shape: Shape) -> Board:
    """Return a board cut to a shape.

    Raises:
        InputError: if the shape names columns that the board lacks, or the board cannot be pivoted by the key.
    """
    board = with_columns(board, shape.columns) if shape.columns else board
    board = with_decimals(board, shape.decimals) if shape.decimals else board
    board = board if shape.bold else _each(board, lambda _: {"best": ""})
    board = board if shape.intervals else _each(board, lambda _: {"interval": False, "ranked": False})
    board = pivoted(board, shape.pivot) if shape.pivot else board
    notes = board.notes
    if shape.caption:
        notes = (f"{', '.join(board.facts)}.", *notes) if board.facts else notes
        board = replace(board, title=shape.caption, facts=())
    return replace(board, notes=notes if shape.notes else (), label=shape.label or board.label, span=shape.span)


_BETWEEN: Final = " · "
"""Separator between the keys of a section."""


def unfolded(board: Board, key: str) -> Board:
    """Return a board with a key of its sections turned into a column; any other board unchanged."""
    keys = board.section_title.split(_BETWEEN) if board.sectioned else []
    if key not in keys or key in board.frame:
        return board
    parts = [section.split(_BETWEEN) for section in board.sections]
    values = [of_row.pop(keys.index(key)).removeprefix(f"{key} ") for of_row in parts]
    return replace(
        board,
        columns=(Column(key, (key,), measured=False), *board.columns),
        frame=pd.concat([pd.Series(values, name=key, dtype=object), board.frame], axis=1),
        sections=tuple(_BETWEEN.join(of_row) for of_row in parts),
        section_title=_BETWEEN.join(name for name in keys if name != key),
    )


def with_columns(board: Board, keys: Sequence[str]) -> Board:
    """Return a board with some of its columns, in the order given; a key of its sections counts as a column.

    A key that is the same in all rows is no column: it is among the facts, and stays there.

    Raises:
        InputError: if the board lacks a column, or a column is named twice, or no column is left.
    """
    for key in keys:
        board = unfolded(board, key)
    by_key = {column.key: column for column in board.columns}
    for key in keys:
        _check(key, [*by_key, *_keys(board)], "columns")
    constant = [key for key in keys if key not in by_key]
    keys = [key for key in keys if key not in constant]
    if not keys:
        raise InputError(f"columns: got {', '.join(constant)}, the same in all rows, expected {', '.join(by_key)}")
    for key in keys:
        if list(keys).count(key) > 1:
            raise InputError(f"columns: got '{key}' twice, expected each once")
    # Every format shows texts first; within texts and within figures the given order is kept.
    chosen = sorted((by_key[key] for key in keys), key=lambda column: column.measured)
    dropped = {note for key, notes in board.notes_of.items() if key not in keys for note in notes}
    return replace(
        board,
        columns=tuple(chosen),
        frame=board.frame[[column.key for column in chosen]],
        notes=tuple(note for note in board.notes if note not in dropped),
    )


def _keys(board: Board) -> list[str]:
    """Return the keys that may be named besides columns: those of the sections, and those that all rows share."""
    sections = board.section_title.split(_BETWEEN) if board.sectioned else []
    return [*sections, *(key for key in map(str, board.index) if _constant(board, key))]


def _constant(board: Board, key: str) -> bool:
    """Return whether a key is the same in all rows that it applies to, and so no column."""
    return key in board.index and board.index[key].replace("", None).nunique() <= 1


def with_decimals(board: Board, decimals: Mapping[str, int]) -> Board:
    """Return a board with other numbers of digits after the point; ``""``: all columns of figures not named.

    Raises:
        InputError: if a named column is not one of figures.
    """
    figures = {column.key: column for column in board.columns if column.measured}
    for key in decimals:
        if key:
            _check(key, list(figures), "decimals")
    return _each(board, lambda column: {"decimals": decimals.get(column.key, decimals.get("", column.decimals))})


def pivoted(board: Board, key: str) -> Board:
    """Return a board with the values of a column of texts, or of a section's key, side by side.

    The board has a row per combination of the other texts that identify rows; a figure that a combination lacks is
    shown as missing. A key that is the same in all rows leaves the board unchanged.

    Raises:
        InputError: if the column is not one of texts, or two rows share a place.
    """
    board = unfolded(board, key)
    if all(column.key != key for column in board.columns) and _constant(board, key):
        return board
    texts = [column for column in board.columns if not column.measured]
    _check(key, [*(column.key for column in texts if column.identifies), *_keys(board)], "pivot")
    stub = [column for column in texts if column.identifies and column.key != key]
    spread = [column for column in board.columns if column.measured or not column.identifies]
    names = [str(name) for name in dict.fromkeys(board.frame[key])]
    places = _places(board, [column.key for column in stub], key)
    firsts = [next(iter(rows.values())) for rows in places.values()]
    entries: Entries = {column: [board.frame[column.key].iloc[row] for row in firsts] for column in stub}
    for column in spread:
        cells, absent = board.frame[column.key].tolist(), MISSING if column.measured else ""
        for name in names:
            values = [cells[rows[name]] if name in rows else absent for rows in places.values()]
            if column.measured or any(values):
                wide = replace(column, key=f"{column.key}.{name}", title=(" ".join(column.title), name or "–"))
                entries[wide] = values
    return replace(
        board,
        columns=tuple(entries),
        frame=frame_of(entries),
        index=_common_index(board, places.values()),
        sections=tuple(board.sections[row] for row in firsts),
    )


def _places(board: Board, stub: Sequence[str], key: str) -> dict[tuple[object, ...], dict[str, int]]:
    """Return, for each combination of section and texts, the row of each value of the pivoted column."""
    places: dict[tuple[object, ...], dict[str, int]] = {}
    for row, section in enumerate(board.sections):
        place = (section, *(board.frame[name].iloc[row] for name in stub))
        rows = places.setdefault(place, {})
        name = str(board.frame[key].iloc[row])
        if name in rows:
            texts = ", ".join(str(text) for text in place if text)
            raise InputError(
                f"pivot {key}: got two rows for '{name}' ({texts}), expected one (keep a column in which they differ, "
                "or choose rows with --where)"
            )
        rows[name] = row
    return places


def _common_index(board: Board, places: Collection[Mapping[str, int]]) -> pd.DataFrame:
    """Return, for each row of a pivoted board, the keys that its original rows share, for CSV."""
    groups = [list(rows.values()) for rows in places]
    alike = {name: (board.index[name].iloc[rows].nunique(dropna=False) == 1 for rows in groups) for name in board.index}
    shared = [name for name, of_groups in alike.items() if all(of_groups)]
    return pd.DataFrame(board.index[shared].iloc[[rows[0] for rows in groups]]).reset_index(drop=True)


def _each(board: Board, changes: Callable[[Column], dict[str, Any]]) -> Board:
    return replace(
        board,
        columns=tuple(replace(column, **changes(column)) if column.measured else column for column in board.columns),
    )


def _check(key: str, allowed: Sequence[str], option: str) -> None:
    """Raise InputError if a key is not among the allowed ones of an option."""
    if key not in allowed:
        raise InputError(f"{option}: got '{key}', expected {', '.join(allowed)}{did_you_mean(key, allowed)}")
