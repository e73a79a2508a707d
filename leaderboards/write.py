"""The readable files of a RESULTS folder: boards, figures, and a page with both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from advser.leaderboards.boards.catalogue import BOARDS
from advser.leaderboards.boards.exhibits import tables
from advser.leaderboards.figures.budget_curves import budget_figures
from advser.leaderboards.figures.drawing import SCREEN, Drawing, Paper, save
from advser.leaderboards.figures.exhibits import declared_figures
from advser.leaderboards.figures.spectrograms import declared_pictures, read_samples, write_thumbnails
from advser.leaderboards.formats.render import render
from advser.leaderboards.page.site import page, write_assets
from advser.results.folder import Results
from advser.results.schema import SAMPLES_FOLDER
from advser.store.files import replacing

SUFFIXES: Final = {"terminal": "txt", "markdown": "md", "latex": "tex", "csv": "csv"}
"""Format → suffix of the board's file."""


def write_all(results: Results, directory: Path) -> list[Path]:
    """Write all readable files into ``directory``; return their paths.

    These are ``boards/NAME.{txt,md,tex,csv}``, ``figures/``, ``index.html`` with its ``assets/``, and pictures of the
    sounds in ``samples/``. Each is written to a temporary file that is then renamed.
    """
    boards = [*(build(results) for build in BOARDS.values()), *tables(results).values()]
    written = []
    for board in boards:
        for name, suffix in SUFFIXES.items():
            written.append(_write(directory / "boards" / f"{board.name}.{suffix}", render(board, name) + "\n"))
    entries = read_samples(directory)
    figures = write_figures(drawings(results, directory, entries, SCREEN), directory / "figures")
    vectors = [path for path in figures if path.suffix == ".svg"]
    html = page(results, boards, vectors, entries)
    thumbnails = write_thumbnails(entries, directory / SAMPLES_FOLDER)
    return [*written, *figures, *thumbnails, *write_assets(directory), _write(directory / "index.html", html)]


def drawings(results: Results, directory: Path, entries: Sequence[dict[str, Any]], paper: Paper) -> dict[str, Drawing]:
    """Return the figures of a results folder: name → drawing, to be called within ``paper.style()``.

    Args:
        results: the results.
        directory: the folder; its sounds are in ``samples/``.
        entries: the samples, as `read_samples` returns them.
        paper: the paper or screen to draw for.
    """
    return {
        **declared_figures(results, paper),
        **declared_pictures(results, entries, directory / SAMPLES_FOLDER, paper),
        **budget_figures(results, paper),
    }


def write_figures(drawn: Mapping[str, Drawing], directory: Path) -> list[Path]:
    """Write all figures that are not empty, as SVG and PNG; return their paths."""
    with SCREEN.style():
        return [
            path for name, drawing in drawn.items() if (figure := drawing()) for path in save(figure, directory, name)
        ]


def _write(path: Path, text: str) -> Path:
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path
