"""The worst of several attacks, clip by clip: a clip counts as right only if it is right under every one of them.

And without any: no attacker has to attack. So the clean cell is always among those that are taken together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from advser.plan.cells import source_columns
from advser.results.schema import CLEAN
from advser.suite.schema import WorstCase
from advser.threat.model import Access, Labels


class Keyed(Protocol):
    """What has the key columns of a cell."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """The key columns."""


C = TypeVar("C", bound=Keyed)

PLACE = ("suite", "part", "corpus", "task", "protocol", "split", "seed", "model", "defense")
"""The keys that the cells taken together have in common."""

ACCESS: Final[tuple[Access, ...]] = ("white-box", "scores", "decisions", "transfer", "blind")
"""From the most that an attacker sees of the victim to nothing."""

LABELS: Final[tuple[Labels, ...]] = ("true", "soft", "predicted", "none")
"""From the most that an attacker knows of the clip's class to nothing."""


def members(cells: Iterable[C], declared: WorstCase) -> Iterator[list[C]]:
    """Yield the cells of each victim that a worst case is taken over.

    Those of attacks, crafted on it or on others, and, unless attacks are named, of controls within the budget; the
    clean one comes last, so that of equal margins an attack's counts. A victim without any attack has no worst case.
    """
    victims: dict[tuple[object, ...], list[C]] = {}
    clean: dict[tuple[object, ...], list[C]] = {}
    for cell in cells:
        place = tuple(cell.columns[key] for key in PLACE)
        if cell.columns["attack"] == CLEAN:
            clean[place] = [cell]
        elif _belongs(cell, declared):
            victims.setdefault(place, []).append(cell)
    for place, found in victims.items():
        if declared.attacks is not None or any(cell.columns["access"] != "blind" for cell in found):
            yield [*found, *clean.get(place, [])]


def _belongs(cell: Keyed, declared: WorstCase) -> bool:
    columns = cell.columns
    if declared.attacks is not None:
        named = columns["attack"] in declared.attacks
    else:
        # What has no budget and was not made to fool anything is no attack at any budget.
        named = columns["access"] != "blind" or columns["epsilon"] is not None
    small = declared.epsilon is None or (columns["epsilon"] is not None and columns["epsilon"] <= declared.epsilon)
    alike = columns["epsilon"] is None or columns["norm"] == declared.norm
    given = declared.labels is None or columns["labels"] in declared.labels or columns["access"] == "blind"
    there = (columns["domain"], columns["delivery"]) == (declared.domain, declared.delivery)
    return named and small and alike and given and there


def columns_of(cells: Sequence[Keyed], declared: WorstCase) -> dict[str, Any]:
    """Return the key columns of the row for the worst of ``cells`` (`members`).

    Access and labels are those of the cell whose attacker had the most. There is a budget if every attack has one: the
    largest. The source is told if all attacks have the same.
    """
    attacks = [cell for cell in cells if cell.columns["attack"] != CLEAN]
    first = attacks[0].columns
    budgets = [cell.columns["epsilon"] for cell in attacks]
    bounded = None not in budgets
    nothing = source_columns(())
    sources = [{key: cell.columns[key] for key in nothing} for cell in attacks if cell.columns["access"] != "blind"]
    sources = sources or [nothing]
    return {
        **{key: first[key] for key in PLACE},
        "attack": declared.name,
        "params": "{}",
        "domain": declared.domain,
        "delivery": declared.delivery,
        "labels": _foremost(LABELS, [cell.columns["labels"] for cell in cells]),
        "access": _foremost(ACCESS, [cell.columns["access"] for cell in cells]),
        "norm": declared.norm if bounded else "",
        "epsilon": max(budgets) if bounded else None,
        "epsilon_unit": first["epsilon_unit"] if bounded else "",
        **(sources[0] if all(source == sources[0] for source in sources) else nothing),
    }


def _foremost(order: Iterable[str], found: Collection[str]) -> str:
    return next(value for value in order if value in found)


def choices(examples: Sequence[pd.DataFrame]) -> npt.NDArray[np.intp]:
    """Return, for each clip (N,), which of several cells' examples has its lowest margin, the first of equal ones.

    Args:
        examples: the examples of each cell, with the same clips in the same order.

    Raises:
        ValueError: if the clips differ.
    """
    for other in examples[1:]:
        if not other["clip"].equals(examples[0]["clip"]):
            raise ValueError("the cells were judged on different clips")
    margins = pd.concat([one["margin"].reset_index(drop=True) for one in examples], axis=1)
    # A clip without a margin was not judged: it cannot be the worst, unless no attack has one.
    lowest: npt.NDArray[np.intp] = margins.fillna(float("inf")).to_numpy().argmin(axis=1)
    return lowest


def taken(examples: Sequence[pd.DataFrame], chosen: npt.NDArray[np.intp]) -> pd.DataFrame:
    """Return each clip's row of the examples that are chosen for it (`choices`)."""
    rows: list[pd.DataFrame] = [examples[which].iloc[[clip]] for clip, which in enumerate(chosen)]
    return pd.concat(rows, ignore_index=True)
