"""Figures that a suite declares: a paper's curves and profiles, with measured and published values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advser.leaderboards.boards.board import Cell
from advser.leaderboards.boards.exhibits import distinguishing_keys, exhibits, picked, value_of
from advser.leaderboards.boards.rows import SETTING, Row, rows
from advser.leaderboards.figures.drawing import COLORS, SCREEN, Drawing, Paper, look
from advser.results.folder import Results
from advser.results.schema import value_text
from advser.suite.exhibits import Curves, Profile, PublishedCurve

_PANEL: Final = (3.3, 2.4)
"""Width and height of a panel, in inches."""

_VICTIM: Final = (*SETTING, "model", "defense")
"""Keys that the cells of one curve share, including its clean cell."""

_AXIS_NAMES: Final = {"epsilon": "ε"}
_WORDING: Final = {
    "seed": "seed {}",
    "defense": "defense {}",
    "delivery": "judged as {}",
    "labels": "{} labels",
    "epsilon": "ε = {:g}",
    "source_model": "crafted on {}",
    "source_defense": "crafted on defense {}",
}
_PUBLISHED_MARKERS: Final = "x+*1234|"
_PUBLISHED_COLORS: Final = ("black", "#6b6b6b")
_HATCHES: Final = ("", "//", "..", "xx")
"""Hatches of bars, one for each round of colours."""


def declared_figures(results: Results, paper: Paper) -> dict[str, Drawing]:
    """Return the declared curves and profiles: name → drawing."""
    every_row = rows(results)
    figures: dict[str, Drawing] = {}
    for declared in exhibits(results):
        if isinstance(declared, Curves):
            figures[declared.curves] = partial(curves, results, every_row, declared, paper)
        if isinstance(declared, Profile):
            figures[declared.profile] = partial(profile, results, every_row, declared, paper)
    return figures


def curves(results: Results, every_row: Sequence[Row], declared: Curves, paper: Paper = SCREEN) -> Figure | None:
    """Draw declared curves: a row of panels for each value of ``panels``, a column per metric.

    Bands are 95 % intervals; black markers without a line are published values. A curve has cells of a single victim,
    and one cell at each x: it is split by the keys that distinguish further cells. Cells without a figure of any metric
    are left out, and so are metrics without a figure in any cell; without metrics there is no figure (None).
    """
    with_x = [row for row in picked(every_row, declared.where) if isinstance(value_of(row, declared.x), int | float)]
    chosen = _with_figures(with_x, declared.metrics)
    metrics = [metric for metric in declared.metrics if _is_measured(chosen, metric)]
    if not metrics:
        return None
    groups = _grouped(chosen, declared.panels)
    series = _unambiguous(chosen, declared)
    numbers = {name: number for number, name in enumerate(_grouped(chosen, series))}
    clean_of: dict[tuple[Any, ...], list[Row]] = {}
    for row in every_row:
        if row.clean:
            clean_of.setdefault(row.values(_VICTIM), []).append(row)
    titles = list(dict.fromkeys(curve.title for curve in declared.published))
    drawn = [(panel, metric) for panel in groups for metric in metrics]
    # On the screen a panel's column shows its metric; in a paper, panels of a single metric fill the width.
    across = paper.across(len(groups) if paper.width and len(metrics) == 1 else len(metrics))
    figure = paper.panels(len(drawn), across, _PANEL)
    shared: Literal["none", "all", "col"] = "all" if len(metrics) == 1 else "col" if across == len(metrics) else "none"
    axes = figure.subplots(-(-len(drawn) // across), across, sharex=True, sharey=shared, squeeze=False)
    for number, ((panel, metric), place) in enumerate(zip(drawn, axes.flat, strict=False)):
        for name, of_series in _grouped(groups[panel], series).items():
            clean = _clean(clean_of, of_series[0], metric) if declared.clean else None
            _curve(place, name, numbers[name], _points(of_series, declared.x, metric, clean))
        for curve in declared.published:
            if curve.metric == metric and curve.panel in ("", panel):
                _published(place, curve, titles.index(curve.title))
        shown = results.metric(metric)
        if shared != "all" or number % across == 0:
            place.set_ylabel(f"{shown.title} ({shown.unit})" if shown.unit else shown.title)
        paper.title(place, across, panel)
        paper.shorten_ticks(place)
        if number + across >= len(drawn):
            x_label = declared.x_label or _AXIS_NAMES.get(declared.x, declared.x.removeprefix("params."))
            place.set_xlabel(paper.wrapped(x_label, across))
            place.tick_params(labelbottom=True)
    # After all panels are drawn, because setting the lower end of a shared axis fixes its upper end.
    for place in axes.flat[: len(drawn)]:
        place.set_ylim(bottom=0)
    for spare in axes.flat[len(drawn) :]:
        spare.remove()
    return paper.finished(figure, axes.flat[: len(drawn)], declared.title)


def _unambiguous(chosen: Sequence[Row], declared: Curves) -> list[str]:
    """Return the keys of a curve: those declared, and those that distinguish victims, or cells at the same x."""
    shown = [*declared.panels, *declared.series]
    victim = distinguishing_keys(chosen, shown, _VICTIM)
    return [*declared.series, *victim, *distinguishing_keys(chosen, [*shown, *victim, declared.x])]


def profile(results: Results, every_row: Sequence[Row], declared: Profile, paper: Paper = SCREEN) -> Figure | None:
    """Draw declared metrics side by side, with 95 % intervals: a group of bars for each series.

    A series of several cells is split into groups by the keys that distinguish these.
    """
    chosen = _with_figures(picked(every_row, declared.where), declared.metrics)
    series = [*declared.series, *distinguishing_keys(chosen, declared.series)]
    drawn = {_name(row, series): [row.figure(metric) for metric in declared.metrics] for row in chosen}
    if not drawn:
        return None
    width, height = _PANEL
    figure = paper.panels(1, 1, (2 * width, height))
    place = figure.subplots()
    positions = np.arange(len(declared.metrics))
    width = 0.8 / len(drawn)
    for number, (name, cells) in enumerate(drawn.items()):
        values = [cell.value for cell in cells]
        errors = [[cell.value - cell.low for cell in cells], [cell.high - cell.value for cell in cells]]
        shift = (number - (len(drawn) - 1) / 2) * width
        turns, color = divmod(number, len(COLORS))
        place.bar(
            positions + shift, values, width, yerr=errors, color=COLORS[color], hatch=_HATCHES[turns % len(_HATCHES)],
            edgecolor="white", linewidth=0, label=name, error_kw={"linewidth": 0.8},
        )  # fmt: skip
    titles = [results.metric(metric).title for metric in declared.metrics]
    place.set_xticks(positions, titles, rotation=90 if paper.is_crowded(titles) else 0)
    place.set_xlabel(declared.x_label)
    place.set_ylabel(declared.y_label)
    return paper.finished(figure, [place], declared.title)


def _with_figures(listed: Iterable[Row], metrics: Sequence[str]) -> list[Row]:
    return [row for row in listed if any(row.figure(metric).status == "ok" for metric in metrics)]


def _is_measured(listed: Iterable[Row], metric: str) -> bool:
    return any(row.figure(metric).status == "ok" for row in listed)


def _grouped(listed: Sequence[Row], keys: Sequence[str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in listed:
        groups.setdefault(_name(row, keys), []).append(row)
    return groups


def _name(row: Row, keys: Sequence[str]) -> str:
    values = {key: value_of(row, key) for key in keys}
    shown = {key: value for key, value in values.items() if value not in (None, "", "none") or key == "defense"}
    return ", ".join(_worded(key, value) for key, value in shown.items())


def _worded(key: str, value: Any) -> str:
    if key.startswith("params."):
        return f"{key.removeprefix('params.')}={value_text(value)}"
    return _WORDING.get(key, "{}").format(value)


def _clean(clean_of: Mapping[tuple[Any, ...], Sequence[Row]], like: Row, metric: str) -> Cell | None:
    cells = [row.figure(metric) for row in clean_of.get(like.values(_VICTIM), ())]
    return next((cell for cell in cells if cell.status == "ok"), None)


def _points(members: Sequence[Row], x: str, metric: str, clean: Cell | None) -> list[tuple[float, Cell]]:
    points = {float(value_of(row, x)): row.figure(metric) for row in members}
    at_zero = {} if clean is None else {0.0: clean}
    return sorted((at_zero | points).items(), key=lambda point: point[0])


def _curve(place: Axes, name: str, number: int, points: Sequence[tuple[float, Cell]]) -> None:
    x, cells = [x for x, _ in points], [cell for _, cell in points]
    drawn = look(number)
    place.plot(x, [cell.value for cell in cells], **drawn, markersize=4, linewidth=1.4, label=name)
    low, high = [cell.low for cell in cells], [cell.high for cell in cells]
    place.fill_between(x, low, high, color=drawn["color"], alpha=0.13, linewidth=0)


def _published(place: Axes, curve: PublishedCurve, number: int) -> None:
    turns, marker = divmod(number, len(_PUBLISHED_MARKERS))
    place.plot(
        curve.x, curve.y, color=_PUBLISHED_COLORS[turns % len(_PUBLISHED_COLORS)], linestyle="none",
        marker=_PUBLISHED_MARKERS[marker], markersize=6, label=curve.title, zorder=3,
    )  # fmt: skip
