"""Style, panels and legend of figures, and their size on a screen or in a column of a paper."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from advser.errors import InputError
from advser.store.files import replacing

COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Colours that differ under any common colour blindness (Okabe and Ito, Color universal design, 2008)."""

MARKERS: Final = ("o", "s", "^", "D", "v", "P")
"""Markers in the order of the colours, for prints in grey."""

FORMATS: Final = ("svg", "png", "pdf")
"""File formats of figures, by suffix."""

WIDTHS: Final = (2.0, 20.0)
"""Smallest and largest width of a figure in a paper, in inches."""

HIGHEST: Final = 10.0
"""Largest height of a figure in a paper, in inches: a page."""

_OWN_LABEL: Final = re.compile(r"_(child|container)\d+|_nolegend_")
"""Labels that Matplotlib gives to what has none."""

_STYLE: Final[Any] = {
    "svg.hashsalt": "advser",
    "svg.fonttype": "path",
    # TrueType; publishers refuse the default, Type 3.
    "pdf.fonttype": 42,
    # A label is printed as it is written.
    "text.parse_math": False,
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
"""Width of a letter in ems: an average, rounded up."""

_NO_METADATA: Final[dict[str, dict[str, None]]] = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


Drawing = Callable[[], Figure | None]
"""Function that draws a figure in the style of its paper; it returns None if there is nothing to draw."""


@dataclass(frozen=True)
class Paper:
    """The medium of a figure: a column of a paper, or the screen.

    Attributes:
        width: width of the figure in inches; None: set by its panels, as on the screen.
        heading: whether the figure has a heading above its panels; in a paper the caption replaces it.

    Raises:
        InputError: if the width is outside `WIDTHS`.
    """

    width: float | None = None
    heading: bool = True

    def __post_init__(self) -> None:
        """Raise InputError if the width is unreadably small, or probably in other units."""
        if self.width is not None and not WIDTHS[0] <= self.width <= WIDTHS[1]:
            raise InputError(f"width: got {self.width:g}, expected {WIDTHS[0]:g} to {WIDTHS[1]:g} (inches)")

    @contextmanager
    def style(self) -> Iterator[None]:
        """Set this paper's style within the context; letters have their printed size."""
        with matplotlib.rc_context(_PRINTED if self.width else _STYLE):
            yield

    def across(self, wanted: int) -> int:
        """Return the number of panels side by side: ``wanted``, or fewer if they would be too narrow to read."""
        return max(1, min(wanted, int(self.width / _NARROWEST_PANEL))) if self.width else wanted

    def panels(self, count: int, across: int, size: tuple[float, float]) -> Figure:
        """Return a figure for ``count`` panels of ``size`` (width, height) in inches, scaled to the paper's width."""
        width, height = size
        if self.width:
            # A narrow panel is higher than wide: titles, ticks and labels do not shrink with it.
            height = min(height, max(_LOWEST_PANEL, self.width / across * height / width))
        figure = Figure((self.width or max(_NARROWEST_FIGURE, width * across), height * -(-count // across) + 0.3))
        figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.03 if self.width else 0.1)
        return figure

    def wrapped(self, text: str, across: int) -> str:
        """Return a text wrapped to the width of a panel, with ``across`` panels side by side."""
        if not self.width:
            return text
        return textwrap.fill(text, int(self.width / across * 72 / (matplotlib.rcParams["font.size"] * _LETTER)))

    def is_crowded(self, labels: Sequence[str]) -> bool:
        """Return whether labels would overlap on an axis that is as wide as the figure."""
        em = matplotlib.rcParams["xtick.labelsize"] * _LETTER / 72 if self.width else 0.0
        return sum(len(label) + 2 for label in labels) * em > 0.8 * (self.width or 0.0)

    def title(self, place: Axes, across: int, *parts: str) -> None:
        """Set a panel's title, with a new line for each part that is not empty."""
        place.set_title("\n".join(self.wrapped(part, across) for part in parts if part))

    def shorten_ticks(self, axes: Axes) -> None:
        """Set few ticks on a linear x axis, in their shortest form, so that their labels do not overlap."""
        axes.xaxis.set_major_locator(MaxNLocator(3 if self.width else 5, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter("{x:g}")

    def finished(self, figure: Figure, axes: Iterable[Axes], heading: str) -> Figure:
        """Add the heading and, below the panels, a legend with each name once; then lay the figure out.

        The figure grows by the height of both. The legend has as many columns as fit, and wraps long names.
        """
        entries: dict[str, Any] = {}
        for place in axes:
            artists: tuple[Artist | Container, ...] = (
                *place.lines,
                *place.patches,
                *place.collections,
                *place.containers,
            )
            for handle in artists:
                # Not by Matplotlib's own list, which leaves out a name that begins with an underscore.
                if (name := str(handle.get_label())) and not _OWN_LABEL.fullmatch(name):
                    entries.setdefault(name, handle)
        added = _legend(figure, entries) if entries else 0.0
        if heading and self.heading:
            figure.suptitle(heading, wrap=True)
            added += 0.3
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + added)
        return laid_out(figure)


SCREEN: Final = Paper()
"""The screen: a page to scroll, on which figures have headings."""


def _legend(figure: Figure, entries: dict[str, Any]) -> float:
    """Add the legend to a figure, and return the legend's height in inches."""
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
    """Lay out a figure once, so that all formats share the layout."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine("none")
    return figure


def look(number: int) -> dict[str, Any]:
    """Return colour and marker of the ``number``-th curve; they differ between the first 36 curves."""
    turns, place = divmod(number, len(COLORS))
    return {"color": COLORS[place], "marker": MARKERS[(place + turns) % len(MARKERS)]}


def save(figure: Figure, directory: Path, name: str, formats: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write a figure as NAME.FORMAT, each to a temporary file that is then renamed; return the paths.

    Files have neither dates nor names of programs: the same figure gives the same file.
    """
    written = []
    for suffix in formats:
        place = directory / f"{name}.{suffix}"
        with replacing(place) as path:
            _print(figure, path, suffix)
        written.append(place)
    return written


def _print(figure: Figure, path: Path, suffix: str) -> None:
    """Write a figure that is laid out. ``savefig`` would draw it twice, to lay it out again."""
    figure.set_dpi(150)
    if suffix == "svg":
        FigureCanvasSVG(figure).print_svg(path, metadata=_NO_METADATA[suffix])  # type: ignore[no-untyped-call]
    elif suffix == "png":
        FigureCanvasAgg(figure).print_png(path, metadata=_NO_METADATA[suffix])  # type: ignore[no-untyped-call]
    else:
        FigureCanvasPdf(figure).print_pdf(path, metadata=_NO_METADATA[suffix])  # type: ignore[no-untyped-call]
