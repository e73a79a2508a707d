"""The boards: which rows and columns of the results each shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from advser.leaderboards.board import MISSING, Board, Cell, Column, varying
from advser.leaderboards.layout import assemble, configuration, configuration_key, unit_notes
from advser.leaderboards.rows import SETTING, Row, metrics, rows
from advser.leaderboards.transfer import transfer
from advser.results import KEYS, Results, select

__all__ = ["BOARDS", "attacks", "defenses", "models", "select", "transfer"]

_ATTACK_KEYS: Final = ("attack", "domain", "delivery", "labels", "access", "norm", "epsilon")
_HEADINGS: Final = {"epsilon": "ε"}


def attacks(results: Results) -> Board:
    """Return the board with a row a cell: every model and defense under every attack that was crafted on it.

    Columns: the attack, where and how it stands, its budget, and every metric. A column that is the same in all rows
    becomes a fact; a metric that applies to none of them becomes a note.
    """
    found = [row for row in rows(results) if not row.transfer]
    names = [name for name in metrics(results) if any(row.figure(name).status != "not-applicable" for row in found)]
    columns = [*_key_columns(found), *(metric_column(results, name, interval=name == "uar") for name in names)]
    frame = {column.key: [_shown(row, column) for row in found] for column in columns}
    notes = [*unit_notes(found), *_unused_metrics(results, found, names)]
    index = pd.DataFrame([row.values(KEYS) for row in found], columns=list(KEYS))
    facts = [f"{_HEADINGS.get(key, key)} {_texts(found, key)[0]}" for key in _constant(found)]
    return assemble(
        results, "attacks", "Attacks on every model and defense", columns, frame, index, found, ("model", "defense"),
        facts, notes,
    )  # fmt: skip


def defenses(results: Results) -> Board:
    """Return the board with a row a model and defense: UAR clean, and under every attack crafted on it.

    The best defense of a model is marked in each column.
    """
    found = [row for row in rows(results) if not row.transfer]
    kinds = {configuration_key(row): row for row in found}
    columns = [Column("defense", ("defense",), measured=False)]
    columns += [_uar_column(results, row) for row in _clean_first(kinds.values())]
    groups = _grouped(found, (*SETTING, "model", "defense"))
    frame: dict[str, list[Any]] = {"defense": [group[0].text("defense") for group in groups]}
    for column, kind in zip(columns[1:], _clean_first(kinds), strict=True):
        frame[column.key] = [_pick(group, kind).figure("uar") for group in groups]
    heads = [group[0] for group in groups]
    index = pd.DataFrame([row.values((*SETTING, "model", "defense")) for row in heads],
                         columns=[*SETTING, "model", "defense"])
    return assemble(
        results, "defenses", "UAR of every defense, clean and under attack", columns, frame, index, heads, ("model",),
        (), unit_notes(found),
    )  # fmt: skip
