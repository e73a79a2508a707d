"""Commands on submissions: `advser submit`, `advser verify`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advser.commands.usage import EXIT_FINDINGS, Device, Plugins, console, corpora
from advser.errors import InputError

if TYPE_CHECKING:
    from advser.execution.verification import Verified


def submit(
    results: Annotated[Path, typer.Argument(help="A results folder.")],
    plugin: Plugins = [],
    out: Annotated[Path | None, typer.Option(help="File to write.  [default: FOLDER.zip]")] = None,
) -> None:
    """Pack the results, suite and plugin files of a run into a file that `verify` can run again."""
    from advser.execution.submission import submit as packed
    from advser.execution.verification import suite_description
    from advser.results.folder import Results

    file = packed(results, plugin, out or Path(f"{results.resolve().name}.zip"))
    files = f"plugin files: {', '.join(path.name for path in plugin) or 'none'}"
    suite = suite_description(Results.load(results))
    line = f"{file} written: results of {suite}; {files}\nTry it: advser verify {file}"
    console().print(line, markup=False, soft_wrap=True)


def verify(
    file: Annotated[Path, typer.Argument(help="A file that `submit` wrote. Its plugin files are run.")],
    data: Annotated[list[str], typer.Option("--data", metavar="CORPUS=DIR", help="Folder of a corpus.")] = [],
    out: Annotated[Path | None, typer.Option(help="Results folder.  [default: results/<file>-verified]")] = None,
    store: Annotated[Path | None, typer.Option(help="Artefact store.  [default: a temporary folder]")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.")] = 0,
    scheduler: Annotated[str, typer.Option(help="Address of a running Dask scheduler.")] = "",
    device: Annotated[Device, typer.Option(help="Device of the models.")] = Device.auto,
    show: Annotated[bool, typer.Option("--list", help="Print the contents of the file; run nothing.")] = False,
) -> None:
    """Run a submission again and print claimed beside verified figures.

    Exit code: 0 confirmed: every claimed figure is the same or within the verified interval, unless the same answers of
    the model give another, and ranks and flags match; 1 not confirmed; 2 unusable input.
    """
    from tempfile import TemporaryDirectory

    from advser.execution.cluster import Workers, device_named
    from advser.execution.contents import contents
    from advser.execution.submission import unpack
    from advser.execution.verification import verify as again
    from advser.leaderboards.boards.texts import without_controls

    folders = corpora(data)
    pool = Workers(workers, scheduler, device_named(device))
    into = out or Path("results") / f"{file.stem}-verified"
    with TemporaryDirectory(prefix="advser-verify-") as temporary, _named(Path(temporary, "claim"), file):
        folder = Path(temporary)
        claim = unpack(file, folder / "claim")
        if show:
            console().print("\n".join(contents(file, claim)), markup=False, soft_wrap=True)
            return
        console(errors=True).print(_warning(file), markup=False, soft_wrap=True)
        verified = again(claim, folders, store or folder / "store", into, pool)
    console().print(without_controls(_report(verified)), markup=False, soft_wrap=True)
    if not verified.confirmed:
        raise typer.Exit(EXIT_FINDINGS)


@contextmanager
def _named(folder: Path, file: Path) -> Iterator[None]:
    """Name the submission, in place of the folder that it was unpacked into, in messages on bad input."""
    try:
        yield
    except InputError as error:
        message = str(error).replace(f"results {folder}:", f"{file}:").replace(f"results {folder}/", f"{file}: ")
        raise InputError(message.replace(f"{folder}/", f"{file}: ").replace(str(folder), str(file))) from None


def _warning(file: Path) -> str:
    """Return what is about to run, and what holds it."""
    from advser.execution.jobs.confinement import by_kernel

    held = (
        "confined by the kernel to its own results, and to the corpora, which it can only read; it can use the network"
        if by_kernel()
        else "not confined on this system: it can do whatever Python can"
    )
    return f"{file}: runs its submitter's code, {held}"


def _report(verified: Verified) -> str:
    """Return claimed beside verified figures of the first metric, all other figures that differ, and a summary."""
    from tabulate import tabulate

    figures = verified.figures
    if figures.empty:
        return "no figures, claimed or verified"
    rows = figures[(figures["metric"] == figures["metric"].iloc[0]) | (figures["outcome"] != "same")]
    columns = ["part", "model", "defense", "attack", "domain", "epsilon", "metric", "claimed", "verified", "outcome"]
    shown = [name for name in columns if name in ("metric", "claimed", "verified") or figures[name].nunique() > 1]
    table = tabulate(rows[shown].fillna("").values.tolist(), headers=shown, floatfmt=".4f")
    counts = figures["outcome"].value_counts()
    summary = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    lines = [table, f"{len(figures)} figures: {summary}; {verified.ranks} ranks differ"]
    lines += [f"flags that the submission does not report: {', '.join(verified.flags)}"] * bool(verified.flags)
    if len({*verified.versions}) > 1:
        lines.append("claimed with AdvSER {}, verified with {}".format(*verified.versions))
    return "\n".join([*lines, f"ran {verified.suite}, {verified.jobs} jobs done; results in {verified.directory}"])
