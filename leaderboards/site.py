"""Boards as HTML: one as a table, all of them as a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined

from advser.leaderboards.board import Board
from advser.leaderboards.sheet import Sheet, Shown, sheet
from advser.results import Results


def board_html(board: Board) -> str:
    """Return a board as an HTML ``section``: heading, table with caption and scoped headings, footnotes."""
    return _environment().get_template("board.html.j2").render(**_variables(board)).strip()


def page(results: Results, boards: Sequence[Board], figures: Sequence[Path]) -> str:
    """Return ``index.html``: notes, boards, figures and the provenance, in one file that needs no other.

    Args:
        results: what was found.
        boards: the boards to show.
        figures: SVG files; they are embedded.
    """
    suite = results.run.get("suite", {})
    described: dict[str, Any] = {key: value for key, value in results.run.items() if key not in ("notes", "failures")}
    title = str(suite.get("title") or suite.get("name") or "Results") if isinstance(suite, dict) else str(suite)
    return _environment().get_template("index.html.j2").render(
        title=title,
        notes=results.notes,
        failures=[_one_line(failure) for failure in results.run["failures"]],
        boards=[_variables(board, said=results.notes) for board in boards],
        figures=[(_heading(path), _embedded(path)) for path in figures],
        provenance=yaml.safe_dump(described, sort_keys=False, allow_unicode=True),
    )  # fmt: skip


def _environment() -> Environment:
    folder = resources.files("advser.leaderboards")
    return Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _variables(board: Board, said: Sequence[str] = ()) -> dict[str, Any]:
    shown = sheet(board)
    notes = [note for note in shown.notes if note not in said]
    return {"board": board, "sheet": shown, "blocks": _blocks(shown), "board_notes": notes}


def _blocks(shown: Sheet) -> list[tuple[str, list[tuple[Shown, ...]]]]:
    """Return (section, rows) for each run of rows that share a section."""
    blocks: list[tuple[str, list[tuple[Shown, ...]]]] = []
    for section, row in zip(shown.sections, shown.body, strict=True):
        if not blocks or blocks[-1][0] != section:
            blocks.append((section, []))
        blocks[-1][1].append(row)
    return blocks


def _one_line(failure: Any) -> str:
    return str(failure.get("reason", failure) if isinstance(failure, dict) else failure)


def _heading(path: Path) -> str:
    return path.stem.replace("-", " ").replace("_", ", ")


def _embedded(path: Path) -> str:
    # As an image, so that the identifiers inside of one figure do not clash with those of another.
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
