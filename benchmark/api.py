"""AdvSER in Python: ``advser.run``, ``advser.load``, ``advser.compare``. Slow libraries are imported on first use."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from advser.execution.request import Request
    from advser.leaderboards.boards.board import Board
    from advser.results.folder import Results
    from advser.scoring.differences import Comparison


@dataclass(frozen=True, eq=False)
class Run:
    """A results folder. A notebook shows its board of attacks.

    Attributes:
        directory: the folder.
        results: its tables (`advser.results.Results`).
    """

    directory: Path
    results: Results

    @property
    def table(self) -> pd.DataFrame:
        """One row per cell and metric (``docs/results.md``)."""
        return self.results.table

    @property
    def examples(self) -> pd.DataFrame:
        """One row per cell and clip; empty in published results."""
        return self.results.examples

    @property
    def failures(self) -> list[Any]:
        """The failed jobs, as in ``run.json``."""
        return list(self.results.run["failures"])

    def __repr__(self) -> str:
        """Return a summary in a few lines: suite, folder, entries, failures, flags of the audit."""
        from advser.results.schema import CLEAN
        from advser.results.terms import CHANCE_BASELINES

        victims = self.table[~self.table["model"].isin(CHANCE_BASELINES)]
        attacks = victims["attack"][victims["attack"] != CLEAN]
        columns = {"models": victims["model"], "defenses": victims["defense"], "attacks": attacks}
        flags = Counter(flag["check"] for flag in self.results.run.get("audit", {}).get("flags", []))
        lines = [f"Run of suite '{self.results.run.get('suite', {}).get('name', '?')}' in {self.directory}"]
        lines += [f"  {name}: {', '.join(dict.fromkeys(values)) or 'none'}" for name, values in columns.items()]
        lines.append(f"  failures: {len(self.failures)}")
        lines.append(f"  flags: {', '.join(f'{number} {check}' for check, number in flags.items()) or 'none'}")
        return "\n".join(lines)

    def board(
        self, by: str = "attacks", *, where: Mapping[str, str | float] | None = None, metrics: Sequence[str] = ()
    ) -> pd.DataFrame:
        """Return a board as a table of texts and numbers; missing figures are NaN.

        Columns have the names of CSV. ``attrs`` holds the title, the facts and the notes; the index holds the sections.

        Args:
            by: ``leaderboard``, ``attacks``, ``defenses``, ``models``, ``transfer``, ``audit``, or a table of the
                suite.
            where: key → glob; the rows to select.
            metrics: the metrics to show, in this order; none: all.

        Raises:
            InputError: if there is no such board, key or metric, or no row matches.
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
        """Return the single matching figure of a metric: ``figure("uar", defense="none", attack="none")``.

        Chance baselines match only if ``model`` names one.

        Raises:
            InputError: if there is no such metric or key, or no row matches.
            ValueError: if several rows match, or the figure was not measured.
        """
        from advser.errors import InputError, did_you_mean
        from advser.results.selection import select
        from advser.results.terms import CHANCE_BASELINES

        names = list(dict.fromkeys(self.table["metric"]))
        if metric not in names:
            hint = did_you_mean(metric, names)
            raise InputError(f"metric '{metric}': got no such metric, expected {', '.join(names)}{hint}")
        table = select(self.results, where).table
        of_kind = table["model"].isin(CHANCE_BASELINES) == (where.get("model") in CHANCE_BASELINES)
        rows = table[of_kind & (table["metric"] == metric)]
        if len(rows) != 1 or rows["status"].item() != "ok":
            place = ", ".join(f"{key}={value}" for key, value in where.items())
            reason = rows["reason"].item() if len(rows) == 1 else f"{len(rows)} rows"
            raise ValueError(f"{metric} of {place}: got {reason}, expected one figure")
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
        """Return a figure of ``figures/``; with ``out`` also write it, as ``advser figure`` does.

        Args:
            name: ``METRIC-against-epsilon``, ``METRIC-against-steps``, or a figure of the suite.
            where: key → glob; the rows to select.
            width: width in inches, with fonts for print; None: as on the page.
            heading: whether to draw a heading.
            out: a .pdf, .svg or .png, with embedded fonts that publishers accept, and byte for byte the same for the
                same results. Matplotlib's own ``savefig`` ensures neither.

        Raises:
            InputError: if there is no such figure or key, no row matches, or the width or suffix is unusable.
        """
        return built_figure(self.results, self.directory, name, where or {}, width, heading, Path(out) if out else None)

    def compare(self, base: Run | Path | str, fail_on: Mapping[str, float] | None = None) -> Comparison:
        """Return the changes since ``base``, as `compare` does."""
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
    """Run a suite, and write its results and boards, as ``advser run`` does.

    Attacks that this notebook or script registers by ``@advser.attack`` join the suite.

    Args:
        suite: a shipped suite's name, or a YAML file.
        data: corpus → folder.
        out: the results folder.
        store: the artefact store.
        changes: as ``--set``: ``{"training.iterations": 100}``.
        only: as ``--only``: key → glob.
        plugins: plugin files.
        external: folders of adversarial audio.
        workers: worker processes; 0: one per core.
        scheduler: address of a running Dask scheduler.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: if any input is unusable. Later failures are in `Run.failures`.
    """
    from advser.attacks.notebook import notebook_files
    from advser.execution.cluster import Workers, device_named
    from advser.execution.request import Request
    from advser.leaderboards.write import fingerprint
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
        drawn_by=fingerprint(),
    )
    return _carried_out(request)


def _carried_out(request: Request) -> Run:
    from rich.console import Console

    from advser.execution.execute import carry_out
    from advser.execution.prepare import prepare
    from advser.leaderboards.write import write_all

    report = carry_out(request, prepare(request), Console(stderr=True, highlight=False))
    if report.written:
        write_all(report.results, report.directory)
    return Run(report.directory, report.results)


def load(directory: str | Path) -> Run:
    """Read a results folder.

    Raises:
        InputError: if it is no results folder, or of a newer version.
    """
    from advser.results.folder import Results

    return Run(Path(directory), Results.load(directory))


def compare(base: Run | Path | str, new: Run | Path | str, fail_on: Mapping[str, float] | None = None) -> Comparison:
    """Return the changes between two runs, as ``advser compare`` does.

    Args:
        base: the run to compare with, or its results folder.
        new: the run to judge, or its results folder.
        fail_on: metric → the largest change for the worse that passes, with its sign (``{"uar": -0.02}``); none: no
            change for the worse of any metric that has a test.

    Raises:
        InputError: if the two cannot be compared.
    """
    from advser.scoring.regression import compare as compared
    from advser.scoring.regression import gates_of

    _refuse_texts("a mapping, as {'uar': -0.02}", fail_on=fail_on)
    before, after = (run if isinstance(run, Run) else load(run) for run in (base, new))
    gates = gates_of(before.results, {name: str(delta) for name, delta in (fail_on or {}).items()})
    return compared(before.results, after.results, gates)


def built_board(results: Results, by: str, where: Mapping[str, str | float], metrics: Sequence[str]) -> Board:
    """Return a board of the selected rows and metrics.

    Raises:
        InputError: if there is no such board, key or metric, or no row matches.
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
        raise InputError(f"--by {by}: got no such board, expected {', '.join(names)}{did_you_mean(by, names)}")
    if by in ("attacks", "defenses") and built.frame.empty and (chosen.table["access"] == "transfer").any():
        raise InputError(f"--by {by}: got transferred examples only, expected --by transfer, which shows them")
    return built


def _refuse_texts(form: str, **arguments: object) -> None:
    """Raise InputError if an argument is a text or path instead of a collection: its letters would be the items."""
    from advser.errors import InputError

    for name, value in arguments.items():
        if isinstance(value, (str, Path)):
            raise InputError(f"{name}: got the text '{value}', expected {form}")


def built_figure(
    results: Results,
    directory: Path,
    name: str,
    where: Mapping[str, str | float],
    width: float | None,
    heading: bool,
    out: Path | None = None,
) -> Figure:
    """Return a figure of the selected rows, and write it to ``out`` if given.

    Raises:
        InputError: if there is no such figure or key, no row matches, the width gives too high a figure, or the suffix
            of ``out`` is unusable.
    """
    from advser.errors import InputError, did_you_mean
    from advser.leaderboards.figures.drawing import FORMATS, HIGHEST, Paper, save
    from advser.leaderboards.figures.spectrograms import read_samples
    from advser.leaderboards.write import drawings
    from advser.results.selection import select

    _refuse_texts("a mapping, as {'defense': 'none'}", where=where)
    suffix = out.suffix.removeprefix(".") if out else ""
    if out and suffix not in FORMATS:
        raise InputError(f"{out}: got suffix '{out.suffix}', expected {', '.join(f'.{name}' for name in FORMATS)}")
    paper = Paper(width, heading)
    drawn = drawings(select(results, where), directory, read_samples(directory), paper)
    if name not in drawn:
        why = "; a curve needs attacks with two budgets, or two numbers of steps" if "-against-" in name else ""
        hint = did_you_mean(name, list(drawn)) or why
        raise InputError(f"figure '{name}': got no such figure, expected here: {', '.join(drawn) or 'none'}{hint}")
    with paper.style():
        figure = drawn[name]()
    if figure is None:
        raise InputError(f"figure '{name}': got no figures to draw, expected cells that have them (see --where)")
    height = figure.get_size_inches()[1]
    if width and height > HIGHEST:
        raise InputError(
            f"figure '{name}': got a height of {height:.1f} inches, expected at most {HIGHEST:g} (select fewer rows by "
            "--where)"
        )
    if out:
        with paper.style():
            save(figure, out.parent, out.stem, [suffix])
    return figure
