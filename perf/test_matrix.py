"""What planning, reading and adding to a suite cost beside its jobs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from measuring import Figure, Table

from advser.jobs import Corpus, Speech
from advser.plan import make_plan
from advser.suite import Suite

ADVSER = Path(sys.executable).parent / "advser"
CELLS, PLANNED = 500, 10_000


def suite(name: str, budgets: int, more: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """Return a suite of one small model under noise of so many budgets."""
    return {
        "name": name, "corpus": "demo", "protocol": "3pair", "folds": ["fold1"], "transcriber": "none", "audit": False,
        "training": {"iterations": 2, "batch_size": 8, "learning_rate": 2e-3}, "noise": False,
        "models": [{"name": "tiny", "params": {"frames": 32}}], "defenses": ["none"], "metrics": ["uar"],
        "attacks": [
            {"name": "noise", "params": {"epsilon": [round(1e-4 + 1e-6 * n, 6) for n in range(budgets)]}}, *more,
        ],
    }  # fmt: skip


def run(folder: Path, name: str) -> tuple[float, int]:
    """Run a suite of the folder; return the seconds and the number of jobs done."""
    start = time.perf_counter()
    command = [str(ADVSER), "run", f"{name}.yaml", "--store", "store", "--out", name]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    line = next(line for line in done.stdout.splitlines() if "jobs done" in line)
    return time.perf_counter() - start, int(line.split()[0])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of 500 cells."""
    place = tmp_path_factory.mktemp("matrix")
    (place / "many.yaml").write_text(yaml.safe_dump(suite("many", CELLS - 1)), encoding="utf-8")
    run(place, "many")
    return place


def test_a_run_of_which_all_is_there(place: Path, table: Table) -> None:
    """Time the run again."""
    seconds, jobs = run(place, "many")
    assert jobs == 0
    cells = json.loads((place / "many" / "run.json").read_text())["jobs"]["total"]
    assert cells >= CELLS
    table.add(Figure("matrix", f"a run of {CELLS} cells of which all is there", seconds, 1, "", "s", 3))


def test_one_attack_more_costs_its_own_cells_only(place: Path, table: Table) -> None:
    """Count the jobs that a further attack brings: craft and judge it."""
    more = suite("more", CELLS - 1, ({"name": "fgsm", "params": {"epsilon": 0.001}},))
    (place / "more.yaml").write_text(yaml.safe_dump(more), encoding="utf-8")
    _, jobs = run(place, "more")
    table.add(Figure("matrix", "jobs for one attack more in that run", jobs, 1, "", "jobs", 2))


def test_planning(table: Table) -> None:
    """Time the plan of 10,000 cells."""
    planned = Suite.model_validate(suite("planned", PLANNED - 1))
    corpus = Corpus({0: "prepared"}, ("fold1",), "en", {"clip": 16_000})
    start = time.perf_counter()
    plan = make_plan(planned, corpus, Speech(None, "none", "not asked for"), {}, "cpu")
    seconds = time.perf_counter() - start
    assert len(plan.cells) == PLANNED
    table.add(Figure("matrix", f"planning {PLANNED} cells", seconds, 1, "", "s", 5))
