"""Everything that a RESULTS folder shows to people: boards, figures, and a page with both."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from advser.leaderboards.boards import BOARDS
from advser.leaderboards.figures import write_figures
from advser.leaderboards.render import render
from advser.leaderboards.site import page
from advser.results import Results
from advser.store import replacing

SUFFIXES: Final = {"terminal": "txt", "markdown": "md", "latex": "tex", "csv": "csv"}
"""Format → suffix of the board's file."""


def write_all(results: Results, directory: Path) -> list[Path]:
    """Write ``boards/NAME.{txt,md,tex,csv}``, ``figures/`` and ``index.html`` into ``directory``; return the paths.

    Each file is written beside and renamed.
    """
    boards = [build(results) for build in BOARDS.values()]
    written = []
    for board in boards:
        for name, suffix in SUFFIXES.items():
            written.append(_write(directory / "boards" / f"{board.name}.{suffix}", render(board, name) + "\n"))
    figures = write_figures(results, directory / "figures")
    vectors = [path for path in figures if path.suffix == ".svg"]
    return [*written, *figures, _write(directory / "index.html", page(results, boards, vectors))]


def _write(path: Path, text: str) -> Path:
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path
