"""Start-up times of the command line."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from commands import ADVSER
from measuring import Figure, Table

SUITE = """
name: quick
corpus: demo
protocol: 3pair
folds: [fold1]
training: {iterations: 2, batch_size: 8, learning_rate: 2e-3}
models: [{name: tiny, params: {frames: 32}}]
defenses: [none]
attacks: [{name: fgsm, params: {epsilon: 0.002}}]
metrics: [uar]
transcriber: none
noise: false
audit: false
"""


def until_a_job(words: str, command: Sequence[str | Path], store: Path) -> float:
    """Return the seconds until a command prints ``words`` and a worker creates a folder; then end the command."""
    start = time.perf_counter()
    with subprocess.Popen(
        [*map(str, command)], cwd=store.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if words in line:
                while not [*store.glob("unfinished-*")] and len([*store.glob("*/*")]) < 2:
                    assert run.poll() is None
                    time.sleep(0.002)
                seconds = time.perf_counter() - start
                run.terminate()
                return seconds
    pytest.fail(f"{command}: got no line with '{words}', expected one")


def test_help(table: Table) -> None:
    """Time `advser --help`."""
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        subprocess.run([ADVSER, "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    # The first call may wait for the disk.
    table.add(Figure("start-up", "advser --help", statistics.median(seconds[1:]), 1, "", "s", 0.3))


def test_first_job(table: Table, tmp_path: Path) -> None:
    """Time a run on an empty store until a worker starts its first job."""
    (tmp_path / "quick.yaml").write_text(SUITE, encoding="utf-8")
    seconds = sorted(
        until_a_job(" workers, ", [ADVSER, "run", "quick.yaml", "--store", store], store)
        for store in (tmp_path / f"store-{number}" for number in range(3))
    )
    table.add(Figure("start-up", "advser run, until the first job starts", seconds[1], 1, "", "s", 4))
