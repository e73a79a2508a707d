"""The figure of how times grow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measuring import Growth

from advser.leaderboards.figures.drawing import SCREEN, look, save


def draw(growths: Sequence[Growth], directory: Path) -> None:
    """Write ``growth.svg``: seconds against what grows, with the fitted line, or power where time falls."""
    with SCREEN.style():
        figure = SCREEN.panels(len(growths), 2, (3.3, 2.4))
        places = figure.subplots(-(-len(growths) // 2), 2).flatten()
        for number, (place, one) in enumerate(zip(places, growths, strict=False)):
            counts = np.linspace(min(one.counts), max(one.counts), 50)
            at_0, more = one.line
            falling = one.seconds[0] * (counts / one.counts[0]) ** one.exponent
            fitted = at_0 + more * counts if one.exponent > 0 else falling
            place.plot(counts, fitted, color=look(number)["color"], linewidth=1)
            place.plot(one.counts, one.seconds, linestyle="", **look(number))
            place.set(xlabel=one.with_, ylabel="seconds", ylim=(0, 1.08 * max(one.seconds)), title=one.what)
            SCREEN.shorten_ticks(place)
            if len(one.counts) == 2:
                place.set_xticks(one.counts)
        for place in places[len(growths) :]:
            place.remove()
        save(SCREEN.finished(figure, places[: len(growths)], ""), directory, "growth", ["svg"])
