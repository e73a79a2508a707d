"""Figures: recognition and word error rate against the budget, and against the number of steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from advser.exhibits import DRAWN_METRICS
from advser.leaderboards.curves import EPSILON, STEPS, Axis, Curve, Panel, panels
from advser.leaderboards.rows import Row, metrics, rows
from advser.results import Results
from advser.store import replacing

COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Told apart by people with any common colour blindness (Okabe and Ito, Color universal design, 2008)."""

MARKERS: Final = ("o", "s", "^", "D", "v", "P")
"""In the order of the colours, for those who print in grey."""

_CONTROL_COLOR: Final = "#6b6b6b"
_CONTROL_MARKERS: Final = ("x", "+", "1", "2")
_LABEL_MARKERS: Final = {"true": "oD8*", "predicted": "sPXd", "soft": "^v<>"}
"""Labels → their marker, and those for when the colours begin anew."""

_OTHER_MARKERS: Final = "phH."
_LINES: Final = {"true": "-", "predicted": "-.", "soft": ":"}
STYLE: Final[Any] = {
    "svg.hashsalt": "advser",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
_LEGEND_COLUMNS: Final = 3
_WIDE_RANGE: Final = 20
"""Ratio of the largest to the smallest x from which an axis is logarithmic."""

_MOST_LINES: Final = 12
"""Rows of panels in a figure; more are continued in further ones."""

_ABREAST: Final = 3
"""Models side by side, where there is but one place of attack."""

_NO_METADATA: Final[dict[str, None]] = {"Date": None, "Creator": None, "Format": None, "Type": None}


def write_figures(results: Results, directory: Path) -> list[Path]:
    """Write ``METRIC-against-epsilon`` and ``METRIC-against-steps`` as SVG and PNG; return the paths.

    There is a row of panels for each model and defense, and a column for each place of attack (domain and delivery);
    where there is one place only, up to three models stand in a row. Each part of a suite has figures of its own,
    ``…-PART``; one of more than a dozen rows is continued in ``…_2`` and further ones. An axis along which no attack
    has two values gives no figure. The same results give the same SVG, byte for byte.
    """
    found = rows(results)
    with matplotlib.rc_context(STYLE):
        return [
            path
            for axis in (EPSILON, STEPS)
            for metric in DRAWN_METRICS
            if metric in metrics(results)
            for path in _write_parts(results, found, metric, axis, directory)
        ]


def _write_parts(results: Results, found: Sequence[Row], metric: str, axis: Axis, directory: Path) -> list[Path]:
    parts = list(dict.fromkeys(row.keys["part"] for row in found))
    drawn = {part: panels([row for row in found if row.keys["part"] == part], metric, axis) for part in parts}
    everything = [panel for of_part in drawn.values() for panel in of_part]
    written: list[Path] = []
    shown = results.metric(metric).title
    for part, of_part in drawn.items():
        pages = _pages(of_part)
        for number, page in enumerate(pages, 1):
            aside = [f"part {part}"] * bool(part) + [f"{number} of {len(pages)}"] * (len(pages) > 1)
            figure = draw(page, shown, ", ".join([f"{shown} against {axis.title}", *aside]), everything)
            # Parts' names are written without underscores, so that none reads like the number of a continued figure.
            name = f"{metric}-against-{axis.name}" + (f"-{re.sub('[^A-Za-z0-9]', '-', part)}" if part else "")
            written += save(figure, directory, f"{name}_{number}" if number > 1 else name)
    return written


def _pages(drawn: Sequence[Panel]) -> list[list[Panel]]:
    """Return the panels of each figure: as many victims in one as in another, but for one."""
    victims = list(dict.fromkeys(panel.victim for panel in drawn))
    most = _MOST_LINES * (_ABREAST if len({panel.place for panel in drawn}) == 1 else 1)
    split = np.array_split(np.array(victims, dtype=object), max(1, -(-len(victims) // most)))
    return [[panel for panel in drawn if panel.victim in page.tolist()] for page in split if len(page)]


def draw(drawn: Sequence[Panel], title: str, heading: str = "", among: Sequence[Panel] = ()) -> Figure:
    """Return a figure: a row a victim and a column a place, or a grid of victims; one legend below.

    Args:
        drawn: what is in it.
        title: label of the vertical axes.
        heading: what stands above.
        among: all panels that the figure is one part of: a curve looks the same in all of them.
    """
    victims = list(dict.fromkeys(panel.victim for panel in drawn))
    places = list(dict.fromkeys(panel.place for panel in drawn))
    styles = _styles([curve for panel in among or drawn for curve in panel.curves])
    across = len(places) if len(places) > 1 else min(_ABREAST, len(victims))
    lines = -(-len(drawn) // across)
    figure = panelled(lines, 3.4 * across, 2.3)
    axes = figure.subplots(lines, across, sharey=True, sharex="col", squeeze=False)
    for number, panel in enumerate(drawn):
        place: Axes = axes.flat[number]
        _draw_panel(place, panel, styles)
        place.set_title("\n".join(text for text in (panel.place if number < across else "", panel.victim) if text))
        if number + across >= len(drawn):
            place.set_xlabel(panel.x_label)
            place.tick_params(labelbottom=True)
        if number % across == 0:
            place.set_ylabel(title)
    # Not before all panels are drawn: it fixes the upper end that they share.
    axes.flat[0].set_ylim(bottom=0)
    for spare in axes.flat[len(drawn) :]:
        spare.remove()
    return finished(figure, axes.flat[: len(drawn)], heading)


def look(number: int) -> dict[str, Any]:
    """Return colour and marker of the ``number``-th curve; those of 36 curves differ."""
    turns, place = divmod(number, len(COLORS))
    return {"color": COLORS[place], "marker": MARKERS[(place + turns) % len(MARKERS)]}


def _styles(curves: Iterable[Curve]) -> dict[str, dict[str, Any]]:
    """Curve name → colour (by attack), marker and dashes (by labels); controls are grey and dashed."""
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
    values = sorted({x for curve in panel.curves for x, _ in curve.points if x > 0})
    if values and values[-1] / values[0] >= _WIDE_RANGE:
        axes.set_xscale("log")
    elif values:
        axes.set_xlim(left=0, right=values[-1] * 1.06)
        shorten_ticks(axes)


def shorten_ticks(axes: Axes) -> None:
    """Mark few values of a linear x axis, in their shortest form, so that they do not run into one another."""
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter("{x:g}")


def panelled(lines: int, width: float, height: float) -> Figure:
    """Return a figure for ``lines`` rows of panels of this ``height``, ``width`` wide or wider; in inches."""
    figure = Figure(figsize=(max(4.6, width), height * lines + 0.3))
    figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.1)
    return figure


def finished(figure: Figure, axes: Iterable[Axes], heading: str) -> Figure:
    """Give a figure its heading and, below the panels, a legend with each name once; then lay it out.

    The figure grows by what both need. The legend has as many columns as fit.
    """
    entries: dict[str, Any] = {}
    for place in axes:
        for handle, name in zip(*place.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    width, height = figure.get_size_inches()
    added = 0.0
    for columns in range(min(_LEGEND_COLUMNS, len(entries)), 0, -1):
        legend = figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)
        box = legend.get_window_extent()
        if box.width <= width * figure.dpi or columns == 1:
            added += box.height / figure.dpi
            break
        legend.remove()
    if heading:
        figure.suptitle(heading, wrap=True)
        added += 0.3
    figure.set_size_inches(width, height + added)
    # Laid out once, for both formats.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def save(figure: Figure, directory: Path, name: str) -> list[Path]:
    """Write a figure as NAME.svg and NAME.png; return the paths."""
    svg, png = directory / f"{name}.svg", directory / f"{name}.png"
    with replacing(svg) as path:
        figure.savefig(path, format="svg", metadata=_NO_METADATA)
    with replacing(png) as path:
        figure.savefig(path, format="png", dpi=150, metadata={"Software": None})
    return [svg, png]
