"""The page's filters: the keys of boards' rows and of cells, and the values to choose from."""

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
"""Keys that the page can be filtered by, if they differ."""


def row_keys(board: Board, row: int) -> dict[str, str]:
    """Return the keys of a row for filters, as texts; a clean row has no keys of attacks, whose filters keep it."""
    index = board.index.iloc[row]
    keys = {key: index[key] for key in FILTERS if key in board.index and index[key] not in (None, "")}
    if isinstance(keys.get("epsilon"), float):
        keys["epsilon"] = "" if math.isnan(keys["epsilon"]) else epsilon_text(keys["epsilon"], index["epsilon_unit"])
    if keys.get("attack") == "none":
        keys = {key: value for key, value in keys.items() if key not in _OF_ATTACK}
    return {key: str(value) for key, value in keys.items() if value}


def choices(cells: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return key → the values to choose from, for each key in which the page's cells differ."""
    values_of: dict[str, dict[str, None]] = {key: {} for key in FILTERS}
    for cell in cells:
        for key, values in values_of.items():
            text = cell["keys"].get(key, "") if key != "attack" else cell["attack"]
            if text:
                values[str(text)] = None
    return {key: list(values) for key, values in values_of.items() if len(values) > 1}
