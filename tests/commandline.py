"""Runs the real command line, as installed, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ADVSER = Path(sys.executable).parent / "advser"


def advser(*arguments: str | Path, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run ``advser`` with the arguments; output is text.

    Runs have one worker, unless the arguments say otherwise: tests run beside one another and share the cores.
    """
    words = [str(argument) for argument in arguments]
    if words[0] in ("run", "verify") and "--workers" not in words:
        words += ["--workers", "1"]
    return subprocess.run([ADVSER, *words], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)


def jobs_done(done: subprocess.CompletedProcess[str]) -> int:
    """Read the number of jobs from the run's closing line."""
    line = next(line for line in done.stdout.splitlines() if "jobs done; results in" in line)
    return int(line.split()[0])
