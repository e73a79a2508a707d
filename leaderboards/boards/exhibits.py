"""Exhibits: a paper's tables, rebuilt from the results, each figure beside its published value."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from advser.errors import InputError
from advser.leaderboards.boards.board import MISSING, Board, Cell, Column
from advser.leaderboards.boards.layout import metric_column, reader_notes
from advser.leaderboards.boards.rows import Row, rows
from advser.results.folder import Results
from advser.results.schema import KEYS
from advser.suite.exhibits import Exhibit, Selection, Table, TableColumn, TableRow, Value, name_of

_EXHIBITS: Final[TypeAdapter[list[Any]]] = TypeAdapter(list[Exhibit])
_PARAMETER: Final = "params."


def exhibits(results: Results) -> list[Any]:
    """Return the exhibits that the run's suite declares (`advser.suite.exhibits`).

    Raises:
        InputError: if they cannot be read.
    """
    suite = results.run.get("suite", {})
    declared = suite.get("exhibits", []) if isinstance(suite, dict) else []
    try:
        return _EXHIBITS.validate_python(declared)
    except ValidationError as error:
        raise InputError(f"results: exhibits: {error.errors()[0]['msg']}") from None


def tables(results: Results) -> dict[str, Board]:
    """Return the tables that the run's suite declares, by name, without those that have no cell in the results."""
    every_row = rows(results)
    declared = [exhibit for exhibit in exhibits(results) if isinstance(exhibit, Table)]
    boards = {name_of(exhibit): table(results, every_row, exhibit) for exhibit in declared}
    return {name: board for name, board in boards.items() if _has_figures(board)}


def _has_figures(board: Board) -> bool:
    cells = [cell for column in board.columns if column.measured for cell in board.frame[column.key]]
    return any(cell.status != "missing" or cell.reason for cell in cells)


def table(results: Results, every_row: Sequence[Row], declared: Table) -> Board:
    """Return a declared table as a board: each column, followed by its published values, if any.

    A field that selects several cells is missing; its reason names the keys that distinguish them.
    """
    columns = [Column("row", (declared.stub,), measured=False)]
    frame: dict[str, list[object]] = {"row": [row.title for row in declared.rows]}
    for number, column in enumerate(declared.columns):
        measured = metric_column(results, column.metric)
        key = " ".join(column.title)
        columns.append(Column(key, tuple(column.title), decimals=measured.decimals, interval=True))
        frame[key] = [_figure(every_row, declared, row, column) for row in declared.rows]
        published = [row.published[number] if row.published else None for row in declared.rows]
        if any(value is not None for value in published):
            title = (*column.title, declared.published)
            columns.append(Column(f"{key} {declared.published}", title, measured=False, identifies=False))
            frame[columns[-1].key] = ["" if value is None else f"{value:.{measured.decimals}f}" for value in published]
    shown = [row for row in every_row if any(_picks(row, {**declared.where, **line.where}) for line in declared.rows)]
    return Board(
        declared.table,
        declared.title,
        tuple(columns),
        pd.DataFrame(frame, columns=[column.key for column in columns], dtype=object),
        pd.DataFrame({"section": [row.section for row in declared.rows]}, dtype=object),
        tuple(row.section for row in declared.rows),
        "section",
        (),
        (*declared.notes, *reader_notes(results, shown)),
    )


def _figure(every_row: Iterable[Row], declared: Table, row: TableRow, column: TableColumn) -> Cell:
    where = _given({**declared.where, **row.where, **column.where}, row.given)
    members = picked(every_row, where)
    if len(members) > 1:
        return Cell(reason=f"{len(members)} cells, which differ in {', '.join(distinguishing_keys(members))}")
    return members[0].figure(column.metric) if members else MISSING


def _given(where: Selection, given: Mapping[str, Value]) -> Selection:
    return {
        key: given[value[1:]] if isinstance(value, str) and value.startswith("$") else value
        for key, value in where.items()
    }


def picked(candidates: Iterable[Row], where: Selection) -> list[Row]:
    """Return the cells that a selection picks."""
    return [row for row in candidates if _picks(row, where)]


def value_of(row: Row, key: str) -> Any:
    """Return a cell's value under a key of a selection; None if it has none.

    Raises:
        InputError: if the key is unknown.
    """
    if key.startswith(_PARAMETER):
        return row.params.get(key.removeprefix(_PARAMETER))
    if key not in KEYS:
        raise InputError(f"exhibits: where: got key '{key}', expected params.NAME, {', '.join(KEYS)}")
    return row.keys[key]


def distinguishing_keys(members: Sequence[Row], given: Sequence[str] = (), among: Sequence[str] = KEYS) -> list[str]:
    """Return the keys that distinguish cells further than ``given`` keys do, each further than those before it.

    Args:
        members: the cells.
        given: keys that are known to differ, as `value_of` takes them.
        among: which of `KEYS` to name; for ``params`` the parameters that differ are named.
    """
    names = dict.fromkeys(f"{_PARAMETER}{name}" for row in members for name in row.params)
    # The text of all parameters is the last resort: for a parameter that is null in some cells and absent in others.
    candidates = [*(key for key in among if key != "params"), *(names if "params" in among else ()), *among]
    chosen: list[str] = []
    for key in candidates:
        if _distinct(members, [*given, *chosen, key]) > _distinct(members, [*given, *chosen]):
            chosen.append(key)
    return chosen


def _distinct(members: Iterable[Row], keys: Sequence[str]) -> int:
    return len({json.dumps([value_of(row, key) for key in keys], sort_keys=True) for row in members})


def _picks(row: Row, where: Selection) -> bool:
    return all(is_same(value_of(row, key), wanted) for key, wanted in where.items())


def is_same(value: Any, wanted: Value) -> bool:
    """Return whether a cell's value equals a selection's; numbers are compared to nine digits."""
    numbers = [each for each in (value, wanted) if isinstance(each, int | float) and not isinstance(each, bool)]
    return math.isclose(*numbers) if len(numbers) == 2 else bool(value == wanted)
