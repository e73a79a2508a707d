"""Everything that a RESULTS folder shows to people: boards, figures, and a page with both."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from advser.leaderboards.boards import BOARDS
from advser.leaderboards.exhibit_figures import write_exhibit_figures
from advser.leaderboards.exhibits import tables
from advser.leaderboards.figures import write_figures
from advser.leaderboards.pictures import write_pictures
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
    boards = [*(build(results) for build in BOARDS.values()), *tables(results).values()]
    written = []
    for board in boards:
        for name, suffix in SUFFIXES.items():
            written.append(_write(directory / "boards" / f"{board.name}.{suffix}", render(board, name) + "\n"))
    places = directory / "figures"
    figures = [
        *write_exhibit_figures(results, places),
        *write_pictures(results, directory),
        *write_figures(results, places),
    ]
    vectors = [path for path in figures if path.suffix == ".svg"]
    return [*written, *figures, _write(directory / "index.html", page(results, boards, vectors))]


def _write(path: Path, text: str) -> Path:
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path
