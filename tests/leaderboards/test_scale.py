"""Drawing grows with the number of cells, not with its square."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import many_cells

from advser.leaderboards.boards.catalogue import BOARDS
from advser.leaderboards.figures.budget_curves import budget_figures
from advser.leaderboards.figures.drawing import SCREEN
from advser.leaderboards.formats.render import render
from advser.leaderboards.page.site import page
from advser.results.folder import Results

FEW, MANY = 200, 800


def calls(work: Callable[[], object]) -> int:
    """The number of calls of functions in ``work``, which unlike its time is the same on every machine."""
    count = 0

    def called(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def work_of(results: Results) -> dict[str, int]:
    counts = {"figures": calls(lambda: budget_figures(results, SCREEN))}
    for name, build in BOARDS.items():
        counts[name] = calls(lambda build=build: build(results))
        board = build(results)
        counts |= {f"{name} as {kind}": calls(lambda b=board, k=kind: render(b, k)) for kind in ("terminal", "latex")}
    return counts


def test_four_times_the_cells_take_about_four_times_the_work() -> None:
    few, many = (work_of(many_cells.many(cells)) for cells in (FEW, MANY))
    growth = {name: round(many[name] / few[name], 1) for name in few}
    # Transfer has a matrix, whose fields grow with the square of the models.
    assert {name: times for name, times in growth.items() if times > 6 and "transfer as" not in name} == {}, growth


def test_the_page_itself_stays_small() -> None:
    sizes = []
    for cells in (FEW, MANY):
        results = many_cells.many(cells)
        files = page(results, [build(results) for build in BOARDS.values()], [])
        sizes.append(len(files["index.html"].encode()))
        beside = {name: len(text.encode()) for name, text in files.items() if name.startswith("page/cells-")}
        assert max(beside.values()) < 1_000_000, beside
    assert sizes[1] < 2 * sizes[0], sizes
