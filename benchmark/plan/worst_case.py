"""The worst of several attacks, clip by clip: a clip counts as correct only if it is correct under all of them.

No attacker has to attack, so the clean cell always belongs to them.
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
    """An object with the key columns of a cell."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """The key columns."""


C = TypeVar("C", bound=Keyed)

PLACE = ("suite", "part", "corpus", "task", "protocol", "split", "seed", "model", "defense")
"""The keys that the cells of a worst case share."""

ACCESS: Final[tuple[Access, ...]] = ("white-box", "scores", "decisions", "transfer", "blind")
"""Access levels, from the most to none."""

LABELS: Final[tuple[Labels, ...]] = ("true", "soft", "predicted", "none")
"""Sources of labels, from the most that an attacker knows of the clip's class to nothing."""


def members(cells: Iterable[C], declared: WorstCase) -> Iterator[list[C]]:
    """Yield the cells of each victim that a worst case is taken over.

    They are the cells of attacks, crafted on the victim or on other models, and, unless attacks are named, of controls
    within the budget. The clean cell is last, so that an attack wins at equal margins. A victim without any attack has
    no worst case.
    """
    victims: dict[tuple[object, ...], list[C]] = {}
    clean: dict[tuple[object, ...], list[C]] = {}
    for cell in cells:
        place = tuple(cell.columns[key] for key in PLACE)
        if cell.columns["attack"] == CLEAN:
            clean[place] = [cell]
        elif _belongs(cell, declared):
            victims.setdefault(place, []).append(cell)
    for place, attacked in victims.items():
        if declared.attacks is not None or any(cell.columns["access"] != "blind" for cell in attacked):
            yield [*attacked, *clean.get(place, [])]


def _belongs(cell: Keyed, declared: WorstCase) -> bool:
    columns = cell.columns
    if declared.attacks is not None:
        named = columns["attack"] in declared.attacks
    else:
        # A control without a budget is no attack at any budget.
        named = columns["access"] != "blind" or columns["epsilon"] is not None
    small = declared.epsilon is None or (columns["epsilon"] is not None and columns["epsilon"] <= declared.epsilon)
    alike = columns["epsilon"] is None or columns["norm"] == declared.norm
    labelled = declared.labels is None or columns["labels"] in declared.labels or columns["access"] == "blind"
    placed = (columns["domain"], columns["delivery"]) == (declared.domain, declared.delivery)
    return named and small and alike and labelled and placed


def columns_of(cells: Sequence[Keyed], declared: WorstCase) -> dict[str, Any]:
    """Return the key columns of the row for the worst of ``cells`` (`members`).

    Access and labels are the strongest among the cells. The budget is the largest, if every attack has a budget. The
    source is named if all attacks share it.
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


def _foremost(order: Iterable[str], values: Collection[str]) -> str:
    return next(value for value in order if value in values)


def choices(examples: Sequence[pd.DataFrame]) -> npt.NDArray[np.intp]:
    """Return, for each clip (N,), the number of the cell with its lowest margin; the first of equal margins.

    Args:
        examples: the examples of each cell, with the same clips in the same order.

    Raises:
        ValueError: if the clips differ.
    """
    for other in examples[1:]:
        if not other["clip"].equals(examples[0]["clip"]):
            raise ValueError("the cells were judged on different clips")
    margins = pd.concat([cell["margin"].reset_index(drop=True) for cell in examples], axis=1)
    # A clip without a margin was not judged: it is the worst only if no attack has a margin.
    lowest: npt.NDArray[np.intp] = margins.fillna(float("inf")).to_numpy().argmin(axis=1)
    return lowest


def taken(examples: Sequence[pd.DataFrame], chosen: npt.NDArray[np.intp]) -> pd.DataFrame:
    """Return each clip's row in the cell that is chosen for it (`choices`)."""
    rows: list[pd.DataFrame] = [examples[which].iloc[[clip]] for clip, which in enumerate(chosen)]
    return pd.concat(rows, ignore_index=True)
