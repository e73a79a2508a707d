"""Peak memory of a run, of a corpus and of ten times as many clips: of the main process, and of the largest worker."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from commands import ADVSER
from corpora import corpus
from measuring import Figure, Table

COPIES, TIMES = 5, 10
"""Of the embedded corpus; ten times as many are two hours and a half, 550 MiB in float32: who held them would show."""

SUITE: dict[str, Any] = {
    "name": "memory", "corpus": "folder", "protocol": "3pair", "folds": ["fold1"],
    "transcriber": "none", "noise": False,
    "training": {"iterations": 40, "batch_size": 16, "fit_on": "train"},
    "models": [{"name": "cnn4", "params": {"width": 0.1}}], "defenses": ["none"], "metrics": ["uar", "snr", "stoi"],
    "attacks": [
        {"name": "ifgsm", "domain": "waveform", "params": {"epsilon": 0.001, "steps": 3}},
        {"name": "ifgsm", "domain": "spectrogram", "delivery": ["features", "audio"],
         "params": {"epsilon": 0.06, "steps": 3}},
    ],
}  # fmt: skip


def peaks(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; return the peak resident memory in MiB of its own process, and of the largest one below it.

    The kernel keeps each process's peak (Linux); it is asked for until the process is gone.
    """
    own, below = 0.0, {0: 0.0}
    with (folder / "told.txt").open("wb") as told:
        run = psutil.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=told)
        while run.poll() is None:
            with suppress(psutil.NoSuchProcess):
                for process in run.children(recursive=True):
                    below[process.pid] = max(below.get(process.pid, 0.0), peak(process.pid))
            own = max(own, peak(run.pid))
            time.sleep(0.02)
    assert run.returncode == 0, (folder / "told.txt").read_text(encoding="utf-8")
    return own, max(below.values())


def peak(pid: int) -> float:
    """Return the peak resident memory of a process so far in MiB; 0 of one that is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
def test_memory(table: Table, tmp_path: Path) -> None:
    """Add a line for the main process, and one for the largest of its workers."""
    (tmp_path / "memory.yaml").write_text(yaml.safe_dump(SUITE), encoding="utf-8")
    found = {}
    for times in (1, TIMES):
        corpus(tmp_path / f"x{times}", times * COPIES)
        command = [ADVSER, "run", "memory.yaml", "--data", f"folder=x{times}", "--workers", "2"]
        found[times] = peaks([*command, "--store", f"store{times}", "--out", f"out{times}"], tmp_path)
        shutil.rmtree(tmp_path / f"store{times}")
    for which, name in enumerate(("main process", "largest worker")):
        what = f"peak memory of a run, {TIMES} x the clips, {name}"
        table.add(Figure("memory", what, found[TIMES][which], found[1][which], "the clips once", "MiB", 1.2))
