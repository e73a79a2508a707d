"""Commands on results: `advser board`, `advser compare`, `advser figure`, `advser draw`."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from advser.commands.usage import EXIT_FINDINGS, console, drawing_processes, drawing_progress, pairs
from advser.errors import InputError

MOST_DECIMALS = 9
"""Largest number of digits after the point."""


class Format(StrEnum):
    """Format of a board."""

    terminal = "terminal"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    html = "html"


class ComparisonFormat(StrEnum):
    """Format of a comparison."""

    terminal = "terminal"
    markdown = "markdown"
    csv = "csv"
    junit = "junit"
    github = "github"


def board(
    results: Annotated[Path, typer.Argument(help="A results folder.")],
    by: Annotated[
        str, typer.Option(help="attacks, defenses, models, transfer, leaderboard, audit, or a table of the suite.")
    ] = "attacks",
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.terminal,  # noqa: A002
    where: Annotated[
        list[str], typer.Option("--where", metavar="KEY=GLOB", help="Rows to keep: 'attack=none|ifgsm'.")
    ] = [],
    metrics: Annotated[str, typer.Option(metavar="NAME,…", help="Metrics to show, in this order; all if empty.")] = "",
    columns: Annotated[str, typer.Option(metavar="NAME,…", help="Columns to show, by their names in CSV.")] = "",
    pivot: Annotated[str, typer.Option(metavar="NAME", help="Column whose values become columns.")] = "",
    decimals: Annotated[str, typer.Option(metavar="N or NAME=N,…", help="Digits after the point.")] = "",
    bold: Annotated[bool, typer.Option(help="Mark the best value and its ties.")] = True,
    intervals: Annotated[bool, typer.Option(help="Show intervals of figures and ranks.")] = True,
    notes: Annotated[bool, typer.Option(help="Show notes; marks are always explained.")] = True,
    caption: Annotated[str, typer.Option(help="Caption.  [default: the board's title and facts]")] = "",
    label: Annotated[str, typer.Option(help="LaTeX label.  [default: tab:NAME]")] = "",
    span: Annotated[bool, typer.Option("--span", help="LaTeX: across both columns of a page (table*).")] = False,
) -> None:
    """Print a board of a results folder."""
    from advser.api import built_board
    from advser.leaderboards.boards.shape import Shape, shaped
    from advser.leaderboards.formats.render import render
    from advser.results.folder import Results

    selection = pairs("--where", where, "KEY=GLOB")
    built = built_board(Results.load(results), by, selection, metrics.split(",") if metrics else ())
    names = tuple(name for name in columns.split(",") if name)
    shape = Shape(names, pivot, _decimals(decimals), bold, intervals, notes, caption, label, span)
    sys.stdout.write(f"{render(shaped(built, shape), format.value)}\n")


def _decimals(text: str) -> dict[str, int]:
    """Parse ``3``, or ``uar=2,pesq=1``; the empty name means all columns."""
    digits = {}
    for part in filter(None, text.split(",")):
        name, _, number = part.rpartition("=")
        if not (number.isdecimal() and int(number) <= MOST_DECIMALS):
            raise InputError(f"--decimals {part}: got '{number}', expected 0 to {MOST_DECIMALS}")
        digits[name] = int(number)
    return digits


def compare(
    base: Annotated[Path, typer.Argument(help="The results folder to compare with.")],
    new: Annotated[Path, typer.Argument(help="The results folder to judge, of the same protocol.")],
    fail_on: Annotated[
        list[str],
        typer.Option(metavar="METRIC=DELTA", help="Largest change for the worse that passes: uar=-0.02, wer=0.05."),
    ] = [],
    where: Annotated[list[str], typer.Option("--where", metavar="KEY=GLOB", help="Rows to compare.")] = [],
    level: Annotated[
        float, typer.Option(min=0, max=1, help="Probability of a false alarm; 1: the tolerance alone decides.")
    ] = 0.05,
    format: Annotated[ComparisonFormat, typer.Option(help="Output format.")] = ComparisonFormat.terminal,  # noqa: A002
) -> None:
    """Compare two results, and report regressions.

    A regression is a figure that is worse by more than its tolerance, with a significant test paired by clip. Without
    --fail-on all metrics with such a test are gated, with tolerance 0.

    Exit code: 0 no regression, 1 a regression or a missing gated figure, 2 unusable input, such as different protocols.
    """
    from advser.leaderboards.boards.comparison import board, junit, lines, workflow_commands
    from advser.leaderboards.formats.render import render
    from advser.results.folder import Results
    from advser.results.selection import select
    from advser.scoring.regression import compare as compared
    from advser.scoring.regression import gates_of

    selection = pairs("--where", where, "KEY=GLOB")
    before, after = (select(Results.load(folder), selection) for folder in (base, new))
    gates = gates_of(before, pairs("--fail-on", fail_on, "METRIC=DELTA"))
    comparison = compared(before, after, gates, level)
    moves = lines(comparison, before, after)
    table = board(comparison, moves, _gate_note(fail_on, level))
    if format is ComparisonFormat.junit:
        sys.stdout.write(f"{junit(comparison, moves)}\n")
    elif format is ComparisonFormat.github:
        sys.stdout.write(f"{workflow_commands(moves)}\n")
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(f"{render(table, 'markdown')}\n")
    else:
        sys.stdout.write(f"{render(table, format.value)}\n")
    if comparison.failures:
        raise typer.Exit(EXIT_FINDINGS)


def _gate_note(fail_on: list[str], level: float) -> str:
    """Return the gate of `compare` in words."""
    gates = f"at most {', '.join(fail_on)}" if fail_on else "no change for the worse, of all metrics that have a test"
    test = f"paired test by clip, p ≤ {level:g} over all gated figures" if level < 1 else "no test"
    return f"Gate: {gates}; {test}."


def figure(
    results: Annotated[Path, typer.Argument(help="A results folder.")],
    name: Annotated[
        str, typer.Argument(help="METRIC-against-epsilon or METRIC-against-steps (-PART), or a figure of the suite.")
    ],
    out: Annotated[Path, typer.Argument(help="The file to write: .pdf, .svg or .png.")],
    width: Annotated[float, typer.Option(help="Width in inches; 3.35: a column of two; 7: a page.")] = 3.35,
    where: Annotated[
        list[str], typer.Option("--where", metavar="KEY=GLOB", help="Rows to keep: 'attack=none|ifgsm'.")
    ] = [],
    heading: Annotated[bool, typer.Option(help="Draw a heading above the panels.")] = False,
) -> None:
    """Write a figure of a results folder for a paper, in the width of its column."""
    from advser.api import built_figure
    from advser.results.folder import Results

    selection = pairs("--where", where, "KEY=GLOB")
    built = built_figure(Results.load(results), results, name, selection, width, heading, out)
    inches, height = built.get_size_inches()
    console().print(f"{out}: {inches:.2f} × {height:.2f} inches", markup=False, soft_wrap=True)


def draw(results: Annotated[Path, typer.Argument(help="A results folder.")]) -> None:
    """Redraw the boards, figures and page of a results folder from its tables.

    Boards, figures and thumbnails of an earlier drawing that are no longer drawn are removed.
    """
    from advser.leaderboards.write import write_all
    from advser.results.folder import Results

    earlier = sorted(results.rglob("*"))
    loaded = Results.load(results)
    with drawing_progress() as on_step, drawing_processes() as processes:
        written = write_all(loaded, results, on_step=on_step, processes=processes)
    console().print(f"{len(written)} files written in {results}", markup=False, soft_wrap=True)
    for path in earlier:
        if not path.exists():
            console().print(f"{path}: removed, as it is drawn no longer", markup=False, soft_wrap=True)
