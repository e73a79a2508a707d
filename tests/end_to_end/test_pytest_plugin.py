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
    assert f"Against {place / 'baseline'}" in worse.stdout


def test_paths_are_those_of_the_command_line_whatever_folder_a_test_works_in(place: Path, tmp_path: Path) -> None:
    moved = TESTS.replace(
        "def test",
        "import pytest\n\n@pytest.fixture(autouse=True)\ndef elsewhere(monkeypatch):\n"
        f"    monkeypatch.chdir({str(tmp_path)!r})\n\n\ndef test",
        1,
    )
    moved = moved.replace('"small.yaml"', repr(str(place / "small.yaml"))).replace("ITERATIONS", "150")
    (place / "test_moved.py").write_text(moved)
    options = ("--advser-baseline", "baseline", "--advser-store", "store")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_moved.py"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_missing_baseline_fails_the_test_in_one_line(place: Path) -> None:
    done = run(place, 150, "--advser-baseline", "missing", "--advser-store", "store")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert f"{place / 'missing'}: got no such folder" in done.stdout


def test_without_a_baseline_the_test_is_skipped_with_a_reason(place: Path) -> None:
    done = run(place, 150, "--advser-store", "store")
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    assert "no baseline to compare with (--advser-baseline DIR)" in done.stdout
