"""Runs the real command line: as installed, in a process of its own, or, where that tells the same, in this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

from advser.commands.cli import main
from advser.plugins.registries import BY_KIND

ADVSER = Path(sys.executable).parent / "advser"


def with_one_worker(arguments: Sequence[str | Path]) -> list[str]:
    """Return the words of a command, of a run or its verification with one worker, unless they say otherwise.

    Tests run beside one another and share the cores.
    """
    words = [str(argument) for argument in arguments]
    return [*words, "--workers", "1"] if words[0] in ("run", "verify") and "--workers" not in words else words


@contextmanager
def registries_as_they_were() -> Iterator[None]:
    """Take out of the registries what is put in meanwhile: suites that are joined by newcomers would have it."""
    before = {kind: set(registry.decorated()) for kind, registry in BY_KIND.items()}
    try:
        yield
    finally:
        for kind, registry in BY_KIND.items():
            for name in set(registry.decorated()) - before[kind]:
                registry.withdraw(name)


def advser(*arguments: str | Path, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run ``advser`` with the arguments (`with_one_worker`); output is text."""
    return subprocess.run(
        [ADVSER, *with_one_worker(arguments)], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )


def advser_here(*arguments: str | Path, cwd: Path = Path()) -> subprocess.CompletedProcess[str]:
    """Run ``advser`` in this process, where all that it imports is there already, in its workers too.

    A plugin file that it loads is loaded once: what is to change in between is for `advser`.
    """
    words, out, err = with_one_worker(arguments), StringIO(), StringIO()
    with (
        chdir(cwd), redirect_stdout(out), redirect_stderr(err), registries_as_they_were(),
        mock.patch.object(sys, "argv", ["advser", *words]),
    ):  # fmt: skip
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(words, int(code), out.getvalue(), err.getvalue())


def jobs_done(done: subprocess.CompletedProcess[str]) -> int:
    """Read the number of jobs from the run's closing line."""
    line = next(line for line in done.stdout.splitlines() if "jobs done; results in" in line)
    return int(line.split()[0])
