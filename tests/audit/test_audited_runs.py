"""Audits of whole runs: flags on boards, and in `run.json`."""

from __future__ import annotations

import json
from pathlib import Path

from commandline import advser, advser_here

from advser.audit.audit import CHECKS
from advser.results.folder import Results

NAMES = {check.name for check in CHECKS}

SUITE = """
name: audited
corpus: demo
protocol: 3pair
folds: [fold1]
models: [tiny]
training: {iterations: 250, batch_size: 16, learning_rate: 2e-3, schedule: cosine, fit_on: train+validation}
defenses: [none]
transcriber: none
noise: false
metrics: [uar]
attacks:
  - {name: noise, params: {epsilon: 0.004}}
  - {name: ifgsm, params: {epsilon: 0.004}}
  - {name: chain-rule, params: {epsilon: 0.004, alpha: 0.001, steps: 10}}
"""


def test_boards_show_the_flags_of_their_rows_with_their_meaning(tmp_path: Path) -> None:
    (tmp_path / "audited.yaml").write_text(SUITE)
    done = advser_here("run", "audited.yaml", "--store", "store", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    flags = Results.load(tmp_path / "out").run["audit"]["flags"]
    assert {(flag["check"], flag["where"].get("attack")) for flag in flags} == {("noise-beats-attack", "chain-rule")}
    lines = advser_here("board", tmp_path / "out").stdout.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("chain-rule")] == ["C"]
    board = advser_here("board", tmp_path / "out", "--by", "audit").stdout
    assert "Check skipped, transfer beats white box: this run has no case of it; it needs" in " ".join(board.split())
    assert "chain-rule" in board
    assert "Flag C: noise within the same budget misleads more clips" in " ".join(board.split())
    assert json.loads((tmp_path / "out" / "run.json").read_text())["audit"]["checks"].keys() == NAMES


PICKY = """
import advser
from advser.models.tiny import Tiny


@advser.model("picky")
class Picky(Tiny):
    '''Refuses a clip alone.'''

    def embed(self, features, lengths):
        if len(lengths) == 1:
            raise RuntimeError("one clip is not enough")
        return super().embed(features, lengths)
"""


def test_a_model_that_cannot_be_probed_is_flagged_and_fails_the_run(tmp_path: Path) -> None:
    suite = SUITE.partition("attacks:")[0].replace("[tiny]", "[picky]").replace("iterations: 250", "iterations: 5")
    (tmp_path / "audited.yaml").write_text(suite)
    (tmp_path / "picky.py").write_text(PICKY)
    done = advser("run", "audited.yaml", "--plugin", "picky.py", "--store", "store", cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    reason = "probe picky / none, fold fold1: RuntimeError: one clip is not enough (picky.py:12)"
    assert f"failed: {reason}" in done.stderr
    (flag,) = Results.load(tmp_path / "results" / "audited").run["audit"]["flags"]
    assert (flag["check"], flag["detail"]) == ("could-not-be-probed", reason)
    assert "could not be probed" in done.stdout
