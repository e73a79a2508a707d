"""Results that others can run again: `advser submit`, `advser verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advser.commands.usage import EXIT_FOUND, Device, Plugins, console, corpora

if TYPE_CHECKING:
    from advser.execution.verification import Verified


def submit(
    results: Annotated[Path, typer.Argument(help="A results folder.")],
    plugin: Plugins = [],
    out: Annotated[Path | None, typer.Option(help="File to write.  [default: the folder's name and .zip]")] = None,
) -> None:
    """Pack the results, suite and plugin files of a run into one file that `verify` can run again."""
    from advser.execution.submission import submit as packed
    from advser.execution.verification import suite_told
    from advser.results.folder import Results

    file = packed(results, plugin, out or Path(f"{results.resolve().name}.zip"))
    files = f"plugin files: {', '.join(path.name for path in plugin) or 'none'}"
    told = f"{file} written: results of {suite_told(Results.load(results))}; {files}\nTry it: advser verify {file}"
    console().print(told, markup=False, soft_wrap=True)


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

    from advser.execution.cluster import Workers, device_named
    from advser.execution.submission import unpack
    from advser.execution.verification import verify as again

    where = corpora(data)
    pool = Workers(workers, scheduler, device_named(device))
    into = out or Path("results") / f"{file.stem}-verified"
    with TemporaryDirectory(prefix="advser-verify-") as made:
        folder = Path(made)
        claim = unpack(file, folder / "claim")
        found = again(claim, where, store or folder / "store", into, pool, console(errors=True))
    console().print(_beside(found), markup=False, soft_wrap=True)
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
    if len({*found.versions}) > 1:
        lines.append("claimed with AdvSER {}, verified with {}".format(*found.versions))
    return "\n".join([*lines, f"ran {found.suite}, {found.jobs} jobs done; results in {found.directory}"])
