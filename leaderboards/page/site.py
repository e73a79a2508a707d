"""Boards as HTML: a single table, or a page of all boards that opens from disk and needs no network.

The page has the first rows of each board. The other rows, the cells and the data of the charts lie beside it, in
scripts that the page loads when they are needed: a page from disk may load scripts, but no other data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, Final

import pandas as pd
import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined

from advser.leaderboards.boards.board import Board, Cell
from advser.leaderboards.boards.sheet import Sheet, sheet
from advser.leaderboards.page.cells import cells
from advser.leaderboards.page.charts import chart_rows, charts
from advser.leaderboards.page.filters import choices, row_keys
from advser.results.folder import Results
from advser.store.files import replacing

ASSETS: Final = "assets"
"""Folder of the page's own files, in this package and beside the page."""

DATA: Final = "page"
"""Folder of the page's data, beside the page."""

ROWS: Final = 100
"""Rows of a board that the page itself has."""

CHUNK: Final = 200
"""Cells in one file."""


def board_html(board: Board) -> str:
    """Return a board as an HTML ``section``: heading, table with caption and scoped headings, footnotes."""
    return _environment().get_template("board.html.j2").render(**_variables(board), most=None).strip()


def page(
    results: Results,
    boards: Sequence[Board],
    figures: Sequence[str],
    samples: Sequence[Mapping[str, Any]] = (),
    assets: str = ASSETS,
) -> dict[str, str]:
    """Return the page's files: path within the results folder → text.

    ``index.html`` reads the files in ``assets`` and, on demand, the others: more rows of a board, the charts, and the
    cells in chunks of `CHUNK`, sorted by identifier.

    Args:
        results: the results.
        boards: the boards to show.
        figures: SVG files to show, as paths within the results folder.
        samples: the entries of ``samples/index.json``, whose files the page plays.
        assets: where the page's own files are, relative to the page.
    """
    suite = results.run.get("suite", {})
    described: dict[str, Any] = {key: value for key, value in results.run.items() if key not in ("notes", "failures")}
    title = str(suite.get("title") or suite.get("name") or "Results") if isinstance(suite, dict) else str(suite)
    by_id = cells(results, samples)
    shown = [_variables(board, page_notes=results.notes, ids=by_id) for board in boards]
    names = sorted(by_id)
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    files: dict[str, Any] = {_file("charts"): {"rows": chart_rows(by_id), **charts(boards)}}
    for number, chunk in enumerate(chunks):
        files[_file(f"cells-{number}")] = {name: by_id[name] for name in chunk}
    environment = _environment()
    rest = environment.get_template("rows.html.j2")
    for variables in shown:
        if len(variables["sheet"].body) > ROWS:
            files[_file(f"board-{variables['board'].name}")] = rest.render(**variables, most=None)
    html = environment.get_template("index.html.j2").render(
        title=title,
        assets=assets,
        notes=results.notes,
        failures=[_one_line(failure) for failure in results.run["failures"]],
        boards=shown,
        figures=[(_heading(Path(path)), path) for path in figures],
        filters=choices(by_id.values()),
        most=ROWS,
        data=_script({"metrics": _metrics(results), "chunks": [chunk[0] for chunk in chunks]}),
        provenance=yaml.safe_dump(described, sort_keys=False, allow_unicode=True),
    )  # fmt: skip
    return {"index.html": html, **{path: _received(path, data) for path, data in files.items()}}


def _file(name: str) -> str:
    return f"{DATA}/{name}.js"


def _received(path: str, data: Any) -> str:
    """Return a script that gives data to the page."""
    return f"received({json.dumps(Path(path).stem)}, {_script(data)});\n"


def write_assets(directory: Path, assets: str = ASSETS) -> list[Path]:
    """Write the files that the page reads into ``assets``, relative to the page's folder; return their paths."""
    written = []
    for asset in resources.files("advser.leaderboards.page").joinpath(ASSETS).iterdir():
        path = directory / assets / asset.name
        with replacing(path) as beside:
            beside.write_bytes(asset.read_bytes())
        written.append(path)
    return sorted(written)


def _environment() -> Environment:
    folder = resources.files("advser.leaderboards.page")
    return Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _variables(board: Board, page_notes: Sequence[str] = (), ids: Container[str] = ()) -> dict[str, Any]:
    """Return the variables of a board's template.

    Args:
        board: the board.
        page_notes: notes that the page shows above all boards, left out of this board's.
        ids: identifiers of the page's cells; the figures of these cells link to them.
    """
    shown = sheet(board)
    notes = [note for note in shown.notes if note not in page_notes]
    return {"board": board, "sheet": shown, "blocks": _blocks(board, shown, ids), "board_notes": notes}


def _blocks(board: Board, shown: Sheet, ids: Container[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return (section, lines) for each run of rows that share a section."""
    blocks: list[tuple[str, list[dict[str, Any]]]] = []
    for row, section in enumerate(shown.sections):
        if not blocks or blocks[-1][0] != section:
            blocks.append((section, []))
        blocks[-1][1].append(_line(board, shown, row, ids))
    return blocks


def _line(board: Board, shown: Sheet, row: int, ids: Container[str]) -> dict[str, Any]:
    """Return a row's keys, and of each field its text, the value that it sorts by and the cell that it links to."""
    entries = [board.frame[column.key].iloc[row] for column in board.columns]
    keys = board.index.iloc[row]
    fields = [
        {
            "shown": field,
            "sort": _sort(entry, keys.get(column.key)),
            "origin": entry.origin if isinstance(entry, Cell) and entry.origin in ids else "",
        }
        for field, entry, column in zip(shown.body[row], entries, board.columns, strict=True)
    ]
    return {"keys": row_keys(board, row), "fields": fields}


def _sort(entry: object, key: object) -> str:
    """Return the sort value of a field: the full figure, the number of a key (ε), else the text; empty sorts last."""
    number = entry.value if isinstance(entry, Cell) else key
    if isinstance(number, float):
        return "" if math.isnan(number) else repr(float(number))
    return str(entry)


def _metrics(results: Results) -> dict[str, dict[str, Any]]:
    described = {}
    for record in results.table.drop_duplicates("metric").to_dict("records"):
        better = record["higher_is_better"]
        direction = {"higher": None if pd.isna(better) else bool(better)}
        described[record["metric"]] = asdict(results.metric(record["metric"])) | direction
    return described


def _script(data: Any) -> str:
    """Return data as JSON without ``<``, which an HTML parser could read as the end of the element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _one_line(failure: Any) -> str:
    return str(failure.get("reason", failure) if isinstance(failure, dict) else failure)


def _heading(path: Path) -> str:
    return path.stem.replace("-", " ").replace("_", ", ")
