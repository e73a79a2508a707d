"""Figures: recognition and word error rate against the budget, and against the number of steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advser.leaderboards.curves import EPSILON, STEPS, Curve, Panel, panels
from advser.leaderboards.rows import metrics, rows
from advser.results import Results
from advser.store import replacing

METRICS: Final = ("uar", "accuracy", "wer")
"""What is drawn, where the results have it."""

_COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Told apart by people with any common colour blindness (Okabe and Ito, Color universal design, 2008)."""

_CONTROL_COLOR: Final = "#6b6b6b"
_CONTROL_MARKERS: Final = ("x", "+", "1", "2")
_MARKERS: Final = {"true": "o", "predicted": "s", "soft": "^"}
_LINES: Final = {"true": "-", "predicted": "-.", "soft": ":"}
_STYLE: Final[Any] = {
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
_WIDE_RANGE: Final = 20
"""Ratio of the largest to the smallest x from which an axis is logarithmic."""

_NO_METADATA: Final[dict[str, None]] = {"Date": None, "Creator": None, "Format": None, "Type": None}


def write_figures(results: Results, directory: Path) -> list[Path]:
    """Write ``METRIC-against-epsilon`` and ``METRIC-against-steps`` as SVG and PNG; return the paths.

    There is a row of panels for each model and defense, and a column for each place of attack (domain and delivery).
    An axis along which no attack has two values gives no figure. The same results give the same SVG, byte for byte.
    """
    written: list[Path] = []
    found = rows(results)
    with matplotlib.rc_context(_STYLE):
        for axis in (EPSILON, STEPS):
            for metric in METRICS:
                drawn = panels(found, metric, axis) if metric in metrics(results) else []
                if drawn:
                    figure = draw(drawn, results.metric(metric).title)
                    written += _save(figure, directory, f"{metric}-against-{axis.name}")
    return written


def draw(drawn: Sequence[Panel], title: str) -> Figure:
    """Return a figure of ``drawn``: a row a victim, a column a place, one legend below."""
    victims = list(dict.fromkeys(panel.victim for panel in drawn))
    places = list(dict.fromkeys(panel.place for panel in drawn))
    styles = _styles([curve for panel in drawn for curve in panel.curves])
    columns = max(1, min(len(styles) + 1, len(places) + 1))
    lines = -(-(len(styles) + 1) // columns)
    legend_height = 0.2 * lines + 0.15
    figure = Figure(figsize=(max(4.6, 3.4 * len(places)), 2.3 * len(victims) + legend_height + 0.3))
    figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.06)
    axes = figure.subplots(len(victims), len(places), sharey=True, sharex="col", squeeze=False)
    for panel in drawn:
        row, column = victims.index(panel.victim), places.index(panel.place)
        place: Axes = axes[row][column]
        _draw_panel(place, panel, styles)
        heading = panel.place if row == 0 else ""
        place.set_title("\n".join(text for text in (heading, panel.victim) if text))
        if row == len(victims) - 1:
            place.set_xlabel(panel.x_label)
        if column == 0:
            place.set_ylabel(title)
    _legend(figure, axes.flat, columns)
    # Laid out once, for both formats.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


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
        styles[curve.name] = {
            "color": _COLORS[attacks.index(curve.attack) % len(_COLORS)],
            "linestyle": _LINES.get(curve.labels, "-"),
            "marker": _MARKERS.get(curve.labels, "D"),
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
    axes.set_ylim(bottom=0)
    values = sorted({x for curve in panel.curves for x, _ in curve.points if x > 0})
    if values and values[-1] / values[0] >= _WIDE_RANGE:
        axes.set_xscale("log")
    elif values:
        axes.set_xlim(left=0, right=values[-1] * 1.06)


def _legend(figure: Figure, axes: Iterable[Axes], columns: int) -> None:
    entries: dict[str, Any] = {}
    for place in axes:
        for handle, name in zip(*place.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)


def _save(figure: Figure, directory: Path, name: str) -> list[Path]:
    svg, png = directory / f"{name}.svg", directory / f"{name}.png"
    with replacing(svg) as path:
        figure.savefig(path, format="svg", metadata=_NO_METADATA)
    with replacing(png) as path:
        figure.savefig(path, format="png", dpi=150, metadata={"Software": None})
    return [svg, png]
