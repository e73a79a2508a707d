"""Costs beside jobs: planning a suite, running it from the cache, extending it; and use of all cores by jobs."""

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
"""A suite whose jobs take one or two minutes."""


def job_seconds(store: Path) -> list[float]:
    """Return the seconds of each job in a store; the preparation of the corpus runs outside jobs and records none."""
    manifests = (json.loads(path.read_text(encoding="utf-8")) for path in store.glob("*/*/manifest.json"))
    return [manifest["seconds"] for manifest in manifests if "seconds" in manifest]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of 500 cells."""
    place = tmp_path_factory.mktemp("matrix")
    (place / "many.yaml").write_text(yaml.safe_dump(suite("many", CELLS - 1)), encoding="utf-8")
    run(place, "many.yaml")
    return place


def test_a_fully_cached_run(place: Path, table: Table) -> None:
    """Time the same run again."""
    repeated = [run(place, "many.yaml") for _ in range(3)]
    assert [jobs for _, jobs in repeated] == [0, 0, 0]
    seconds = statistics.median(seconds for seconds, _ in repeated)
    cells = json.loads((place / "store-many" / "run.json").read_text())["jobs"]["total"]
    assert cells >= CELLS
    table.add(Figure("matrix", f"a fully cached run of {CELLS} cells", seconds, 1, "", "s", 3))


def test_a_further_attack_costs_only_its_own_cells(place: Path, table: Table) -> None:
    """Count the jobs of a further attack, which are one to craft and one to judge."""
    more = suite("more", CELLS - 1, ({"name": "fgsm", "params": {"epsilon": 0.001}},))
    (place / "more.yaml").write_text(yaml.safe_dump(more), encoding="utf-8")
    _, jobs = run(place, "more.yaml")
    table.add(Figure("matrix", "jobs for a further attack in that run", jobs, 1, "", "jobs", 2))


def test_planning(table: Table) -> None:
    """Time the planning of 10,000 cells."""
    seconds = statistics.median(planning_seconds(PLANNED) for _ in range(3))
    table.add(Figure("matrix", f"planning {PLANNED} cells", seconds, 1, "", "s", 5))


def full_use(folder: Path, part: str, what: str, name: str, options: Sequence[str], table: Table) -> None:
    """Compare the wall time of a run on an empty store with its jobs' time divided by the number of cores."""
    seconds, jobs = run(folder, name, *options)
    taken = job_seconds(folder / "store")
    assert len(taken) == jobs > 0
    against, count = f"its jobs on {CORES} cores in full use", f", {jobs} jobs"
    table.add(Figure(part, what, seconds, sum(taken) / CORES, against, "s", 1.1, detail=count))


def test_jobs_keep_all_cores_busy(tmp_path: Path, table: Table) -> None:
    """Measure a suite of one or two minutes."""
    (tmp_path / "work.yaml").write_text(yaml.safe_dump(WORK), encoding="utf-8")
    full_use(tmp_path, "matrix", "a suite of a minute or two, from start to boards", "work.yaml", (), table)
    seconds = {CORES: _work_seconds(tmp_path, CORES), 1: _work_seconds(tmp_path, 1)}
    counts = sorted(seconds)
    table.growths.append(
        Growth("a planned suite of a minute or two", "workers", counts, [seconds[count] for count in counts])
    )


def _work_seconds(folder: Path, workers: int) -> float:
    """Return the seconds of a planned run, from the start of its workers to its scores."""
    store = f"store-of-{workers}"
    run(folder, "work.yaml", "--workers", str(workers), store=store)
    record: dict[str, Any] = json.loads((folder / f"{store}-work" / "run.json").read_text(encoding="utf-8"))
    return float(record["jobs"]["seconds"])


@needs_emodb
def test_the_emodb_suite_keeps_all_cores_busy(tmp_path: Path, table: Table) -> None:
    """Measure the suite on one fold, with a short training."""
    options = [*EMODB, "--set", "training.iterations=40", "--set", "folds=[fold1]"]
    what = "emodb on one fold, 40 training steps, from start to boards"
    full_use(tmp_path, "matrix", what, "emodb", options, table)


@needs_emodb
@pytest.mark.whole
def test_the_whole_emodb_suite_keeps_all_cores_busy(tmp_path: Path, table: Table) -> None:
    """Measure the whole suite, which takes more than an hour on two cores."""
    full_use(tmp_path, WHOLE, "emodb, from start to boards", "emodb", EMODB, table)
