"""Boards as HTML: one as a table, all of them as a page that opens from disk and needs no network."""

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
"""Where the page's own files are: in this package, and beside the page."""


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
    """Return ``index.html``: boards, charts, figures, every cell and the provenance. It reads the files in ``assets``.

    Args:
        results: what was found.
        boards: the boards to show.
        figures: SVG files; they are embedded.
        samples: the entries of ``samples/index.json``, whose files the page plays.
        assets: where the page's own files are, relative to the page.
    """
    suite = results.run.get("suite", {})
    described: dict[str, Any] = {key: value for key, value in results.run.items() if key not in ("notes", "failures")}
    title = str(suite.get("title") or suite.get("name") or "Results") if isinstance(suite, dict) else str(suite)
    told = cells(results, samples)
    shown = [_variables(board, said=results.notes, told=told) for board in boards]
    return _environment().get_template("index.html.j2").render(
        title=title,
        assets=assets,
        notes=results.notes,
        failures=[_one_line(failure) for failure in results.run["failures"]],
        boards=shown,
        figures=[(_heading(path), _embedded(path)) for path in figures],
        filters=choices(told.values()),
        data=_script({"cells": told, "metrics": _metrics(results), **charts(boards)}),
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


def _variables(board: Board, said: Sequence[str] = (), told: Container[str] = ()) -> dict[str, Any]:
    """Return what the template of a board needs; figures of cells that are ``told`` of lead to them."""
    shown = sheet(board)
    notes = [note for note in shown.notes if note not in said]
    return {"board": board, "sheet": shown, "blocks": _blocks(board, shown, told), "board_notes": notes}


def _blocks(board: Board, shown: Sheet, told: Container[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return (section, lines) for each run of rows that share a section."""
    blocks: list[tuple[str, list[dict[str, Any]]]] = []
    for row, section in enumerate(shown.sections):
        if not blocks or blocks[-1][0] != section:
            blocks.append((section, []))
        blocks[-1][1].append(_line(board, shown, row, told))
    return blocks


def _line(board: Board, shown: Sheet, row: int, told: Container[str]) -> dict[str, Any]:
    """Return a row's keys, and of each field what is shown, what it sorts by and the cell that it leads to."""
    entries = [board.frame[column.key].iloc[row] for column in board.columns]
    keys = board.index.iloc[row]
    fields = [
        {
            "shown": field,
            "sort": _sort(entry, keys.get(column.key)),
            "origin": entry.origin if isinstance(entry, Cell) and entry.origin in told else "",
        }
        for field, entry, column in zip(shown.body[row], entries, board.columns, strict=True)
    ]
    return {"keys": row_keys(board, row), "fields": fields}


def _sort(entry: object, key: object) -> str:
    """Return what a field is sorted by: the full figure, the number of a key (ε), else the text; nothing comes last."""
    number = entry.value if isinstance(entry, Cell) else key
    if isinstance(number, float):
        return "" if math.isnan(number) else repr(float(number))
    return str(entry)


def _metrics(results: Results) -> dict[str, dict[str, Any]]:
    told = {}
    for record in results.table.drop_duplicates("metric").to_dict("records"):
        better = record["higher_is_better"]
        direction = {"higher": None if pd.isna(better) else bool(better)}
        told[record["metric"]] = asdict(results.metric(record["metric"])) | direction
    return told


def _script(data: Any) -> str:
    """Return data as JSON that no HTML parser takes for the end of its element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _one_line(failure: Any) -> str:
    return str(failure.get("reason", failure) if isinstance(failure, dict) else failure)


def _heading(path: Path) -> str:
    return path.stem.replace("-", " ").replace("_", ", ")


def _embedded(path: Path) -> str:
    # As an image, so that the identifiers inside of one figure do not clash with those of another.
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
