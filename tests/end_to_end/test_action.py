"""The GitHub action: its scripts, run by the shell of GitHub's runners."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from one_cell import CLIPS, results
from places import ROOT

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
BASH = shutil.which("bash") or ""

SUITE = """
name: gate
corpus: demo
protocol: 3pair
folds: [fold1]
models: [tiny]
training: {iterations: 2}
defenses: [none]
transcriber: none
noise: false
audit: false
metrics: [uar]
"""


def step(name: str, place: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a step's script as GitHub does, with the step's environment."""
    assert set(STEPS[name]["env"]) <= set(environment)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [BASH, "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]["run"]]
    return subprocess.run(
        command, cwd=place, env={**os.environ, "PATH": path, **environment}, capture_output=True, text=True, check=False
    )


def test_inputs_reach_the_scripts_only_by_the_environment() -> None:
    for name, described in STEPS.items():
        assert "${{" not in described["run"], name
        used = re.findall(r"inputs\.([a-z]+)", str(described))
        assert set(used) <= set(ACTION["inputs"])


def test_the_example_workflow_uses_existing_inputs() -> None:
    workflow = yaml.safe_load((ROOT / "docs" / "examples" / "gate.yml").read_text(encoding="utf-8"))
    (gate,) = [step for step in workflow["jobs"]["gate"]["steps"] if step["uses"] == "./"]
    assert set(gate["with"]) <= set(ACTION["inputs"])
    assert {name for name, described in ACTION["inputs"].items() if described.get("required")} <= set(gate["with"])


@pytest.mark.skipif(not BASH, reason="bash is not installed")
def test_a_suite_runs_with_quoted_options(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(SUITE)
    options = "--workers 1 --store store\n--set 'folds=[fold1, fold2]' --dry-run"
    done = step("Run", tmp_path, SUITE="gate.yaml", RESULTS="out", RUN_OPTIONS=options)
    assert done.returncode == 0, done.stderr
    assert "fold2" in done.stdout


@pytest.mark.skipif(not BASH, reason="bash is not installed")
@pytest.mark.parametrize(("ended", "code"), [(0, 0), (2, 2), (3, 0), (130, 130)])
def test_failed_cells_are_left_to_the_comparison(ended: int, code: int, tmp_path: Path) -> None:
    (tmp_path / "advser").write_text(f"#!/bin/sh\nexit {ended}\n")
    (tmp_path / "advser").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = step("Run", tmp_path, SUITE="gate.yaml", RESULTS="out", RUN_OPTIONS="", PATH=path)
    assert done.returncode == code


@pytest.mark.skipif(not BASH, reason="bash is not installed")
@pytest.mark.parametrize(("name", "variable"), [("Run", "RUN_OPTIONS"), ("Compare", "COMPARE_OPTIONS")])
def test_options_with_an_open_quote_fail_the_step(name: str, variable: str, tmp_path: Path) -> None:
    environment = {"SUITE": "demo", "RESULTS": "out", "BASELINE": "base", variable: "--where 'model=mine"}
    done = step(name, tmp_path, **environment)
    assert done.returncode != 0
    assert "quote" in done.stderr


@pytest.mark.skipif(not BASH, reason="bash is not installed")
@pytest.mark.parametrize(("lost", "code"), [(0, 0), (20, 1)])
def test_a_regression_fails_the_step_and_leaves_a_table_to_comment(lost: int, code: int, tmp_path: Path) -> None:
    results(np.ones(CLIPS, bool)).save(tmp_path / "base")
    results(np.arange(CLIPS) >= lost).save(tmp_path / "new")
    summary = str(tmp_path / "summary.md")
    done = step(
        "Compare", tmp_path, BASELINE="base", RESULTS="new", COMPARE_OPTIONS="--fail-on uar=-0.02",
        GITHUB_STEP_SUMMARY=summary,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert done.stdout.count("::error") == code
    table = (tmp_path / "new" / "comparison.md").read_text(encoding="utf-8")
    assert ("| regression" in table) == bool(lost)
    assert table == Path(summary).read_text(encoding="utf-8")


@pytest.mark.skipif(not BASH, reason="bash is not installed")
def test_unusable_input_fails_the_step_and_leaves_no_table(tmp_path: Path) -> None:
    results(np.ones(CLIPS, bool)).save(tmp_path / "new")
    done = step("Compare", tmp_path, BASELINE="nowhere", RESULTS="new", COMPARE_OPTIONS="")
    assert done.returncode == 2
    assert not (tmp_path / "new" / "comparison.md").exists()
