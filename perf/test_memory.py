"""Peak memory of the main process and of the largest worker, for a corpus and for ten times as many clips."""

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
"""Copies of the demo corpus, and their multiple: 2.5 hours, or 550 MiB in float32, which a process must not hold."""

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
    """Run a command; return the peak resident memory in MiB of its own process, and of its largest child process.

    The peak is polled from the kernel (Linux) until the process ends.
    """
    own, children = 0.0, {0: 0.0}
    log = folder / "log.txt"
    with log.open("wb") as errors:
        run = psutil.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors)
        while run.poll() is None:
            with suppress(psutil.NoSuchProcess):
                for process in run.children(recursive=True):
                    children[process.pid] = max(children.get(process.pid, 0.0), peak(process.pid))
            own = max(own, peak(run.pid))
            time.sleep(0.02)
    assert run.returncode == 0, log.read_text(encoding="utf-8")
    return own, max(children.values())


def peak(pid: int) -> float:
    """Return the peak resident memory of a process so far in MiB; 0 if the process has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
def test_memory(table: Table, tmp_path: Path) -> None:
    """Measure the main process and the largest worker."""
    (tmp_path / "memory.yaml").write_text(yaml.safe_dump(SUITE), encoding="utf-8")
    memory = {}
    for times in (1, TIMES):
        corpus(tmp_path / f"x{times}", times * COPIES)
        command = [ADVSER, "run", "memory.yaml", "--data", f"folder=x{times}", "--workers", "2"]
        memory[times] = peaks([*command, "--store", f"store{times}", "--out", f"out{times}"], tmp_path)
        shutil.rmtree(tmp_path / f"store{times}")
    for process, name in enumerate(("main process", "largest worker")):
        what = f"peak memory of a run, {TIMES} x the clips, {name}"
        table.add(Figure("memory", what, memory[TIMES][process], memory[1][process], "the clips once", "MiB", 1.2))
