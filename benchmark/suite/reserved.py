"""Names in the results that no suite can give to something of its own."""

from __future__ import annotations

from typing import Final

ANCHORS: Final = ("random", "majority")
"""Models that are no models, for figures to be seen against (`advser.scoring.chance_baselines`)."""
