"""What planning, reading and adding to a suite cost beside its jobs, and whether the jobs keep all cores busy."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import EMODB, needs_emodb, run
from contest import CORES
from measuring import WHOLE, Figure, Growth, Table
from planner import planning_seconds, suite

CELLS, PLANNED = 500, 10_000

WORK: dict[str, Any] = {
    "name": "work", "corpus": "demo", "protocol": "3pair", "folds": ["fold1"], "audit": False,
    "training": {"iterations": 50, "batch_size": 16},
    "models": [{"name": "cnn4", "params": {"width": 0.2, "frames": 128}}],
    "defenses": ["none", {"name": "vanilla", "params": {"attack": {"name": "fgsm", "params": {"epsilon": 0.06}}}}],
    "attacks": [
        {"name": "ifgsm", "domain": "waveform", "params": {"epsilon": [0.0005, 0.001]}},
        {"name": "ifgsm", "domain": "spectrogram", "delivery": ["features", "audio"], "params": {"epsilon": 0.06}},
    ],
    "metrics": ["uar", "accuracy", "snr", "pesq", "stoi", "wer"],
}  # fmt: skip
"""A suite whose jobs take a minute or two."""


def of_jobs(store: Path) -> list[float]:
    """Return the seconds that each job in a store took; the corpus is prepared by the run itself, and tells none."""
    told = (json.loads(path.read_text(encoding="utf-8")) for path in store.glob("*/*/manifest.json"))
    return [one["seconds"] for one in told if "seconds" in one]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of 500 cells."""
    place = tmp_path_factory.mktemp("matrix")
    (place / "many.yaml").write_text(yaml.safe_dump(suite("many", CELLS - 1)), encoding="utf-8")
    run(place, "many.yaml")
    return place


def test_a_run_of_which_all_is_there(place: Path, table: Table) -> None:
    """Time the run again."""
    again = [run(place, "many.yaml") for _ in range(3)]
    assert [jobs for _, jobs in again] == [0, 0, 0]
    seconds = statistics.median(seconds for seconds, _ in again)
    cells = json.loads((place / "store-many" / "run.json").read_text())["jobs"]["total"]
    assert cells >= CELLS
    table.add(Figure("matrix", f"a run of {CELLS} cells of which all is there", seconds, 1, "", "s", 3))


def test_one_attack_more_costs_its_own_cells_only(place: Path, table: Table) -> None:
    """Count the jobs that a further attack brings: craft and judge it."""
    more = suite("more", CELLS - 1, ({"name": "fgsm", "params": {"epsilon": 0.001}},))
    (place / "more.yaml").write_text(yaml.safe_dump(more), encoding="utf-8")
    _, jobs = run(place, "more.yaml")
    table.add(Figure("matrix", "jobs for one attack more in that run", jobs, 1, "", "jobs", 2))


def test_planning(table: Table) -> None:
    """Time the plan of 10,000 cells."""
    seconds = statistics.median(planning_seconds(PLANNED) for _ in range(3))
    table.add(Figure("matrix", f"planning {PLANNED} cells", seconds, 1, "", "s", 5))


def full_use(folder: Path, part: str, what: str, name: str, options: Sequence[str], table: Table) -> None:
    """Add the wall time of a run on an empty store against that of its jobs, if they kept all cores busy."""
    seconds, jobs = run(folder, name, *options)
    taken = of_jobs(folder / "store")
    assert len(taken) == jobs > 0
    against, count = f"its jobs on {CORES} cores in full use", f", {jobs} jobs"
    table.add(Figure(part, what, seconds, sum(taken) / CORES, against, "s", 1.1, detail=count))


def test_jobs_keep_all_cores_busy(tmp_path: Path, table: Table) -> None:
    """Run a suite of a minute or two."""
    (tmp_path / "work.yaml").write_text(yaml.safe_dump(WORK), encoding="utf-8")
    full_use(tmp_path, "matrix", "a suite of a minute or two, from start to boards", "work.yaml", (), table)
    seconds = {CORES: _alone(tmp_path, CORES), 1: _alone(tmp_path, 1)}
    counts = sorted(seconds)
    table.growths.append(
        Growth("a planned suite of a minute or two", "workers", counts, [seconds[count] for count in counts])
    )


def _alone(folder: Path, workers: int) -> float:
    """Return the seconds that a planned run takes with so many workers, from their start to its scores."""
    store = f"store-of-{workers}"
    run(folder, "work.yaml", "--workers", str(workers), store=store)
    told: dict[str, Any] = json.loads((folder / f"{store}-work" / "run.json").read_text(encoding="utf-8"))
    return float(told["jobs"]["seconds"])


@needs_emodb
def test_the_emodb_suite_keeps_all_cores_busy(tmp_path: Path, table: Table) -> None:
    """Run the suite on one fold, with a short training."""
    options = [*EMODB, "--set", "training.iterations=40", "--set", "folds=[fold1]"]
    what = "emodb on one fold, 40 training steps, from start to boards"
    full_use(tmp_path, "matrix", what, "emodb", options, table)


@needs_emodb
@pytest.mark.whole
def test_the_whole_emodb_suite_keeps_all_cores_busy(tmp_path: Path, table: Table) -> None:
    """Run the suite as it is: more than an hour on two cores."""
    full_use(tmp_path, WHOLE, "emodb, from start to boards", "emodb", EMODB, table)
