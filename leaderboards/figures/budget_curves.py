"""Figures: recognition and word error rate against the budget, and against the number of steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advser.leaderboards.boards.rows import Row, metrics, rows
from advser.leaderboards.figures.curves import EPSILON, STEPS, Axis, Curve, Panel, panels
from advser.leaderboards.figures.drawing import COLORS, SCREEN, Drawing, Paper
from advser.results.folder import Results
from advser.suite.exhibits import DRAWN_METRICS
from advser.suite.texts import file_part

_CONTROL_COLOR: Final = "#6b6b6b"
_CONTROL_MARKERS: Final = ("x", "+", "1", "2")
_LABEL_MARKERS: Final = {"true": "oD8*", "predicted": "sPXd", "soft": "^v<>"}
"""Labels → marker of the first round of colours, then of each further round."""

_OTHER_MARKERS: Final = "phH."
_LINES: Final = {"true": "-", "predicted": "-.", "soft": ":"}
_PANEL: Final = (3.4, 2.3)
"""Width and height of a panel on the screen, in inches."""

_WIDE_RANGE: Final = 20
"""Ratio of the largest to the smallest x from which an axis is logarithmic."""

_MOST_LINES: Final = 12
"""Rows of panels per figure; further rows are continued in further figures."""

_ABREAST: Final = 3
"""Models side by side, if there is only one place of attack."""


def budget_figures(results: Results, paper: Paper) -> dict[str, Drawing]:
    """Return ``METRIC-against-epsilon`` and ``METRIC-against-steps``: name → drawing.

    A figure has a row of panels for each model and defense, and a column for each place of attack (domain and
    delivery); with a single place, up to three models share a row. Each part of a suite has figures of its own,
    ``…-PART``; on the screen, a figure of more than a dozen rows is continued in ``…_2`` and so on. An axis along which
    no attack has two values gives no figure. The same results give the same SVG, byte for byte.
    """
    every_row = rows(results)
    drawn_metrics = [metric for metric in DRAWN_METRICS if metric in metrics(results)]
    figures: dict[str, Drawing] = {}
    for axis in (EPSILON, STEPS):
        for metric in drawn_metrics:
            figures.update(_of_parts(results, every_row, metric, axis, paper))
    return figures


def _of_parts(
    results: Results, every_row: Sequence[Row], metric: str, axis: Axis, paper: Paper
) -> Iterator[tuple[str, Drawing]]:
    parts = list(dict.fromkeys(row.keys["part"] for row in every_row))
    drawn = {part: panels([row for row in every_row if row.keys["part"] == part], metric, axis) for part in parts}
    everything = [panel for of_part in drawn.values() for panel in of_part]
    shown = results.metric(metric).title
    for part, of_part in drawn.items():
        pages = _pages(of_part, paper)
        for number, page in enumerate(pages, 1):
            aside = [f"part {part}"] * bool(part) + [f"{number} of {len(pages)}"] * (len(pages) > 1)
            heading = ", ".join([f"{shown} against {axis.title}", *aside])
            # A part's name loses its underscores, because `_2` numbers a continued figure.
            name = f"{metric}-against-{axis.name}" + (f"-{file_part(part)}" if part else "")
            yield f"{name}_{number}" if number > 1 else name, partial(draw, page, shown, heading, everything, paper)


def _pages(drawn: Sequence[Panel], paper: Paper) -> list[list[Panel]]:
    """Return the panels of each figure; the figures differ by at most one victim in size.

    A paper has a single figure, because its user selects what it shows.
    """
    if paper.width:
        return [list(drawn)] if drawn else []
    victims = list(dict.fromkeys(panel.victim for panel in drawn))
    most = _MOST_LINES * (_ABREAST if len({panel.place for panel in drawn}) == 1 else 1)
    split = np.array_split(np.array(victims, dtype=object), max(1, -(-len(victims) // most)))
    return [[panel for panel in drawn if panel.victim in page.tolist()] for page in split if len(page)]


def draw(
    drawn: Sequence[Panel], title: str, heading: str = "", among: Sequence[Panel] = (), paper: Paper = SCREEN
) -> Figure:
    """Return a figure: a row per victim and a column per place, or a grid of victims; the legend is below.

    On a paper too narrow for all places, each panel has both titles and an axis of its own.

    Args:
        drawn: its panels.
        title: label of the vertical axes.
        heading: text above the panels.
        among: the panels of all figures that it continues; a curve looks the same in all of them.
        paper: the paper or screen to draw for.
    """
    victims = list(dict.fromkeys(panel.victim for panel in drawn))
    places = list(dict.fromkeys(panel.place for panel in drawn))
    styles = _styles([curve for panel in among or drawn for curve in panel.curves])
    across = paper.across(len(places) if len(places) > 1 else min(_ABREAST, len(victims)))
    broken = across < len(places)
    figure = paper.panels(len(drawn), across, _PANEL)
    shared: Literal["none", "col"] = "none" if broken else "col"
    axes = figure.subplots(-(-len(drawn) // across), across, sharey=True, sharex=shared, squeeze=False)
    # Each curve would fit the limits of all panels that share an axis: once, after all curves, is enough.
    for place in axes.flat:
        place.set_autoscale_on(False)
    for number, panel in enumerate(drawn):
        place = axes.flat[number]
        _draw_panel(place, panel, styles)
        paper.title(place, across, panel.place if broken or number < across else "", panel.victim)
        if broken or number + across >= len(drawn):
            place.set_xlabel(paper.wrapped(panel.x_label, across))
            place.tick_params(labelbottom=True)
        if number % across == 0:
            place.set_ylabel(title)
    for place in axes.flat:
        place.autoscale()
    # After all panels are drawn, because setting one end of a shared axis fixes the other.
    axes.flat[0].set_ylim(bottom=0)
    drawn_on = list(zip(drawn, axes.flat, strict=False))
    for first in range(len(drawn_on) if broken else across):
        _fit(drawn_on[first : first + 1] if broken else drawn_on[first::across], paper)
    for spare in axes.flat[len(drawn) :]:
        spare.remove()
    return paper.finished(figure, axes.flat[: len(drawn)], heading)


def _styles(curves: Iterable[Curve]) -> dict[str, dict[str, Any]]:
    """Return curve name → colour (by attack), marker and dashes (by labels); controls are grey and dashed."""
    styles: dict[str, dict[str, Any]] = {}
    attacks: list[str] = []
    controls = 0
    for curve in sorted(curves, key=lambda curve: not curve.control):
        if curve.name in styles:
            continue
        if curve.control:
            marker = _CONTROL_MARKERS[controls % len(_CONTROL_MARKERS)]
            styles[curve.name] = {"color": _CONTROL_COLOR, "linestyle": "--", "marker": marker}
            controls += 1
            continue
        if curve.attack not in attacks:
            attacks.append(curve.attack)
        turns, place = divmod(attacks.index(curve.attack), len(COLORS))
        markers = _LABEL_MARKERS.get(curve.labels, _OTHER_MARKERS)
        styles[curve.name] = {
            "color": COLORS[place],
            "linestyle": _LINES.get(curve.labels, "-"),
            "marker": markers[turns % len(markers)],
        }
    return styles


def _draw_panel(axes: Axes, panel: Panel, styles: dict[str, dict[str, Any]]) -> None:
    if panel.clean is not None:
        axes.axhline(panel.clean.value, color="black", linewidth=1, linestyle=(0, (1, 1.5)), label="clean")
    for curve in panel.curves:
        style = styles[curve.name]
        x = [point for point, _ in curve.points]
        cells = [cell for _, cell in curve.points]
        axes.plot(x, [cell.value for cell in cells], label=curve.name, markersize=4.5, linewidth=1.4, **style)
        lows, highs = [cell.low for cell in cells], [cell.high for cell in cells]
        if len(x) > 1:
            axes.fill_between(x, lows, highs, color=style["color"], alpha=0.13, linewidth=0)
        else:
            axes.vlines(x, lows, highs, color=style["color"], alpha=0.4, linewidth=3)


def _fit(shared: Sequence[tuple[Panel, Axes]], paper: Paper) -> None:
    """Set the x axis that panels share: from 0, or logarithmic from a range of `_WIDE_RANGE` on."""
    curves = [curve for panel, _ in shared for curve in panel.curves]
    values = sorted({x for curve in curves for x, _ in curve.points if x > 0})
    for _, axes in shared:
        if values and values[-1] / values[0] >= _WIDE_RANGE:
            axes.set_xscale("log")
        elif values:
            axes.set_xlim(left=0, right=values[-1] * 1.06)
            paper.shorten_ticks(axes)
