"""Suites of many cells, and the time to plan them."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

from advser.plan.cells import Corpus, Speech
from advser.plan.planner import make_plan
from advser.suite.schema import Suite


def suite(name: str, budgets: int, further_attacks: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """Return a suite of one small model under noise of a number of budgets."""
    return {
        "name": name, "corpus": "demo", "protocol": "3pair", "folds": ["fold1"], "transcriber": "none", "audit": False,
        "training": {"iterations": 2, "batch_size": 8, "learning_rate": 2e-3}, "noise": False,
        "models": [{"name": "tiny", "params": {"frames": 32}}], "defenses": ["none"], "metrics": ["uar"],
        "attacks": [
            {"name": "noise", "params": {"epsilon": [round(1e-4 + 1e-6 * n, 6) for n in range(budgets)]}},
            *further_attacks,
        ],
    }  # fmt: skip


def planning_seconds(cells: int) -> float:
    """Return the seconds that a new process takes to plan a number of cells."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1) as pool:
        return pool.apply(_planning, (cells,))


def _planning(cells: int) -> float:
    planned = Suite.model_validate(suite("planned", cells - 1))
    corpus = Corpus({0: "prepared"}, ("fold1",), "en", {"clip": 16_000})
    start = time.perf_counter()
    plan = make_plan(planned, corpus, Speech(None, "none", "not requested"), {}, "cpu")
    seconds = time.perf_counter() - start
    assert len(plan.cells) == cells
    return seconds
