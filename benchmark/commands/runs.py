"""`advser run`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advser.commands.usage import (
    EXIT_FAILED_CELLS,
    Device,
    Plugins,
    console,
    corpora,
    drawing_processes,
    drawing_progress,
    pairs,
)

if TYPE_CHECKING:
    from rich.console import Console

    from advser.execution.execute import Report
    from advser.execution.prepare import Prepared


def run(
    suite: Annotated[str, typer.Argument(help="A shipped suite (see 'advser list suites') or a YAML file.")] = "demo",
    data: Annotated[list[str], typer.Option("--data", metavar="CORPUS=DIR", help="Folder of a corpus.")] = [],
    out: Annotated[
        Path | None,
        typer.Option(help="Results folder.  [default: results/<suite>; with --set or --only results/<suite>-cut]"),
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Artefact store.  [default: $ADVSER_STORE or a cache]")] = None,
    changes: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change the suite: training.iterations=100.")
    ] = [],
    only: Annotated[
        list[str], typer.Option("--only", metavar="KEY=GLOB", help="Run matching and clean cells only: attack=fgsm.")
    ] = [],
    plugin: Plugins = [],
    external: Annotated[
        list[Path], typer.Option("--external", help="Folder of adversarial audio, evaluated as an attack.")
    ] = [],
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.")] = 0,
    scheduler: Annotated[str, typer.Option(help="Address of a running Dask scheduler.")] = "",
    device: Annotated[Device, typer.Option(help="Device of the models.")] = Device.auto,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds that a job may take; 0: as the suite says.")] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the jobs; do none but prepare the corpus.")] = False,
) -> None:
    """Run a suite and write its results and boards.

    Exit code: 0 all scored, 3 jobs failed, 2 unusable input, 130 interrupted, 143 ended by SIGTERM.
    """
    from advser.execution.cluster import Workers, device_named
    from advser.execution.request import Request
    from advser.store.artefacts import default_store
    from advser.suite.loading import load

    output = console()
    folders = corpora(data)
    pool = Workers(workers, scheduler, device, tuple(path.absolute() for path in plugin), timeout)
    request = Request(
        suite, store or default_store(), folders, out, changes, pairs("--only", only, "KEY=GLOB"), pool, external
    )
    # Load the suite before torch is imported, so that its errors are reported at once. The workers import it meanwhile.
    loaded = load(suite, changes)
    if not dry_run and not request.looks_finished(loaded):
        request.ready_workers()
    from advser.execution.execute import carry_out
    from advser.execution.prepare import prepare
    from advser.leaderboards.write import fingerprint

    request = replace(request, workers=replace(pool, device=device_named(device)), drawn_by=fingerprint())
    prepared = prepare(request)
    if dry_run:
        _list_jobs(prepared, output)
        return
    if prepared.waiting:
        request.ready_workers()
    report = carry_out(request, prepared, console(errors=True))
    _report(report, output)
    if failed := int((report.results.table["status"] == "failed").sum()):
        console(errors=True).print(f"{failed} of {len(report.results.table)} figures failed", highlight=False)
    if failed or report.failures:
        raise typer.Exit(EXIT_FAILED_CELLS)


def _list_jobs(prepared: Prepared, output: Console) -> None:
    waiting = {job.key: job for job in prepared.waiting}
    listed: set[str] = set()
    for part in prepared.parts:
        new = {key: job for key, job in part.plan.jobs.items() if key not in listed}
        if name := part.plan.suite.part:
            output.print(f"part {name}" + ("" if new else ": only jobs that are listed above"), soft_wrap=True)
        for key, job in new.items():
            state = "to do " if key in waiting else "cached"
            output.print(f"{state}  {key[:12]}  {job.title}", markup=False, soft_wrap=True)
        listed |= {*new}
    kinds = Counter(job.title.partition(" ")[0] for job in waiting.values())
    numbers = f" ({', '.join(f'{number} {kind}' for kind, number in kinds.items())})" if waiting else ""
    summary = f"{prepared.cells} cells, {len(prepared.jobs)} jobs, {len(waiting)} to do{numbers}"
    output.print(summary, markup=False, soft_wrap=True)


def _report(report: Report, output: Console) -> None:
    from advser.execution.request import PAGE
    from advser.leaderboards.boards.catalogue import BOARDS
    from advser.leaderboards.boards.exhibits import tables
    from advser.leaderboards.formats.render import render

    if report.written:
        from advser.leaderboards.write import write_all

        with drawing_progress() as on_step, drawing_processes() as processes:
            write_all(report.results, report.directory, on_step=on_step, processes=processes)
    notes = report.results.notes
    for board in (*(build(report.results) for build in BOARDS.values()), *tables(report.results).values()):
        own = replace(board, notes=tuple(note for note in board.notes if note not in notes))
        output.print(render(own, "terminal"), markup=False, soft_wrap=True)
        output.print()
    for note in notes:
        output.print(note, markup=False)
    summary = f"{report.computed} jobs done; results in {report.directory} (with boards, figures and {PAGE})"
    output.print(summary, markup=False, soft_wrap=True)
    for failure in report.failures:
        console(errors=True).print(f"failed: {failure.reason}", markup=False, soft_wrap=True)
