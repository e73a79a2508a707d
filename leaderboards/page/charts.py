"""What the page draws beside its boards: plain data for standings, transfer matrices, and what the attacks cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from advser.leaderboards.boards.board import Board, Cell
from advser.leaderboards.page.filters import row_keys
from advser.results.schema import CHANCE_BASELINES


def charts(boards: Sequence[Board]) -> dict[str, Any]:
    """Return ``standings`` and ``transfer``, with the keys that filters look at; the cells give the other charts."""
    found = {board.name: board for board in boards}
    return {
        "standings": _standings(found["leaderboard"]) if "leaderboard" in found else [],
        "transfer": _transfer(found["transfer"]) if "transfer" in found else [],
    }


def _standings(board: Board) -> list[dict[str, Any]]:
    """Return the lines of the leaderboard: place of attack, who, tie group, clean and robust figure."""
    lines = []
    for row, (place, record) in enumerate(zip(board.sections, board.frame.to_dict("records"), strict=True)):
        robust, clean = record["robust"], record["clean"]
        lines.append(
            {
                "keys": row_keys(board, row),
                "place": place,
                "who": " · ".join(filter(None, [record["model"], record["defense"]])),
                "rank": record["rank"],
                "tie": record["tie"],
                "anchor": record["model"] in CHANCE_BASELINES,
                "clean": _number(clean.value),
                "value": _number(robust.value),
                "low": _number(robust.low),
                "high": _number(robust.high),
                "cell": robust.origin,
            }
        )
    return lines


def _transfer(board: Board) -> list[dict[str, Any]]:
    """Return the fields of the matrices: attack and metric, crafted on, judged on, and the figure."""
    judged = [column for column in board.columns if column.measured]
    return [
        {
            "keys": row_keys(board, row),
            "matrix": section,
            "source": record["source"],
            "victim": column.title[-1],
            "value": _number(cell.value),
            "remark": cell.reason,
            "cell": cell.origin,
        }
        for row, (section, record) in enumerate(zip(board.sections, board.frame.to_dict("records"), strict=True))
        for column in judged
        for cell in (record[column.key],)
        if isinstance(cell, Cell)
    ]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
