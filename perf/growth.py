"""The figure of growing times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measuring import Growth

from advser.leaderboards.figures.drawing import SCREEN, look, save


def draw(growths: Sequence[Growth], directory: Path) -> None:
    """Write ``growth.svg``: seconds by count, with the fitted line, or the fitted power if seconds decrease."""
    with SCREEN.style():
        figure = SCREEN.panels(len(growths), 2, (3.3, 2.4))
        places = figure.subplots(-(-len(growths) // 2), 2).flatten()
        for number, (place, growth) in enumerate(zip(places, growths, strict=False)):
            counts = np.linspace(min(growth.counts), max(growth.counts), 50)
            intercept, slope = growth.line
            power = growth.seconds[0] * (counts / growth.counts[0]) ** growth.exponent
            fitted = intercept + slope * counts if growth.exponent > 0 else power
            place.plot(counts, fitted, color=look(number)["color"], linewidth=1)
            place.plot(growth.counts, growth.seconds, linestyle="", **look(number))
            place.set(xlabel=growth.with_, ylabel="seconds", ylim=(0, 1.08 * max(growth.seconds)), title=growth.what)
            SCREEN.shorten_ticks(place)
            if len(growth.counts) == 2:
                place.set_xticks(growth.counts)
        for place in places[len(growths) :]:
            place.remove()
        save(SCREEN.finished(figure, places[: len(growths)], ""), directory, "growth", ["svg"])
