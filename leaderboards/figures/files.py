"""The files of figures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Final

from advser.leaderboards.figures.drawing import SCREEN, Drawing, save

MANY: Final = 10
"""Figures from which on processes draw them: one takes as long to start as two figures take to draw."""


def write_figures(
    drawn: Mapping[str, Drawing],
    directory: Path,
    bitmaps: Collection[str] | None = None,
    on_figure: Callable[[str, int], None] = lambda name, number: None,
    processes: Executor | None = None,
) -> list[Path]:
    """Write all figures of which there is something to draw, as SVG and, all or those named, PNG; return the paths.

    Args:
        drawn: name → drawing.
        directory: the folder to write to.
        bitmaps: names of the figures to write as PNG too; None: all.
        on_figure: called before each figure, with its name and its number from 0.
        processes: draw `MANY` figures or more; None: this process does.
    """
    with_bitmap = drawn.keys() if bitmaps is None else bitmaps
    writers = [partial(_write, name, drawing, directory, name in with_bitmap) for name, drawing in drawn.items()]
    futures = [processes.submit(writer) for writer in writers] if processes and len(writers) >= MANY else []
    results: list[Callable[[], list[Path]]] = [future.result for future in futures] or [*writers]
    written = []
    try:
        for number, (name, result) in enumerate(zip(drawn, results, strict=True)):
            on_figure(name, number)
            written += result()
    finally:
        for future in futures:
            future.cancel()
    return written


def _write(name: str, drawing: Drawing, directory: Path, bitmap: bool) -> list[Path]:
    with SCREEN.style():
        figure = drawing()
        return save(figure, directory, name, ("svg", "png") if bitmap else ("svg",)) if figure else []
