"""Exit codes, options and consoles that the commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from advser.errors import InputError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from rich.console import Console

EXIT_FINDINGS = 1
EXIT_INPUT = 2
EXIT_FAILED_CELLS = 3
EXIT_INTERRUPTED = 130
EXIT_ENDED = 143

PATIENCE: Final = 10.0
"""Seconds between two lines about a slow drawing."""

MOST_PROCESSES: Final = 8
"""Most processes that draw figures: each holds Matplotlib and the results in memory."""

Plugins = Annotated[list[Path], typer.Option("--plugin", metavar="FILE", help="Python file that registers plugins.")]


class Device(StrEnum):
    """The device of the models."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def console(*, errors: bool = False) -> Console:
    """Return a console: standard output, or standard error for anything but results."""
    from rich.console import Console

    return Console(highlight=False, stderr=errors)


@contextmanager
def drawing_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that shows which of all boards and figures is drawn, on standard error.

    A bar in a terminal; elsewhere a line every ten seconds.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    errors, last = console(errors=True), monotonic()

    def line(name: str, number: int, total: int) -> None:
        nonlocal last
        if monotonic() - last > PATIENCE:
            last = monotonic()
            errors.print(f"drawing {name} ({number + 1} of {total})", markup=False, soft_wrap=True)

    if not errors.is_terminal:
        yield line
        return
    columns = (TextColumn("drawing {task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda name, number, total: bar.update(task, description=name, completed=number, total=total)


def drawing_processes() -> Executor:
    """Return a pool of processes that draw figures; they start with the first figure, and ignore Ctrl-C."""
    import multiprocessing
    import signal
    from concurrent.futures import ProcessPoolExecutor

    from advser.execution.forkserver import cores, method

    ignoring_interrupts = (signal.SIGINT, signal.SIG_IGN)
    context = multiprocessing.get_context(method())
    return ProcessPoolExecutor(min(cores(), MOST_PROCESSES), context, signal.signal, ignoring_interrupts)


def pairs(option: str, texts: list[str], form: str) -> dict[str, str]:
    """Return an option's KEY=VALUE texts as a mapping.

    Raises:
        InputError: if a text has another form, or two have the same key.
    """
    mapping: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise InputError(f"{option} {text}: got '{text}', expected {form}")
        if key in mapping:
            raise InputError(f"{option} {text}: got '{key}' twice, expected each key once")
        mapping[key] = value
    return mapping


def parameters(params: list[str]) -> dict[str, Any]:
    """Return the values of ``--param``: name → value, parsed as YAML.

    Raises:
        InputError: if a text has no value, or its value is not YAML.
    """
    from advser.suite.reading import read_yaml

    texts = pairs("--param", params, "KEY=VALUE")
    return {key: read_yaml(value, f"--param {key}={value}") for key, value in texts.items()}


def corpora(data: list[str]) -> dict[str, Path]:
    """Return the values of ``--data``: corpus name → folder."""
    return {name: Path(folder) for name, folder in pairs("--data", data, "CORPUS=DIR").items()}
