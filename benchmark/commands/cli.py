"""The command line."""

from __future__ import annotations

import atexit
import functools
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TextIO

import typer

from advser.commands import hide, plugins, results, runs, submissions
from advser.commands.usage import EXIT_ENDED, EXIT_INPUT, EXIT_INTERRUPTED
from advser.errors import AdvserError, InputError, one_line, printable

LONGEST: Final = 1990
"""Characters of a message: a list of all names that are expected may be long."""

UsageError: type[Any] = typer.BadParameter.__base__ or Exception
"""Typer's exception for a wrong option. Typer bundles Click, and the class has no public name."""


def _version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        sys.stdout.write(f"advser {version('advser')}\n")
        raise typer.Exit


app = typer.Typer(
    name="advser",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # otherwise help pages import rich
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Benchmark adversarial attacks on speech emotion recognition, and defenses against them."""


def _with_verdict(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command that ends well only by returning: an exception with exit code 0 is a plugin's."""

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> None:
        try:
            function(*args, **options)
        except typer.Exit as end:
            if not end.exit_code:
                raise SystemExit(0) from end
            raise

    return checked


_COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "run": runs.run,
    "list": plugins.list_plugins,
    "show": plugins.show,
    "check": plugins.check,
    "board": results.board,
    "figure": results.figure,
    "compare": results.compare,
    "draw": results.draw,
    "hide": hide.hide,
    "submit": submissions.submit,
    "verify": submissions.verify,
}
for _name, _function in _COMMANDS.items():
    app.command(_name)(_with_verdict(_function))


def command() -> None:
    """Run `main` as the installed command, in its own process.

    Collect garbage rarely, and not at exit: nearly all objects belong to imported libraries and live as long as the
    process. Garbage collection took 25 % of a fully cached run.
    """
    gc.set_threshold(50_000, 10, 10)
    atexit.register(gc.freeze)
    ended: list[int] = []

    def end(number: int, frame: object) -> NoReturn:
        ended.append(number)
        raise KeyboardInterrupt

    # As SLURM sends it at the end of a job's time.
    signal.signal(signal.SIGTERM, end)
    _end_in_order()
    sys.stdout, sys.stderr = _stream(sys.stdout, 1), _stream(sys.stderr, 2)
    try:
        main()
    except SystemExit as last:
        sys.exit(EXIT_ENDED if ended and last.code == EXIT_INTERRUPTED else last.code)


class _Pipe(io.FileIO):
    """A standard stream that may lose its reader, as in ``advser list models | head``: the command goes on."""

    _lost = False

    def write(self, data: Any, /) -> int:
        """Write to the stream, as `io.FileIO.write`; nothing if no reader is left, or after an error."""
        try:
            return memoryview(data).nbytes if self._lost else super().write(data)
        except OSError as error:
            # Python writes what is left once more at its end.
            self._lost = True
            if isinstance(error, BrokenPipeError):
                return memoryview(data).nbytes
            raise OSError(error.errno, error.strerror, _STREAMS[self.fileno()]) from None


_STREAMS: Final = {1: "standard output", 2: "standard error"}


def _stream(stream: TextIO | None, number: int) -> TextIO:
    """Return a standard stream that any character can be written to: a locale may lack ε, and the stream be closed."""
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    raw = _Pipe(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, "backslashreplace", line_buffering=number == 2 or stream.isatty()
    )


def _end_in_order() -> None:
    """Let ``os._exit``, which ends a process without a word, raise `SystemExit` in this process: plugins may call it.

    Forked processes end as before.
    """
    process, end = os.getpid(), os._exit

    def leave(status: int) -> NoReturn:
        if os.getpid() != process:
            end(status)
        raise SystemExit(status)

    os._exit = leave


def main() -> None:
    """Run the command line; bad input ends with one line on standard error and exit code 2.

    Exit code 0 needs a command that returned: `SystemExit` comes from a plugin's code.
    """
    try:
        _refuse_empty(sys.argv)
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        code = _refuse(error.format_message())
    except AdvserError as error:
        code = _refuse(str(error) or one_line(error))
    except OSError as error:
        code = _refuse(f"{error.filename or 'file'}: {error.strerror or error}")
    except SystemExit as error:
        code = _refuse(f"a plugin: got sys.exit({error.code!r}), expected no end of the process")
    if code == EXIT_INTERRUPTED:
        sys.stderr.write("advser: interrupted; finished jobs are in the store, the same command continues from there\n")
    sys.exit(code)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Raise InputError if an argument is empty, as from an unset variable: as a path it would be this folder."""
    for before, argument in pairwise(arguments):
        if not argument:
            raise InputError(f"{before}: got an empty argument after it, expected a value")


def _refuse(message: str) -> int:
    """Write a message as one printable line, and return the exit code of bad input."""
    sys.stderr.write(f"advser: {printable(message, LONGEST)}\n")
    return EXIT_INPUT
