"""The readable files of a RESULTS folder: boards, figures, and a page with both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from advser.leaderboards.boards.catalogue import BOARDS
from advser.leaderboards.boards.exhibits import tables
from advser.leaderboards.formats.render import render
from advser.leaderboards.leftovers import remove_leftovers
from advser.leaderboards.page.site import ASSETS, DATA, page, write_assets
from advser.plugins.fingerprint import code_fingerprint
from advser.results.folder import Results
from advser.results.schema import SAMPLES_FOLDER
from advser.store.digests import contents_digest, digest
from advser.store.files import replacing
from advser.store.names import unlinked

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from advser.leaderboards.figures.drawing import Drawing, Paper

# The figures are imported when they are drawn: Matplotlib takes a second, and `fingerprint` needs none of it.

SUFFIXES: Final = {"terminal": "txt", "markdown": "md", "latex": "tex", "csv": "csv"}
"""Format → suffix of the board's file."""


OnStep = Callable[[str, int, int], None]
"""Called before each board, figure and the page, with its name, its number from 0, and the number of all."""


def write_all(
    results: Results,
    directory: Path,
    assets: str = ASSETS,
    bitmaps: Collection[str] | None = None,
    on_step: OnStep = lambda name, number, total: None,
    processes: Executor | None = None,
) -> list[Path]:
    """Write all readable files into ``directory``; return their paths.

    These are ``boards/NAME.{txt,md,tex,csv}``, ``figures/``, ``index.html`` with its ``assets/`` and the data in
    ``page/``, and pictures of the sounds in ``samples/``. Each is written to a temporary file that is then renamed.
    Files that an earlier call wrote and this one does not are removed (`advser.leaderboards.leftovers`).

    Args:
        results: the results to draw.
        directory: the folder to write to, with the run's ``samples/``.
        assets: the page's own files, relative to ``directory``: ``../assets`` for pages that share them.
        bitmaps: names of the figures to write as PNG too; None: all. The page shows the SVG.
        on_step: shows the progress.
        processes: draw the figures if there are many; None: this process does.

    Raises:
        InputError: if a folder to write to is a link, which may lead anywhere, or the samples are unusable.
    """
    from advser.leaderboards.figures.drawing import SCREEN
    from advser.leaderboards.figures.files import write_figures
    from advser.leaderboards.figures.spectrograms import read_samples, write_thumbnails

    for name in ("boards", "figures", SAMPLES_FOLDER, ASSETS, DATA):
        unlinked(directory, name, "results")
    entries = read_samples(directory)
    boards = [*(build(results) for build in BOARDS.values()), *tables(results).values()]
    drawn = drawings(results, directory, entries, SCREEN)
    total = len(boards) + len(drawn) + 1
    written = []
    for number, board in enumerate(boards):
        on_step(board.name, number, total)
        for name, suffix in SUFFIXES.items():
            written.append(_write(directory / "boards" / f"{board.name}.{suffix}", render(board, name) + "\n"))
    figures = write_figures(
        drawn,
        directory / "figures",
        bitmaps,
        lambda name, number: on_step(name, len(boards) + number, total),
        processes,
    )
    on_step("index.html", total - 1, total)
    vectors = [path.relative_to(directory).as_posix() for path in figures if path.suffix == ".svg"]
    files = page(results, boards, vectors, entries, assets)
    thumbnails = write_thumbnails(entries, directory / SAMPLES_FOLDER)
    written += [*figures, *thumbnails, *write_assets(directory, assets)]
    written += [_write(directory / name, text) for name, text in files.items()]
    return [*written, remove_leftovers(results, directory, written)]


def drawings(results: Results, directory: Path, entries: Sequence[dict[str, Any]], paper: Paper) -> dict[str, Drawing]:
    """Return the figures of a results folder: name → drawing, to be called within ``paper.style()``.

    Args:
        results: the results.
        directory: the folder; its sounds are in ``samples/``.
        entries: the samples, as `read_samples` returns them.
        paper: the paper or screen to draw for.
    """
    from advser.leaderboards.figures.budget_curves import budget_figures
    from advser.leaderboards.figures.exhibits import declared_figures
    from advser.leaderboards.figures.spectrograms import declared_pictures

    return {
        **declared_figures(results, paper),
        **declared_pictures(results, entries, directory / SAMPLES_FOLDER, paper),
        **budget_figures(results, paper),
    }


def fingerprint() -> str:
    """Return a digest of the code, templates and assets from which boards, figures and page are drawn."""
    folder = Path(__file__).with_name("page")
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    return digest([code_fingerprint(__name__), contents_digest(files, folder)])


def _write(path: Path, text: str) -> Path:
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path
