"""Data of the page's charts that come from boards: standings and transfer matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from advser.leaderboards.boards.board import Board, Cell
from advser.leaderboards.page.filters import row_keys
from advser.results.terms import CHANCE_BASELINES


def chart_rows(cells: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what charts need of each cell (`advser.leaderboards.page.cells`): names, keys, and measured figures.

    A figure is a list of value, low and high end of its interval.
    """
    return [
        {
            "id": name,
            **{key: cell[key] for key in ("title", "name", "attack")},
            "keys": {key: value for key, value in cell["keys"].items() if key != "params"},
            "figures": {
                metric: [figure["value"], figure["low"], figure["high"]]
                for metric, figure in cell["figures"].items()
                if figure["status"] == "ok"
            },
        }
        for name, cell in cells.items()
    ]


def charts(boards: Sequence[Board]) -> dict[str, Any]:
    """Return ``standings`` and ``transfer``, with the keys for filters; other charts are drawn from `chart_rows`."""
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
    """Return the lines of the matrices: attack and metric, crafted on, and a field for each model judged on."""
    return [
        {
            "keys": row_keys(board, row),
            "matrix": section,
            "source": record["source"],
            "fields": [
                {
                    "victim": column.title[-1],
                    "value": _number(cell.value),
                    "remark": cell.reason,
                    "cell": cell.origin,
                }
                for column in board.columns
                if isinstance(cell := record[column.key], Cell)
            ],
        }
        for row, (section, record) in enumerate(zip(board.sections, board.frame.to_dict("records"), strict=True))
    ]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
