"""The real command line, installed in its own process, or in this process where the result is the same."""

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
    """Return the words of a command; ``run`` and ``verify`` get one worker by default, since tests share the cores."""
    words = [str(argument) for argument in arguments]
    return [*words, "--workers", "1"] if words[0] in ("run", "verify") and "--workers" not in words else words


@contextmanager
def registries_as_they_were() -> Iterator[None]:
    """Withdraw plugins that are registered meanwhile, so that they do not join the suites of other tests."""
    before = {kind: set(registry.decorated()) for kind, registry in BY_KIND.items()}
    try:
        yield
    finally:
        for kind, registry in BY_KIND.items():
            for name in set(registry.decorated()) - before[kind]:
                registry.withdraw(name)


def advser(*arguments: str | Path, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the installed ``advser`` (`with_one_worker`); output is text."""
    return subprocess.run(
        [ADVSER, *with_one_worker(arguments)], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )


def advser_here(*arguments: str | Path, cwd: Path = Path()) -> subprocess.CompletedProcess[str]:
    """Run ``advser`` in this process, which has imported its libraries already.

    Plugin files are loaded only once: use `advser` if they change between two calls.
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
