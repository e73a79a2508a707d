"""What the pages show of published results: cog runs it and writes the output between its markers (`tox -e pages`)."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path


def board(arguments: str) -> str:
    """Return the command ``advser board ARGUMENTS`` and, below it, the Markdown that it prints.

    Raises:
        CalledProcessError: if it fails.
    """
    command = f"board {arguments} --format markdown"
    line = [Path(sys.executable).parent / "advser", *shlex.split(command)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)  # noqa: S603 (the pages' own commands)
    return f"`advser {command}`:\n\n{done.stdout.strip()}"
