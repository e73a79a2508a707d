"""The installed command line, and the folders of EmoDB and its speech recogniser."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ADVSER = str(Path(sys.executable).parent / "advser")
_SHARED = Path(__file__).parents[2] / "shared"
DATA = Path(os.environ.get("ADVSER_DATA") or _SHARED / "data")
RECOGNISER = Path(os.environ.get("ADVSER_ASR") or _SHARED / "asr")

needs_emodb = pytest.mark.skipif(not (DATA / "emodb").is_dir(), reason="no folder of EmoDB in $ADVSER_DATA")
EMODB = ("--data", f"emodb={DATA / 'emodb'}")


def run(folder: Path, name: str, *options: str, store: str = "store") -> tuple[float, int]:
    """Run a suite; return its seconds and its number of jobs."""
    start = time.perf_counter()
    command = [ADVSER, "run", name, "--store", store, "--out", f"{store}-{Path(name).stem}", *options]
    done = subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True,
        env={**os.environ, "ADVSER_SPHINX_DIR": str(RECOGNISER)} if RECOGNISER.is_dir() else None,
    )  # fmt: skip
    line = next(line for line in done.stdout.splitlines() if "jobs done" in line)
    return time.perf_counter() - start, int(line.split()[0])
