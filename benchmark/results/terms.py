"""Terms of results that suites need; importing them imports no pandas."""

from __future__ import annotations

from typing import Final

CHANCE_BASELINES: Final = ("random", "majority")
"""Values of the column ``model`` that name a chance baseline (`advser.scoring.chance_baselines`), not a model."""
