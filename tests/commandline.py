"""Runs the real command line, as installed, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ADVSER = Path(sys.executable).parent / "advser"


def advser(*arguments: str | Path, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run ``advser`` with the arguments; output is text."""
    return subprocess.run(
        [ADVSER, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )
