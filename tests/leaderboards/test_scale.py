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
