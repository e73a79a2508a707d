"""The command line."""

from __future__ import annotations

import atexit
import gc
import sys
from typing import Annotated, Any

import typer

from advser.commands import hide, plugins, results, runs, submissions
from advser.commands.usage import EXIT_INPUT, EXIT_INTERRUPTED
from advser.errors import AdvserError

UsageError: type[Any] = typer.BadParameter.__base__ or Exception
"""What Typer raises for a wrong option; it bundles Click, and the class has no public name."""


def _version(shown: bool) -> None:
    if shown:
        from importlib.metadata import version

        sys.stdout.write(f"advser {version('advser')}\n")
        raise typer.Exit


app = typer.Typer(
    name="advser",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # with it, a help page waits for rich
)


@app.callback()
def options(
    shown: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Benchmark adversarial attacks on, and defenses of, speech emotion recognition."""


app.command()(runs.run)
app.command(name="list")(plugins.list_plugins)
app.command()(plugins.show)
app.command()(plugins.check)
app.command()(results.board)
app.command()(results.figure)
app.command()(results.compare)
app.command()(results.draw)
app.command()(hide.hide)
app.command()(submissions.submit)
app.command()(submissions.verify)


def command() -> None:
    """Do what `main` does in a process of its own: the installed command.

    Garbage is collected seldom, and not once more at the end: nearly all objects are those of imported libraries, which
    live as long as the process. To look through them took a quarter of a run of which all is there.
    """
    gc.set_threshold(50_000, 10, 10)
    atexit.register(gc.freeze)
    main()


def main() -> None:
    """Run the command line; bad input ends with one line on standard error and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except UsageError as error:
        sys.stderr.write(f"advser: {' '.join(error.format_message().split())}\n")
        sys.exit(EXIT_INPUT)
    except AdvserError as error:
        sys.stderr.write(f"advser: {error}\n")
        sys.exit(EXIT_INPUT)
    except OSError as error:
        sys.stderr.write(f"advser: {error.filename or 'file'}: {error.strerror or error}\n")
        sys.exit(EXIT_INPUT)
    if code == EXIT_INTERRUPTED:
        sys.stderr.write("advser: interrupted; what was finished is kept, the same command continues\n")
    sys.exit(code)
