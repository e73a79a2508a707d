"""How figures are drawn: style, panels, legend, and the size that a screen or a column of a paper asks for."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from advser.errors import InputError
from advser.store.files import replacing

COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Told apart by people with any common colour blindness (Okabe and Ito, Color universal design, 2008)."""

MARKERS: Final = ("o", "s", "^", "D", "v", "P")
"""In the order of the colours, for those who print in grey."""

FORMATS: Final = ("svg", "png", "pdf")
"""What figures can be written as, by suffix."""

WIDTHS: Final = (2.0, 20.0)
"""Narrowest and widest figure of a paper, in inches."""

HIGHEST: Final = 10.0
"""Highest one: a page."""

_STYLE: Final[Any] = {
    "svg.hashsalt": "advser",
    "svg.fonttype": "path",
    # TrueType; publishers refuse the default, Type 3.
    "pdf.fonttype": 42,
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
_PRINTED: Final[Any] = _STYLE | {
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.columnspacing": 1.2,
    "axes.linewidth": 0.6,
}
_LEGEND_COLUMNS: Final = 3
_NARROWEST_PANEL: Final = 1.55
_LOWEST_PANEL: Final = 1.7
_NARROWEST_FIGURE: Final = 4.6
_LETTER: Final = 0.62
"""Width of a letter in ems, on average and generously."""

_NO_METADATA: Final[dict[str, dict[str, None]]] = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


Drawing = Callable[[], Figure | None]
"""What draws a figure when it is asked to, in the style of its paper; None: there is nothing to draw."""


@dataclass(frozen=True)
class Paper:
    """What a figure is drawn for.

    Attributes:
        width: of the figure in inches; None: as its panels ask, as on a screen.
        heading: whether it says above the panels what it shows; in a paper the caption does.

    Raises:
        InputError: if the width is none for a figure.
    """

    width: float | None = None
    heading: bool = True

    def __post_init__(self) -> None:
        """Refuse a width in which nothing can be read, or that is meant in other units."""
        if self.width is not None and not WIDTHS[0] <= self.width <= WIDTHS[1]:
            raise InputError(f"width: got {self.width:g}, expected {WIDTHS[0]:g} to {WIDTHS[1]:g} (inches)")

    @contextmanager
    def style(self) -> Iterator[None]:
        """Draw in this style, meanwhile; letters have the size that they are printed in."""
        with matplotlib.rc_context(_PRINTED if self.width else _STYLE):
            yield

    def across(self, wanted: int) -> int:
        """Return how many panels stand side by side: as many as ``wanted``, or as stay readable."""
        return max(1, min(wanted, int(self.width / _NARROWEST_PANEL))) if self.width else wanted

    def panels(self, count: int, across: int, size: tuple[float, float]) -> Figure:
        """Return a figure for so many panels of the ``size`` (width, height) in inches, or of the paper's."""
        width, height = size
        if self.width:
            # A narrow panel is higher than wide: titles, ticks and labels do not shrink with it.
            height = min(height, max(_LOWEST_PANEL, self.width / across * height / width))
        figure = Figure((self.width or max(_NARROWEST_FIGURE, width * across), height * -(-count // across) + 0.3))
        figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.03 if self.width else 0.1)
        return figure

    def wrapped(self, text: str, across: int) -> str:
        """Return a text in as many lines as it needs over a panel, of which ``across`` stand side by side."""
        if not self.width:
            return text
        return textwrap.fill(text, int(self.width / across * 72 / (matplotlib.rcParams["font.size"] * _LETTER)))

    def crowded(self, labels: Sequence[str]) -> bool:
        """Tell whether the labels of an axis that is as wide as the figure would run into one another."""
        em = matplotlib.rcParams["xtick.labelsize"] * _LETTER / 72 if self.width else 0.0
        return sum(len(label) + 2 for label in labels) * em > 0.8 * (self.width or 0.0)

    def title(self, place: Axes, across: int, *parts: str) -> None:
        """Give a panel its title, beginning a line for each part that is not empty."""
        place.set_title("\n".join(self.wrapped(part, across) for part in parts if part))

    def shorten_ticks(self, axes: Axes) -> None:
        """Mark few values of a linear x axis, in their shortest form, so that they do not run into one another."""
        axes.xaxis.set_major_locator(MaxNLocator(3 if self.width else 5, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter("{x:g}")

    def finished(self, figure: Figure, axes: Iterable[Axes], heading: str) -> Figure:
        """Give a figure its heading and, below the panels, a legend with each name once; then lay it out.

        The figure grows by what both need. The legend has as many columns as fit, and long names as many lines.
        """
        entries: dict[str, Any] = {}
        for place in axes:
            for handle, name in zip(*place.get_legend_handles_labels(), strict=True):
                entries.setdefault(name, handle)
        added = _legend(figure, entries) if entries else 0.0
        if heading and self.heading:
            figure.suptitle(heading, wrap=True)
            added += 0.3
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + added)
        return laid_out(figure)


SCREEN: Final = Paper()
"""No paper: a page to scroll, on which figures have headings."""


def _legend(figure: Figure, entries: dict[str, Any]) -> float:
    """Give a figure its legend, and return its height in inches."""
    width = figure.get_size_inches()[0]
    for columns in range(min(_LEGEND_COLUMNS, len(entries)), 0, -1):
        legend = figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)
        if legend.get_window_extent().width <= width * figure.dpi:
            break
        legend.remove()
    else:
        letters = int(width * 72 / (matplotlib.rcParams["font.size"] * _LETTER)) - 6
        names = [textwrap.fill(name, letters) for name in entries]
        legend = figure.legend(entries.values(), names, loc="outside lower center")
    return float(legend.get_window_extent().height / figure.dpi)


def laid_out(figure: Figure) -> Figure:
    """Lay a figure out once, for all formats."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def look(number: int) -> dict[str, Any]:
    """Return colour and marker of the ``number``-th curve; those of 36 curves differ."""
    turns, place = divmod(number, len(COLORS))
    return {"color": COLORS[place], "marker": MARKERS[(place + turns) % len(MARKERS)]}


def save(figure: Figure, directory: Path, name: str, formats: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write a figure as NAME.FORMAT, each beside and renamed; return the paths.

    Without dates and names of programs: the same figure gives the same file.
    """
    written = []
    for suffix in formats:
        place = directory / f"{name}.{suffix}"
        with replacing(place) as path:
            figure.savefig(path, format=suffix, dpi=150, metadata=_NO_METADATA[suffix])
        written.append(place)
    return written
