"""AdvSER in Python: ``advser.run``, ``advser.load``, ``advser.compare``; what is heavy is imported when it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from advser.leaderboards.boards.board import Board
    from advser.results.folder import Results
    from advser.scoring.differences import Comparison


@dataclass(frozen=True, eq=False)
class Run:
    """A results folder, shown in a notebook by its board of attacks.

    Attributes:
        directory: where it is.
        results: its tables (`advser.results.Results`).
    """

    directory: Path
    results: Results

    @property
    def table(self) -> pd.DataFrame:
        """One row a cell and metric, as ``docs/results.md`` describes it."""
        return self.results.table

    @property
    def examples(self) -> pd.DataFrame:
        """One row a cell and clip; empty in published results."""
        return self.results.examples

    @property
    def failures(self) -> list[Any]:
        """What failed, as ``run.json`` tells it."""
        return list(self.results.run["failures"])

    def board(
        self, by: str = "attacks", *, where: Mapping[str, str | float] | None = None, metrics: Sequence[str] = ()
    ) -> pd.DataFrame:
        """Return a board as a table: texts, and figures as numbers, NaN where there is none.

        Columns are called as in CSV; the title, the facts and the notes are in ``attrs``; sections are the index.

        Args:
            by: ``leaderboard``, ``attacks``, ``defenses``, ``models``, ``transfer``, ``audit``, or a table of the
                suite.
            where: key → glob; the rows to keep.
            metrics: the metrics to show, in this order; none: all.

        Raises:
            InputError: if there is no such board, key or metric, or nothing matches.
        """
        import pandas as pd

        built = built_board(self.results, by, where or {}, metrics)
        columns = {
            column.key: [cell.value if column.measured else cell for cell in built.frame[column.key]]
            for column in built.columns
        }
        index = pd.Index(built.sections, name=built.section_title) if built.sectioned else None
        frame = pd.DataFrame(columns, index=index)
        frame.attrs = {"title": built.title, "facts": list(built.facts), "notes": list(built.notes)}
        return frame

    def figure(self, metric: str, **where: str | float) -> float:
        """Return the one figure of a metric on the rows that match: ``figure("uar", defense="none", attack="none")``.

        Anchors match only if ``model`` names one.

        Raises:
            InputError: if there is no such metric or key, or no row.
            ValueError: if several rows match, or the figure was not measured.
        """
        from advser.errors import InputError, did_you_mean
        from advser.results.schema import CHANCE_BASELINES
        from advser.results.selection import select

        known = list(dict.fromkeys(self.table["metric"]))
        if metric not in known:
            raise InputError(f"metric '{metric}': allowed: {', '.join(known)}{did_you_mean(metric, known)}")
        table = select(self.results, where).table
        meant = table["model"].isin(CHANCE_BASELINES) == (where.get("model") in CHANCE_BASELINES)
        rows = table[meant & (table["metric"] == metric)]
        if len(rows) != 1 or rows["status"].item() != "ok":
            told = ", ".join(f"{key}={value}" for key, value in where.items())
            reason = rows["reason"].item() if len(rows) == 1 else f"{len(rows)} rows"
            raise ValueError(f"{metric} of {told}: got {reason}, expected one figure")
        return float(rows["value"].item())

    def plot(
        self,
        name: str,
        *,
        where: Mapping[str, str | float] | None = None,
        width: float | None = None,
        heading: bool = True,
        out: str | Path | None = None,
    ) -> Figure:
        """Return a figure, as ``figures/`` holds it; with ``out`` write it too, as ``advser figure`` does.

        Args:
            name: ``METRIC-against-epsilon``, ``METRIC-against-steps``, or a figure of the suite.
            where: key → glob; the rows to keep.
            width: in inches, with letters for print; None: as on the page.
            heading: whether it says what it shows.
            out: a .pdf, .svg or .png, in letters that publishers take and the same for the same results, which
                Matplotlib's own ``savefig`` does not see to.

        Raises:
            InputError: if there is no such figure or key, nothing matches, the width is none for a figure, or the
                suffix none of these.
        """
        return built_figure(self.results, self.directory, name, where or {}, width, heading, Path(out) if out else None)

    def compare(self, base: Run | Path | str, fail_on: Mapping[str, float] | None = None) -> Comparison:
        """Return what moved since ``base``, as `compare` does."""
        return compare(base, self, fail_on)

    def _repr_html_(self) -> str:
        from advser.leaderboards.page.site import board_html

        return board_html(built_board(self.results, "attacks", {}, ()))


def run(
    suite: str | Path = "demo",
    *,
    data: Mapping[str, str | Path] | None = None,
    out: str | Path | None = None,
    store: str | Path | None = None,
    changes: Mapping[str, object] | None = None,
    only: Mapping[str, str] | None = None,
    plugins: Sequence[str | Path] = (),
    external: Sequence[str | Path] = (),
    workers: int = 0,
    scheduler: str = "",
    device: str = "auto",
) -> Run:
    """Run a suite, and write its results and boards: what ``advser run`` does.

    Attacks that are registered by ``@advser.attack`` in this notebook or script join it.

    Args:
        suite: a shipped suite's name, or a YAML file.
        data: corpus → folder.
        out: the results folder.
        store: the artefact store.
        changes: as ``--set``: ``{"training.iterations": 100}``.
        only: as ``--only``: key → glob.
        plugins: plugin files.
        external: folders of adversarial audio.
        workers: worker processes; 0: one a core.
        scheduler: address of a running Dask scheduler.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: if anything of the input is unusable. What fails later is in `Run.failures`.
    """
    from rich.console import Console

    from advser.attacks.notebook import notebook_files
    from advser.execution.cluster import Workers, device_named
    from advser.execution.execute import carry_out
    from advser.execution.prepare import prepare
    from advser.execution.request import Request
    from advser.leaderboards.write import write_all
    from advser.store.artefacts import default_store

    _refuse_texts("a mapping, as {'key': 'value'}", data=data, changes=changes, only=only)
    _refuse_texts("a list, as ['one', 'other']", plugins=plugins, external=external)
    files = (*(Path(path).absolute() for path in plugins), *notebook_files())
    request = Request(
        str(suite),
        Path(store) if store else default_store(),
        {name: Path(path) for name, path in (data or {}).items()},
        Path(out) if out else None,
        [f"{key}={json.dumps(value)}" for key, value in (changes or {}).items()],
        only or {},
        Workers(workers, scheduler, device_named(device), files),
        [Path(path) for path in external],
    )
    report = carry_out(request, prepare(request), Console(stderr=True, highlight=False))
    if report.written:
        write_all(report.results, report.directory)
    return Run(report.directory, report.results)


def load(directory: str | Path) -> Run:
    """Read a results folder.

    Raises:
        InputError: if it is none, or is of a newer version.
    """
    from advser.results.folder import Results

    return Run(Path(directory), Results.load(directory))


def compare(base: Run | Path | str, new: Run | Path | str, fail_on: Mapping[str, float] | None = None) -> Comparison:
    """Return what moved between two runs, as ``advser compare`` tells it.

    Args:
        base: what is compared with: a run, or its results folder.
        new: what is judged.
        fail_on: metric → the largest change for the worse that passes, with its sign (``{"uar": -0.02}``); none: no
            change for the worse of any metric that has a test.

    Raises:
        InputError: if the two cannot be compared.
    """
    from advser.scoring.regression import compare as compared
    from advser.scoring.regression import gates_of

    _refuse_texts("a mapping, as {'uar': -0.02}", fail_on=fail_on)
    before, after = (one if isinstance(one, Run) else load(one) for one in (base, new))
    gates = gates_of(before.results, {name: str(delta) for name, delta in (fail_on or {}).items()})
    return compared(before.results, after.results, gates)


def built_board(results: Results, by: str, where: Mapping[str, str | float], metrics: Sequence[str]) -> Board:
    """Return a board of results, of which some rows and metrics are chosen.

    Raises:
        InputError: if there is no such board, key or metric, or nothing matches.
    """
    from advser.errors import InputError, did_you_mean
    from advser.leaderboards.boards.catalogue import BOARDS
    from advser.leaderboards.boards.exhibits import tables
    from advser.results.selection import select, with_metrics

    _refuse_texts("a mapping, as {'attack': 'fgsm'}", where=where)
    _refuse_texts("a list, as ['uar', 'wer']", metrics=metrics)
    chosen = select(results, where)
    if metrics:
        chosen = with_metrics(chosen, metrics)
    built = BOARDS[by](chosen) if by in BOARDS else tables(chosen).get(by)
    if built is None:
        names = [*BOARDS, *tables(chosen)]
        raise InputError(f"--by {by}: allowed: {', '.join(names)}{did_you_mean(by, names)}")
    if by in ("attacks", "defenses") and built.frame.empty and (chosen.table["access"] == "transfer").any():
        raise InputError(f"--by {by}: got transferred examples only, expected --by transfer, which shows them")
    return built


def _refuse_texts(form: str, **arguments: object) -> None:
    """Refuse a text or path where several things are asked for; a text's letters would be taken for them.

    Raises:
        InputError: if one is given.
    """
    from advser.errors import InputError

    for name, found in arguments.items():
        if isinstance(found, (str, Path)):
            raise InputError(f"{name}: got the text '{found}', expected {form}")


def built_figure(
    results: Results,
    directory: Path,
    name: str,
    where: Mapping[str, str | float],
    width: float | None,
    heading: bool,
    out: Path | None = None,
) -> Figure:
    """Return a figure of results, of which some rows are chosen, and write it where ``out`` says.

    Raises:
        InputError: if there is no such figure or key, nothing matches, the width is none for a figure, or ``out`` has
            another suffix than figures have.
    """
    from advser.errors import InputError, did_you_mean
    from advser.leaderboards.figures.drawing import FORMATS, HIGHEST, Paper, save
    from advser.leaderboards.figures.spectrograms import read_samples
    from advser.leaderboards.write import drawings
    from advser.results.selection import select

    _refuse_texts("a mapping, as {'defense': 'none'}", where=where)
    suffix = out.suffix.removeprefix(".") if out else ""
    if out and suffix not in FORMATS:
        raise InputError(f"{out}: got suffix '{out.suffix}', expected {', '.join(f'.{one}' for one in FORMATS)}")
    paper = Paper(width, heading)
    drawn = drawings(select(results, where), directory, read_samples(directory), paper)
    if name not in drawn:
        why = "; a curve needs attacks of two budgets, or two numbers of steps" if "-against-" in name else ""
        near = did_you_mean(name, list(drawn))
        raise InputError(f"figure '{name}': allowed here: {', '.join(drawn) or 'none'}{near or why}")
    with paper.style():
        figure = drawn[name]()
    if figure is None:
        raise InputError(f"figure '{name}': got nothing to draw, expected cells with figures (--where keeps none)")
    height = figure.get_size_inches()[1]
    if width and height > HIGHEST:
        raise InputError(f"figure '{name}': {height:.1f} inches high, expected {HIGHEST:g} (--where keeps fewer rows)")
    if out:
        with paper.style():
            save(figure, out.parent, out.stem, [suffix])
    return figure
