"""The command line. Anything slow is imported inside the command that needs it."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from platformdirs import user_cache_path
from rich.console import Console

from advser.errors import AdvserError, InputError, did_you_mean
from advser.plugins import BY_KIND, REGISTRIES

if TYPE_CHECKING:
    from advser.run import Prepared, Report
    from advser.submission import Verified

EXIT_FAILED_CELLS = 3
EXIT_FOUND = 1
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130

MOST_DECIMALS = 9

UsageError: type[Any] = typer.BadParameter.__base__ or Exception
"""What Typer raises for a wrong option; it bundles Click, and the class has no public name."""

app = typer.Typer(
    name="advser",
    help="Benchmark adversarial attacks on, and defenses of, speech emotion recognition.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Device(StrEnum):
    """Where models run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Format(StrEnum):
    """How a board is written."""

    terminal = "terminal"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    html = "html"


class ComparisonFormat(StrEnum):
    """How a comparison is written."""

    terminal = "terminal"
    markdown = "markdown"
    csv = "csv"
    junit = "junit"
    github = "github"


def _console(*, errors: bool = False) -> Console:
    """Return where to print: standard output, or, for what is no result, standard error."""
    return Console(highlight=False, stderr=errors)


def _pairs(option: str, texts: list[str], form: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise InputError(f"{option} {text}: allowed: {form}")
        if key in pairs:
            raise InputError(f"{option} {text}: '{key}' is given twice")
        pairs[key] = value
    return pairs


def _default_store() -> Path:
    return Path(os.environ.get("ADVSER_STORE") or user_cache_path("advser") / "store")


Plugins = Annotated[list[Path], typer.Option("--plugin", help="Python file that registers plugins.")]


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="A shipped suite (see 'advser list suites') or a YAML file.")] = "demo",
    data: Annotated[list[str], typer.Option("--data", metavar="CORPUS=DIR", help="Where a corpus is.")] = [],
    out: Annotated[
        Path | None,
        typer.Option(help="Results folder.  [default: results/<suite>; with --set or --only results/<suite>-cut]"),
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Artefact store.  [default: $ADVSER_STORE or a cache]")] = None,
    changes: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change the suite: training.iterations=100.")
    ] = [],
    only: Annotated[
        list[str], typer.Option("--only", metavar="KEY=GLOB", help="Keep matching cells (and clean ones): attack=fgsm.")
    ] = [],
    plugin: Plugins = [],
    external: Annotated[
        list[Path], typer.Option("--external", help="Folder of adversarial audio, judged as an attack.")
    ] = [],
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one a core.")] = 0,
    scheduler: Annotated[str, typer.Option(help="Address of a running Dask scheduler.")] = "",
    device: Annotated[Device, typer.Option(help="Where models run.")] = Device.auto,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the jobs, do none; but the corpus is prepared.")
    ] = False,
) -> None:
    """Run a suite and write its results and boards.

    Exit code: 0 all cells scored, 3 some jobs failed, 2 unusable input, 130 interrupted.
    """
    from advser.run import Request, carry_out, prepare
    from advser.runner import Workers

    console = _console()
    where = {name: Path(path) for name, path in _pairs("--data", data, "CORPUS=DIR").items()}
    pool = Workers(workers, scheduler, _device(device), tuple(path.absolute() for path in plugin))
    request = Request(
        suite, store or _default_store(), where, out, changes, _pairs("--only", only, "KEY=GLOB"), pool, external
    )
    prepared = prepare(request)
    if dry_run:
        _list_jobs(prepared, console)
        return
    report = carry_out(request, prepared, _console(errors=True))
    _report(report, console)
    if failed := int((report.results.table["status"] == "failed").sum()):
        _console(errors=True).print(f"{failed} of {len(report.results.table)} figures failed", highlight=False)
    if failed or report.failures:
        raise typer.Exit(EXIT_FAILED_CELLS)


def _device(device: Device) -> str:
    import torch

    if device is Device.cuda and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is available to torch; allowed here: cpu")
    if device is Device.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device.value


def _list_jobs(prepared: Prepared, console: Console) -> None:
    waiting = {job.key: job for job in prepared.waiting}
    listed: set[str] = set()
    for part in prepared.parts:
        new = {key: job for key, job in part.plan.jobs.items() if key not in listed}
        if name := part.plan.suite.part:
            console.print(f"part {name}" + ("" if new else ": nothing but what is listed above"), soft_wrap=True)
        for key, job in new.items():
            state = "to do " if key in waiting else "cached"
            console.print(f"{state}  {key[:12]}  {job.title}", markup=False, soft_wrap=True)
        listed |= {*new}
    kinds = Counter(job.title.partition(" ")[0] for job in waiting.values())
    told = f" ({', '.join(f'{number} {kind}' for kind, number in kinds.items())})" if waiting else ""
    cells = f"{prepared.cells} cells, {len(prepared.jobs)} jobs, {len(waiting)} to do{told}"
    console.print(cells, markup=False, soft_wrap=True)


def _report(report: Report, console: Console) -> None:
    from advser.leaderboards.boards import BOARDS
    from advser.leaderboards.exhibits import tables
    from advser.leaderboards.render import render

    if report.written:
        from advser.leaderboards.write import write_all

        write_all(report.results, report.directory)
    said = report.results.notes
    for board in (*(build(report.results) for build in BOARDS.values()), *tables(report.results).values()):
        own = replace(board, notes=tuple(note for note in board.notes if note not in said))
        console.print(render(own, "terminal"), markup=False, soft_wrap=True)
        console.print()
    for note in said:
        console.print(note, markup=False)
    console.print(f"{report.computed} jobs done; results in {report.directory}", markup=False, soft_wrap=True)
    for failure in report.failures:
        _console(errors=True).print(f"failed: {failure.reason}", markup=False, soft_wrap=True)


@app.command(name="list")
def list_plugins(
    kind: Annotated[str, typer.Argument(help="models, attacks, defenses, corpora, suites, metrics or transcribers.")],
    plugin: Plugins = [],
) -> None:
    """List the plugins of one kind, or the shipped suites."""
    from advser.registry import load_plugin_file

    for path in plugin:
        load_plugin_file(path)
    if kind == "suites":
        from advser.suite import load, shipped

        rows = [(name, load(name).title) for name in shipped()]
    elif kind in REGISTRIES:
        registry = REGISTRIES[kind]
        rows = [(name, registry.origin(name).summary) for name in registry]
    else:
        allowed = [*REGISTRIES, "suites"]
        raise InputError(f"list {kind}: allowed: {', '.join(allowed)}{did_you_mean(kind, allowed)}")
    width = max((len(name) for name, _ in rows), default=0)
    for name, summary in rows:
        _console().print(f"{name:<{width}}  {summary}", markup=False, soft_wrap=True)


@app.command()
def show(
    kind: Annotated[str, typer.Argument(help="model, attack, defense, corpus, metric, transcriber or suite.")],
    name: Annotated[str, typer.Argument(help="The plugin's name.")],
    plugin: Plugins = [],
) -> None:
    """Show a plugin: where it is defined, its parameters with units, its source; of a suite, its YAML."""
    import inspect

    from tabulate import tabulate

    from advser.facts import facts
    from advser.parameters import describe
    from advser.registry import load_plugin_file

    for path in plugin:
        load_plugin_file(path)
    if kind == "suite":
        from advser.suite import source

        sys.stdout.write(source(name))
        return
    if kind not in BY_KIND:
        allowed = [*BY_KIND, "suite"]
        raise InputError(f"show {kind}: allowed: {', '.join(allowed)}{did_you_mean(kind, allowed)}")
    found = BY_KIND[kind].get(name)
    print_line = _console().print
    print_line(f"{kind} {name}\n{BY_KIND[kind].origin(name)}\n", markup=False, soft_wrap=True)
    print_line(inspect.getdoc(found) or "", markup=False, soft_wrap=True)
    for heading, told in facts(found):
        print_line(f"\n{heading}: {told}", markup=False, soft_wrap=True)
    rows = [(p.name, p.type, p.default, p.unit, p.about) for p in describe(found)]
    if rows:
        table = tabulate(rows, headers=["parameter", "type", "default", "unit", "about"])
        print_line(f"\n{table}", markup=False, soft_wrap=True)


@app.command()
def check(
    kind: Annotated[str, typer.Argument(help="attack, defense, model or metric.")],
    name: Annotated[str, typer.Argument(help="The plugin's name.")],
    params: Annotated[list[str], typer.Option("--param", metavar="KEY=VALUE", help="A parameter; VALUE is YAML.")] = [],
    store: Annotated[Path | None, typer.Option(help="Artefact store.  [default: $ADVSER_STORE or a cache]")] = None,
    plugin: Plugins = [],
) -> None:
    """Try a plugin in half a minute: contract, then the suite 'mock' with its audit.

    Exit code: 0 nothing found, 1 something to mend or to explain, 2 unusable input.
    """
    from advser.changes import parsed
    from advser.check import check as found
    from advser.registry import load_plugin_file

    for path in plugin:
        load_plugin_file(path)
    pairs = _pairs("--param", params, "KEY=VALUE")
    given = {key: parsed(value, f"--param {key}={value}") for key, value in pairs.items()}
    wrong = 0
    for finding in found(kind, name, given, store or _default_store(), tuple(path.absolute() for path in plugin)):
        wrong += bool(finding.wrong)
        told = f"note   {finding.part}: {finding.note}" if finding.note else f"ok     {finding.part}"
        told = f"MEND   {finding.part}: {finding.wrong}" if finding.wrong else told
        _console().print(told, markup=False, soft_wrap=True)
    _console().print(f"{wrong} to mend or to explain in {BY_KIND[kind].origin(name)}", markup=False, soft_wrap=True)
    if wrong:
        raise typer.Exit(EXIT_FOUND)


@app.command()
def board(
    results: Annotated[Path, typer.Argument(help="A results folder.")],
    by: Annotated[str, typer.Option(help="attacks, defenses, models, transfer, or a table of the suite.")] = "attacks",
    format: Annotated[Format, typer.Option(help="How to write it.")] = Format.terminal,  # noqa: A002
    where: Annotated[list[str], typer.Option("--where", metavar="KEY=GLOB", help="Rows to keep.")] = [],
    metrics: Annotated[str, typer.Option(metavar="NAME,…", help="Metrics to show, in this order; all if empty.")] = "",
    columns: Annotated[str, typer.Option(metavar="NAME,…", help="Columns to show, as CSV names them.")] = "",
    pivot: Annotated[str, typer.Option(metavar="NAME", help="Column whose values stand side by side.")] = "",
    decimals: Annotated[str, typer.Option(metavar="N or NAME=N,…", help="Digits after the point.")] = "",
    bold: Annotated[bool, typer.Option(help="Mark the best, and all that tie with it.")] = True,
    intervals: Annotated[bool, typer.Option(help="Show intervals, of figures and ranks.")] = True,
    notes: Annotated[bool, typer.Option(help="Show notes; marks are always explained.")] = True,
    caption: Annotated[str, typer.Option(help="What stands above it.  [default: what it shows, and its facts]")] = "",
    label: Annotated[str, typer.Option(help="What LaTeX refers to it by.  [default: tab:NAME]")] = "",
) -> None:
    """Print one board of a results folder."""
    from advser.leaderboards.boards import BOARDS
    from advser.leaderboards.exhibits import tables
    from advser.leaderboards.render import render
    from advser.leaderboards.shape import Shape, shaped
    from advser.results import Results, select, with_metrics

    chosen = select(Results.load(results), _pairs("--where", where, "KEY=GLOB"))
    if metrics:
        chosen = with_metrics(chosen, metrics.split(","))
    built = BOARDS[by](chosen) if by in BOARDS else tables(chosen).get(by)
    if built is None:
        raise InputError(f"--by {by}: allowed: {', '.join([*BOARDS, *tables(chosen)])}")
    names = tuple(name for name in columns.split(",") if name)
    shape = Shape(names, pivot, _decimals(decimals), bold, intervals, notes, caption, label)
    sys.stdout.write(f"{render(shaped(built, shape), format.value)}\n")


def _decimals(text: str) -> dict[str, int]:
    """Read ``3``, or ``uar=2,pesq=1``; the empty name stands for all columns."""
    found = {}
    for part in filter(None, text.split(",")):
        name, _, number = part.rpartition("=")
        if not (number.isdecimal() and int(number) <= MOST_DECIMALS):
            raise InputError(f"--decimals {part}: found '{number}', allowed: 0 to {MOST_DECIMALS}")
        found[name] = int(number)
    return found


@app.command()
def submit(
    results: Annotated[Path, typer.Argument(help="A results folder.")],
    plugin: Plugins = [],
    out: Annotated[Path | None, typer.Option(help="File to write.  [default: the folder's name and .zip]")] = None,
) -> None:
    """Pack the results, suite and plugin files of a run into one file that `verify` can run again."""
    from advser.submission import submit as packed

    file = packed(results, plugin, out or Path(f"{results.resolve().name}.zip"))
    _console().print(f"{file} written: results, suite and {len(plugin)} plugin files", markup=False, soft_wrap=True)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="What `submit` wrote. Its plugin files are run.")],
    data: Annotated[list[str], typer.Option("--data", metavar="CORPUS=DIR", help="Where a corpus is.")] = [],
    out: Annotated[Path | None, typer.Option(help="Results folder.  [default: results/<file>-verified]")] = None,
    store: Annotated[Path | None, typer.Option(help="Artefact store.  [default: one for this run alone]")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one a core.")] = 0,
    scheduler: Annotated[str, typer.Option(help="Address of a running Dask scheduler.")] = "",
    device: Annotated[Device, typer.Option(help="Where models run.")] = Device.auto,
) -> None:
    """Run a submission again and print claimed beside verified figures.

    Exit code: 0 every claimed figure is the same or within the verified interval, with ranks and flags to match, 1 not
    so, 2 unusable input.
    """
    from tempfile import TemporaryDirectory

    from advser.runner import Workers
    from advser.submission import unpack
    from advser.submission import verify as again

    where = {name: Path(path) for name, path in _pairs("--data", data, "CORPUS=DIR").items()}
    pool = Workers(workers, scheduler, _device(device))
    into = out or Path("results") / f"{file.stem}-verified"
    with TemporaryDirectory(prefix="advser-verify-") as made:
        folder = Path(made)
        claim = unpack(file, folder / "claim")
        found = again(claim, where, store or folder / "store", into, pool, _console(errors=True))
    _console().print(_beside(found), markup=False, soft_wrap=True)
    if not found.confirmed:
        raise typer.Exit(EXIT_FOUND)


def _beside(found: Verified) -> str:
    """Return claimed beside verified figures, of the first metric and of whatever differs, and a summary."""
    from tabulate import tabulate

    figures = found.figures
    if figures.empty:
        return "no figures, claimed or verified"
    telling = figures[(figures["metric"] == figures["metric"].iloc[0]) | (figures["outcome"] != "same")]
    columns = ["part", "model", "defense", "attack", "domain", "epsilon", "metric", "claimed", "verified", "outcome"]
    told = [name for name in columns if name in ("metric", "claimed", "verified") or figures[name].nunique() > 1]
    table = tabulate(telling[told].fillna("").values.tolist(), headers=told, floatfmt=".4f")
    counts = figures["outcome"].value_counts()
    summary = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    lines = [table, f"{len(figures)} figures: {summary}; {found.ranks} ranks differ"]
    lines += [f"flags that the submission does not tell: {', '.join(found.flags)}"] * bool(found.flags)
    return "\n".join([*lines, f"ran {found.suite}, {found.jobs} jobs done; results in {found.directory}"])


@app.command()
def compare(
    base: Annotated[Path, typer.Argument(help="A results folder: what is compared with.")],
    new: Annotated[Path, typer.Argument(help="A results folder of the same protocol: what is judged.")],
    fail_on: Annotated[
        list[str],
        typer.Option(metavar="METRIC=DELTA", help="Largest change for the worse that passes: uar=-0.02, wer=0.05."),
    ] = [],
    where: Annotated[list[str], typer.Option("--where", metavar="KEY=GLOB", help="Rows to compare.")] = [],
    level: Annotated[
        float, typer.Option(min=0, max=1, help="Chance of a false alarm; 1: the tolerance alone decides.")
    ] = 0.05,
    format: Annotated[ComparisonFormat, typer.Option(help="How to write it.")] = ComparisonFormat.terminal,  # noqa: A002
) -> None:
    """Tell what moved between two results, and whether it is a regression.

    A figure is a regression if it is worse by more than its tolerance, and a test paired by clip tells this from
    chance. Without --fail-on all metrics that have such a test are gated, with the tolerance 0.

    Exit code: 0 same, better, or told from chance by no test; 1 a regression, or a gated figure is lost; 2 unusable
    input, such as two protocols.
    """
    from advser.leaderboards.changes import board, junit, lines, workflow_commands
    from advser.leaderboards.render import render
    from advser.regression import compare as compared
    from advser.regression import gates_of
    from advser.results import Results, select

    kept = _pairs("--where", where, "KEY=GLOB")
    before, after = (select(Results.load(folder), kept) for folder in (base, new))
    gates = gates_of(before, _pairs("--fail-on", fail_on, "METRIC=DELTA"))
    comparison = compared(before, after, gates, level)
    found = lines(comparison, before, after)
    told = board(comparison, found, _gated(fail_on, level))
    if format is ComparisonFormat.junit:
        sys.stdout.write(f"{junit(comparison, found)}\n")
    elif format is ComparisonFormat.github:
        sys.stdout.write(f"{workflow_commands(found)}\n")
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(f"{render(told, 'markdown')}\n")
    else:
        sys.stdout.write(f"{render(told, format.value)}\n")
    if comparison.failures:
        raise typer.Exit(EXIT_FOUND)


def _gated(fail_on: list[str], level: float) -> str:
    """Return in words what `compare` gates."""
    gates = f"at most {', '.join(fail_on)}" if fail_on else "no change for the worse, of all metrics that have a test"
    test = f"paired test by clip, p ≤ {level:g} over all gated figures" if level < 1 else "no test"
    return f"Gate: {gates}; {test}."


@app.command()
def draw(results: Annotated[Path, typer.Argument(help="A results folder.")]) -> None:
    """Write the boards, figures and page of a results folder again, from its tables."""
    from advser.leaderboards.write import write_all
    from advser.results import Results

    written = write_all(Results.load(results), results)
    _console().print(f"{len(written)} files written in {results}", markup=False, soft_wrap=True)


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
