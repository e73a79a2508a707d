"""What the page can be narrowed down to: the keys of boards' rows and of cells that its filters look at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from advser.leaderboards.boards.board import Board
from advser.leaderboards.boards.rows import epsilon_text

_OF_ATTACK: Final = ("domain", "delivery", "access", "labels", "epsilon", "attack")
FILTERS: Final = (
    "part", "corpus", "task", "protocol", "domain", "delivery", "access", "labels", "epsilon", "model", "defense",
    "attack",
)  # fmt: skip
"""Keys by which the page can be narrowed down, as far as they differ."""


def row_keys(board: Board, row: int) -> dict[str, str]:
    """Return the keys of a row that can be filtered by, in words; those of a clean row do not hide it."""
    index = board.index.iloc[row]
    found = {key: index[key] for key in FILTERS if key in board.index and index[key] not in (None, "")}
    if isinstance(found.get("epsilon"), float):
        found["epsilon"] = "" if math.isnan(found["epsilon"]) else epsilon_text(found["epsilon"], index["epsilon_unit"])
    if found.get("attack") == "none":
        found = {key: value for key, value in found.items() if key not in _OF_ATTACK}
    return {key: str(value) for key, value in found.items() if value}


def choices(told: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return what each key of the cells can be narrowed down to, of those in which they differ."""
    found: dict[str, dict[str, None]] = {key: {} for key in FILTERS}
    for cell in told:
        for key, values in found.items():
            text = cell["keys"].get(key, "") if key != "attack" else cell["attack"]
            if text:
                values[str(text)] = None
    return {key: list(values) for key, values in found.items() if len(values) > 1}
