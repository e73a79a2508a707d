"""Everything that a RESULTS folder shows to people: boards, figures, and a page with both."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from advser.leaderboards.boards import BOARDS
from advser.leaderboards.exhibit_figures import write_exhibit_figures
from advser.leaderboards.exhibits import tables
from advser.leaderboards.figures import write_figures
from advser.leaderboards.pictures import read_samples, write_pictures, write_thumbnails
from advser.leaderboards.render import render
from advser.leaderboards.site import page, write_assets
from advser.results import Results
from advser.store import replacing

SUFFIXES: Final = {"terminal": "txt", "markdown": "md", "latex": "tex", "csv": "csv"}
"""Format → suffix of the board's file."""


def write_all(results: Results, directory: Path) -> list[Path]:
    """Write all that people look at into ``directory``; return the paths.

    ``boards/NAME.{txt,md,tex,csv}``, ``figures/``, ``index.html`` with its ``assets/``, and pictures of the sounds in
    ``samples/``. Each file is written beside and renamed.
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
    shown = page(results, boards, vectors, read_samples(directory))
    heard = write_thumbnails(directory)
    return [*written, *figures, *heard, *write_assets(directory), _write(directory / "index.html", shown)]


def _write(path: Path, text: str) -> Path:
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path
