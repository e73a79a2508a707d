"""Growth of times with clips, steps and cells."""

from __future__ import annotations

import statistics
from pathlib import Path

from contest import as_workers, contest
from crafters import COPIES, STEPS, by_clips, by_steps, stored
from measuring import Growth, Table
from planner import planning_seconds

CELLS = (1_000, 2_500, 5_000, 10_000)


def test_crafting(tmp_path: Path, table: Table) -> None:
    """Measure crafting for growing numbers of clips, and of steps."""
    clips = stored(tmp_path / "store")
    by_count = contest([as_workers(by_clips, tmp_path / "store")], 3)
    seconds = [by_count[str(copies)] for copies in COPIES]
    table.growths.append(Growth("crafting, 2 steps on cnn4", "clips", [clips[copies] for copies in COPIES], seconds))
    by_step = contest([as_workers(by_steps, tmp_path / "store")], 3)
    seconds = [by_step[str(steps)] for steps in STEPS]
    table.growths.append(Growth(f"crafting on cnn4, {clips[1]} clips", "steps", STEPS, seconds))


def test_planning(table: Table) -> None:
    """Measure planning for growing numbers of cells."""
    seconds = [statistics.median(planning_seconds(cells) for _ in range(3)) for cells in CELLS]
    table.growths.append(Growth("planning", "cells", CELLS, seconds))
