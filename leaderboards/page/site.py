"""Boards as HTML: a single table, or a page of all boards that opens from disk and needs no network."""

from __future__ import annotations

import base64
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
from advser.leaderboards.page.charts import charts
from advser.leaderboards.page.filters import choices, row_keys
from advser.results.folder import Results
from advser.store.files import replacing

ASSETS: Final = "assets"
"""Folder of the page's own files, in this package and beside the page."""


def board_html(board: Board) -> str:
    """Return a board as an HTML ``section``: heading, table with caption and scoped headings, footnotes."""
    return _environment().get_template("board.html.j2").render(**_variables(board)).strip()


def page(
    results: Results,
    boards: Sequence[Board],
    figures: Sequence[Path],
    samples: Sequence[Mapping[str, Any]] = (),
    assets: str = ASSETS,
) -> str:
    """Return ``index.html``, which reads the files in ``assets``: boards, charts, figures, cells and the provenance.

    Args:
        results: the results.
        boards: the boards to show.
        figures: SVG files to embed.
        samples: the entries of ``samples/index.json``, whose files the page plays.
        assets: where the page's own files are, relative to the page.
    """
    suite = results.run.get("suite", {})
    described: dict[str, Any] = {key: value for key, value in results.run.items() if key not in ("notes", "failures")}
    title = str(suite.get("title") or suite.get("name") or "Results") if isinstance(suite, dict) else str(suite)
    by_id = cells(results, samples)
    shown = [_variables(board, page_notes=results.notes, ids=by_id) for board in boards]
    return _environment().get_template("index.html.j2").render(
        title=title,
        assets=assets,
        notes=results.notes,
        failures=[_one_line(failure) for failure in results.run["failures"]],
        boards=shown,
        figures=[(_heading(path), _embedded(path)) for path in figures],
        filters=choices(by_id.values()),
        data=_script({"cells": by_id, "metrics": _metrics(results), **charts(boards)}),
        provenance=yaml.safe_dump(described, sort_keys=False, allow_unicode=True),
    )  # fmt: skip


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


def _embedded(path: Path) -> str:
    # As an image, because identifiers of inlined figures would clash.
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
