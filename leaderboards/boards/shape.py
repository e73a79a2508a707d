"""A board cut to a paper's needs: which columns, in what order and precision, and one key's values side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pandas as pd

from advser.errors import InputError, did_you_mean
from advser.leaderboards.boards.board import MISSING, Board, Column


@dataclass(frozen=True)
class Shape:
    """How a board is cut.

    Attributes:
        columns: the columns to keep, in this order, texts first; none: all.
        pivot: the column of texts, or key of a section, whose values stand side by side; empty: none.
        decimals: column → digits after the point; ``""`` stands for all others.
        bold: whether the best figures are marked.
        intervals: whether confidence intervals are shown.
        notes: whether the board's notes are kept.
        caption: what takes the place of the title; facts go below, with the notes. Empty: as usual.
        label: what LaTeX refers to it by; empty: as usual.
        span: whether LaTeX sets it across both columns of a page (``table*``).

    Raises:
        InputError: if the label has characters that LaTeX's labels cannot have.
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
        """Refuse a label that would break the document."""
        if wrong := re.search(r"[^A-Za-z0-9:._-]", self.label):
            raise InputError(f"label {self.label}: got '{wrong[0]}', expected letters, digits and : . _ -")


def shaped(board: Board, shape: Shape) -> Board:
    """Return a board cut to a shape.

    Raises:
        InputError: if the shape names columns that the board does not have, or cannot be pivoted so.
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
"""What stands between the keys of a section."""


def unfolded(board: Board, key: str) -> Board:
    """Return a board in which a key that rows stand in sections by is a column; any other board as it is."""
    keys = board.section_title.split(_BETWEEN) if board.sectioned else []
    if key not in keys or key in board.frame:
        return board
    parts = [section.split(_BETWEEN) for section in board.sections]
    values = [found.pop(keys.index(key)).removeprefix(f"{key} ") for found in parts]
    return replace(
        board,
        columns=(Column(key, (key,), measured=False), *board.columns),
        frame=pd.concat([pd.Series(values, name=key, dtype=object), board.frame], axis=1),
        sections=tuple(_BETWEEN.join(found) for found in parts),
        section_title=_BETWEEN.join(name for name in keys if name != key),
    )


def with_columns(board: Board, keys: Sequence[str]) -> Board:
    """Return a board with some of its columns, in the order given; what rows stand in sections by is one, too.

    A key that is the same in all rows is no column: it is among the facts, and stays there.

    Raises:
        InputError: if a column is not the board's, or is named twice, or none is left.
    """
    for key in keys:
        board = unfolded(board, key)
    known = {column.key: column for column in board.columns}
    for key in keys:
        _known(key, [*known, *_keys(board)], "columns")
    constant = [key for key in keys if key not in known]
    keys = [key for key in keys if key not in constant]
    if not keys:
        raise InputError(f"columns: got {', '.join(constant)}, the same in all rows, expected {', '.join(known)}")
    for key in keys:
        if list(keys).count(key) > 1:
            raise InputError(f"columns: got '{key}' twice, expected each once")
    # Texts lead in every format; among themselves they and the figures keep the order asked for.
    chosen = sorted((known[key] for key in keys), key=lambda column: column.measured)
    gone = {note for key, notes in board.notes_of.items() if key not in keys for note in notes}
    return replace(
        board,
        columns=tuple(chosen),
        frame=board.frame[[column.key for column in chosen]],
        notes=tuple(note for note in board.notes if note not in gone),
    )


def _keys(board: Board) -> list[str]:
    """Return the keys that a board may be cut by beside its columns: those of its sections, and those of all rows."""
    sections = board.section_title.split(_BETWEEN) if board.sectioned else []
    return [*sections, *(key for key in map(str, board.index) if _constant(board, key))]


def _constant(board: Board, key: str) -> bool:
    """Tell whether a key is the same in all rows that it applies to, and so no column."""
    return key in board.index and board.index[key].replace("", None).nunique() <= 1


def with_decimals(board: Board, decimals: Mapping[str, int]) -> Board:
    """Return a board whose figures have other numbers of digits after the point; ``""`` stands for all columns.

    Raises:
        InputError: if a column is none of the board's figures.
    """
    figures = {column.key: column for column in board.columns if column.measured}
    for key in decimals:
        if key:
            _known(key, list(figures), "decimals")
    return _each(board, lambda column: {"decimals": decimals.get(column.key, decimals.get("", column.decimals))})


def pivoted(board: Board, key: str) -> Board:
    """Return a board in which the values of a column of texts, or of a section's key, stand side by side.

    A key that is the same in all rows leaves the board as it is. Rows are one a combination of the other texts
    that name rows; a figure that a combination lacks is shown as missing.

    Raises:
        InputError: if the column is none of the board's texts, or two rows would fall on one place.
    """
    board = unfolded(board, key)
    if all(column.key != key for column in board.columns) and _constant(board, key):
        return board
    texts = [column for column in board.columns if not column.measured]
    _known(key, [*(column.key for column in texts if column.names), *_keys(board)], "pivot")
    stub = [column for column in texts if column.names and column.key != key]
    spread = [column for column in board.columns if column.measured or not column.names]
    names = [str(name) for name in dict.fromkeys(board.frame[key])]
    places = _places(board, [column.key for column in stub], key)
    firsts = [next(iter(rows.values())) for rows in places.values()]
    frame: dict[str, list[object]] = {column.key: [board.frame[column.key].iloc[r] for r in firsts] for column in stub}
    wide = []
    for column in spread:
        cells, nothing = board.frame[column.key].tolist(), MISSING if column.measured else ""
        for name in names:
            found = [cells[rows[name]] if name in rows else nothing for rows in places.values()]
            if column.measured or any(found):
                wide.append(replace(column, key=f"{column.key}.{name}", title=(" ".join(column.title), name or "–")))
                frame[wide[-1].key] = found
    columns = (*stub, *wide)
    return replace(
        board,
        columns=columns,
        frame=pd.DataFrame(frame, columns=[column.key for column in columns], dtype=object),
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
            told = ", ".join(str(text) for text in place if text)
            raise InputError(
                f"pivot {key}: got two rows for '{name}' ({told}), expected one (keep a column that tells them "
                "apart, or choose rows with --where)"
            )
        rows[name] = row
    return places


def _common_index(board: Board, places: Collection[Mapping[str, int]]) -> pd.DataFrame:
    """Return of each new row the keys that its rows have in common, for CSV."""
    groups = [list(rows.values()) for rows in places]
    alike = {name: (board.index[name].iloc[rows].nunique(dropna=False) == 1 for rows in groups) for name in board.index}
    kept = [name for name, found in alike.items() if all(found)]
    return pd.DataFrame(board.index[kept].iloc[[rows[0] for rows in groups]]).reset_index(drop=True)


def _each(board: Board, changes: Callable[[Column], dict[str, Any]]) -> Board:
    return replace(
        board,
        columns=tuple(replace(column, **changes(column)) if column.measured else column for column in board.columns),
    )


def _known(key: str, known: Sequence[str], what: str) -> None:
    if key not in known:
        raise InputError(f"{what}: got '{key}', expected {', '.join(known)}{did_you_mean(key, known)}")
