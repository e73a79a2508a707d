"""Standings: the ranks of the results as boards' cells show them, or the reason why a cell is not ranked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from advser.leaderboards.boards.board import Cell, Standing
from advser.results.folder import Results
from advser.results.schema import RANKS_SCHEMA, Among

_PLACE: Final = RANKS_SCHEMA.names[: RANKS_SCHEMA.names.index("among")]
"""The keys of a cell that the table of ranks has."""


class Standings:
    """The ranks of one kind in some results; empty if these have no ranks."""

    def __init__(self, results: Results, among: Among) -> None:
        self._records = {_place(record, record["metric"]): record for record in records(results, among)}

    def __bool__(self) -> bool:
        return bool(self._records)

    def cell(self, cell: Cell, keys: Mapping[str, Any], metric: str) -> Cell:
        """Return a figure with its rank, or with the reason why it has none.

        Args:
            cell: the figure of ``metric``.
            keys: the key columns of its cell.
            metric: name of the metric.
        """
        record = self._records.get(_place(keys, metric))
        if record is None or cell.status == "not-applicable":
            return cell
        if record["reason"]:
            return replace(cell, reason=cell.reason or record["reason"])
        return replace(cell, standing=standing(record))


def records(results: Results, among: Among) -> list[dict[str, Any]]:
    """Return the rows of the table of ranks that are of one kind."""
    chosen = results.ranks[results.ranks["among"] == among]
    return [{str(name): value for name, value in record.items()} for record in chosen.to_dict("records")]


def standing(record: Mapping[str, Any]) -> Standing | None:
    """Return the rank in a row of the table of ranks; None if the row has no rank."""
    ranks = [int(record[name]) for name in ("rank", "rank_low", "rank_high", "tie")]
    return Standing(*ranks) if ranks[0] else None


def _place(keys: Mapping[str, Any], metric: str) -> tuple[object, ...]:
    return (metric, *(None if pd.isna(keys[key]) else keys[key] for key in _PLACE))
