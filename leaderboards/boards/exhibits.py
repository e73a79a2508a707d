"""Exhibits: a paper's tables, rebuilt from the results, each figure beside the published one."""

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
    """Return the exhibits that the run's suite declares, as `advser.suite.exhibits` describes them.

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
    """Return the tables that the run's suite declares, by name; one of which no cell is there is left out."""
    found = rows(results)
    made = {name_of(one): table(results, found, one) for one in exhibits(results) if isinstance(one, Table)}
    return {name: board for name, board in made.items() if _has_figures(board)}


def _has_figures(board: Board) -> bool:
    cells = [cell for column in board.columns if column.measured for cell in board.frame[column.key]]
    return any(cell.status != "missing" or cell.reason for cell in cells)


def table(results: Results, found: Sequence[Row], declared: Table) -> Board:
    """Return a declared table as a board: each column, and beside it the published values if there are any.

    A field that stands for several cells is missing; its reason says what tells them apart.
    """
    columns = [Column("row", (declared.stub,), measured=False)]
    frame: dict[str, list[object]] = {"row": [row.title for row in declared.rows]}
    for number, column in enumerate(declared.columns):
        measured = metric_column(results, column.metric)
        key = " ".join(column.title)
        columns.append(Column(key, tuple(column.title), decimals=measured.decimals, interval=True))
        frame[key] = [_figure(found, declared, row, column) for row in declared.rows]
        published = [row.published[number] if row.published else None for row in declared.rows]
        if any(value is not None for value in published):
            columns.append(
                Column(f"{key} {declared.published}", (*column.title, declared.published), measured=False, names=False)
            )
            frame[columns[-1].key] = ["" if value is None else f"{value:.{measured.decimals}f}" for value in published]
    shown = [row for row in found if any(_picks(row, {**declared.where, **line.where}) for line in declared.rows)]
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


def _figure(found: Iterable[Row], declared: Table, row: TableRow, column: TableColumn) -> Cell:
    where = _given({**declared.where, **row.where, **column.where}, row.given)
    members = picked(found, where)
    if len(members) > 1:
        return Cell(reason=f"{len(members)} cells, told apart by {', '.join(told_apart(members))}")
    return members[0].figure(column.metric) if members else MISSING


def _given(where: Selection, given: Mapping[str, Value]) -> Selection:
    return {
        key: given[value[1:]] if isinstance(value, str) and value.startswith("$") else value
        for key, value in where.items()
    }


def picked(found: Iterable[Row], where: Selection) -> list[Row]:
    """Return the cells that a selection picks."""
    return [row for row in found if _picks(row, where)]


def value_of(row: Row, key: str) -> Any:
    """Return what a cell has under a key of a selection; None if it has nothing there.

    Raises:
        InputError: if there is no such key.
    """
    if key.startswith(_PARAMETER):
        return row.params.get(key.removeprefix(_PARAMETER))
    if key not in KEYS:
        raise InputError(f"exhibits: where: got key '{key}', expected params.NAME, {', '.join(KEYS)}")
    return row.keys[key]


def told_apart(found: Sequence[Row], given: Sequence[str] = (), among: Sequence[str] = KEYS) -> list[str]:
    """Return what tells cells apart beyond what ``given`` keys do; nothing is named that those before it say already.

    Args:
        found: the cells.
        given: keys that are known to differ, as `value_of` takes them.
        among: which of `KEYS` to name; for ``params`` the parameters that differ are named.
    """
    names = dict.fromkeys(f"{_PARAMETER}{name}" for row in found for name in row.params)
    # The text of all parameters is the last resort: for one that is null here and not given there.
    candidates = [*(key for key in among if key != "params"), *(names if "params" in among else ()), *among]
    chosen: list[str] = []
    for key in candidates:
        if _distinct(found, [*given, *chosen, key]) > _distinct(found, [*given, *chosen]):
            chosen.append(key)
    return chosen


def _distinct(found: Iterable[Row], keys: Sequence[str]) -> int:
    return len({json.dumps([value_of(row, key) for key in keys], sort_keys=True) for row in found})


def _picks(row: Row, where: Selection) -> bool:
    return all(same(value_of(row, key), wanted) for key, wanted in where.items())


def same(found: Any, wanted: Value) -> bool:
    """Tell whether a cell has the value that a selection asks for; numbers are compared to nine digits."""
    numbers = [value for value in (found, wanted) if isinstance(value, int | float) and not isinstance(value, bool)]
    return math.isclose(*numbers) if len(numbers) == 2 else bool(found == wanted)
