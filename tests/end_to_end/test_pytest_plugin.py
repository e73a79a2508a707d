"""The pytest plugin, in its own pytest process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from commandline import advser_here

TESTS = """
def test_the_model_has_not_become_worse(advser_result):
    result = advser_result("small.yaml", changes={"training.iterations": ITERATIONS})
    result.assert_no_regression({"accuracy": -0.02})


def test_it_is_better_than_chance(advser_result):
    result = advser_result("small.yaml", changes={"training.iterations": ITERATIONS})
    assert result.figure("accuracy", attack="none") > 0.3
"""
SUITE = """
name: small
corpus: demo
protocol: loso
folds: [f1]
classes: [anger, sadness]
training: {iterations: 150, batch_size: 16, learning_rate: 2e-3}
models: [{name: tiny, params: {frames: 32}}]
defenses: [none]
attacks: [{name: noise, params: {epsilon: 0.001}}]
metrics: [accuracy]
transcriber: none
noise: false
audit: false
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "small.yaml").write_text(SUITE)
    done = advser_here("run", "small.yaml", "--store", "store", "--out", "baseline", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def run(place: Path, iterations: int, *options: str) -> subprocess.CompletedProcess[str]:
    (place / "test_mine.py").write_text(TESTS.replace("ITERATIONS", str(iterations)))
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *options, "test_mine.py"]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)


def test_an_unchanged_model_passes_and_a_worse_one_fails_with_the_table(place: Path) -> None:
    options = ("--advser-baseline", "baseline", "--advser-store", "store")
    same = run(place, 150, *options)
    assert same.returncode == 0, same.stdout
    worse = run(place, 1, *options)
    assert worse.returncode == 1
    assert "regression" in worse.stdout
    assert "Against baseline" in worse.stdout


def test_without_a_baseline_the_test_is_skipped_with_a_reason(place: Path) -> None:
    done = run(place, 150, "--advser-store", "store")
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    assert "no baseline to compare with (--advser-baseline DIR)" in done.stdout
