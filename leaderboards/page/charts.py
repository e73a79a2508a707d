"""Data of the page's charts that come from boards: standings and transfer matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from advser.leaderboards.boards.board import Board, Cell
from advser.leaderboards.page.filters import row_keys
from advser.results.terms import CHANCE_BASELINES


def charts(boards: Sequence[Board]) -> dict[str, Any]:
    """Return ``standings`` and ``transfer``, with the keys for filters; the page draws its other charts from cells."""
    by_name = {board.name: board for board in boards}
    return {
        "standings": _standings(by_name["leaderboard"]) if "leaderboard" in by_name else [],
        "transfer": _transfer(by_name["transfer"]) if "transfer" in by_name else [],
    }


def _standings(board: Board) -> list[dict[str, Any]]:
    """Return the rows of the leaderboard: place of attack, entry, rank, tie group, clean and worst-case figure."""
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
    fields = []
    for row, (section, record) in enumerate(zip(board.sections, board.frame.to_dict("records"), strict=True)):
        keys = row_keys(board, row)
        for column in board.columns:
            cell = record[column.key]
            if isinstance(cell, Cell):
                fields.append(
                    {
                        "keys": keys,
                        "matrix": section,
                        "source": record["source"],
                        "victim": column.title[-1],
                        "value": _number(cell.value),
                        "remark": cell.reason,
                        "cell": cell.origin,
                    }
                )
    return fields


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
