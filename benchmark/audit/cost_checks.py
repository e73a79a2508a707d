"""Checks of costs: an attack that uses a model passes clips through it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from advser.audit.check import Check, Verdict, check
from advser.audit.evidence import Evidence
from advser.audit.rivals import misleads_more


@check("an attack that reads the model, and noise with at most its budget")
def stronger_than_its_cost(evidence: Evidence) -> Iterator[Verdict]:
    """The attack reports no pass through the model, and misleads more clips than noise: its cost is not counted."""
    for cell in evidence.attacked:
        if (cell.is_white_box and not cell.external) or cell.is_query_based:
            noise = [other for other in evidence.rivals(cell) if other.control and other.is_within_budget_of(cell)]
            if noise:
                wrong = cell.passes == 0 and all(misleads_more(cell, other) for other in noise)
                errors = max(other.misled.mean() for other in noise)
                detail = f"error {cell.misled.mean():.3f} without a pass, {errors:.3f} with noise"
                yield Verdict(cell.keys, detail if wrong else "")


OF_COSTS: Final[tuple[Check, ...]] = (stronger_than_its_cost,)
"""Checks of costs."""
