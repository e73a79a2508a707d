"""How times grow with clips, steps and cells."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import pytest
from contest import as_workers, contest
from crafters import BATCH, CLIPS, STEPS, by_clips, by_steps
from measuring import Growth, Table
from planner import planning_seconds

CELLS = (1_000, 2_500, 5_000, 10_000)


@pytest.mark.parametrize(
    ("make", "what", "with_", "counts"),
    [
        (by_clips, "iterative FGSM of 2 steps on cnn4", "clips", CLIPS),
        (by_steps, f"iterative FGSM on cnn4, {BATCH} clips", "steps", STEPS),
    ],
)
def test_crafting(make: Callable[[], Any], what: str, with_: str, counts: tuple[int, ...], table: Table) -> None:
    """Add how crafting grows."""
    taken = contest([as_workers(make)], 3)
    table.growths.append(Growth(what, with_, counts, [taken[str(count)] for count in counts]))


def test_planning(table: Table) -> None:
    """Add how planning grows."""
    seconds = [statistics.median(planning_seconds(cells) for _ in range(3)) for cells in CELLS]
    table.growths.append(Growth("planning", "cells", CELLS, seconds))
