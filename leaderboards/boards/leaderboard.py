"""The leaderboard: models and defenses ranked by the worst of what they were attacked with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pandas as pd

from advser.leaderboards.boards.board import MISSING, Board, Cell, Column, varying
from advser.leaderboards.boards.flags import COLUMN, flagged
from advser.leaderboards.boards.layout import common_facts, configuration, groups, reader_notes
from advser.leaderboards.boards.rows import SETTING, Row, anchors, cell_id, rows, seed_text
from advser.leaderboards.boards.standings import records, standing
from advser.results.folder import Results
from advser.results.schema import CLEAN

TRAINED: Final = (
    "Ties and ranks are about speakers, given these trained models: with one seed, what a training's luck gave a model "
    "counts as its method's."
)
CITED: Final = "An anchor answers whatever it hears, so that no attack changes its figure; anchors have no rank."
WORST_NOTE: Final = (
    "Each clip counts with the attack that left it the lowest margin, among all on the victim in that place and within "
    "that budget, noise included, or with none if it is read worse when clean."
)
UNEQUAL: Final = (
    "Entries with fewer attacks than others in their place lack examples of other models that were crafted on "
    "themselves too: the worst case of the others includes these."
)
_VICTIM: Final = (*SETTING, "model", "defense")
_ARENA: Final = ("domain", "delivery", "norm", "epsilon", "epsilon_unit", "attack")
_WITHOUT: Final = "These results have no ranks: they were made before there were any."


@dataclass(frozen=True)
class _Line:
    """One row: the section that it stands in, the rank's texts, and its figures."""

    row: Row
    texts: tuple[str, str, str]
    clean: Cell
    robust: Cell
    behind: Cell
    p: Cell
    attacks: str


def leaderboard(results: Results) -> Board:
    """Return a section for each place of attack and budget, with models and defenses by rank.

    Ranks are those of UAR (accuracy, if there is no UAR) under the worst of several attacks clip by clip: the suite's
    worst cases, or else all attacks in the place within the budget. Entries without a rank come after those that have
    one, and the anchors last.
    """
    found = records(results, "leaderboard")
    ranked = dict.fromkeys(record["metric"] for record in found)
    metric = "uar" if "uar" in ranked or not ranked else next(iter(ranked))
    lines = _lines(results, [record for record in found if record["metric"] == metric], metric)
    heads = [line.row for line in lines]
    title = results.metric(metric).title
    decimals = results.metric(metric).decimals
    columns = [
        Column("rank", ("rank",), measured=False, names=False),
        Column("ranks", ("95 %",), measured=False, names=False),
        Column("tie", ("tie",), measured=False, names=False),
        Column("model", ("model",), measured=False),
        Column("defense", ("defense",), measured=False),
        Column("clean", ("clean", title), decimals=decimals, best="highest"),
        Column("robust", ("worst case", title), decimals=decimals, interval=True, best="highest"),
        Column("behind", ("behind", "the best"), decimals=decimals, interval=True),
        Column("p", ("p",), decimals=3),
        Column("attacks", ("attacks",), measured=False, names=False),
    ]
    frame: dict[str, list[object]] = {
        "rank": [line.texts[0] for line in lines],
        "ranks": [line.texts[1] for line in lines],
        "tie": [line.texts[2] for line in lines],
        "model": [line.row.text("model") for line in lines],
        "defense": [line.row.text("defense") for line in lines],
        "clean": [line.clean for line in lines],
        "robust": [line.robust for line in lines],
        "behind": [line.behind for line in lines],
        "p": [line.p for line in lines],
        "attacks": [line.attacks for line in lines],
    }
    victims = groups(rows(results), _VICTIM)
    own = {of_victim[0].values(_VICTIM): of_victim for of_victim in victims}
    flags = flagged(results, columns, frame, [_within(head, own) for head in heads])
    index = (*SETTING, *_ARENA, "model", "defense")
    shown = [key for key in SETTING if varying([head.text(key) for head in heads])]
    return Board(
        "leaderboard",
        f"Models and defenses by {title} under the worst of several attacks",
        tuple(columns),
        pd.DataFrame(frame, columns=[column.key for column in columns], dtype=object),
        pd.DataFrame([head.values(index) for head in heads], columns=list(index), dtype=object),
        tuple(_section(head, shown) for head in heads),
        " · ".join([*shown, "place of attack"]),
        common_facts(heads, ()),
        (*reader_notes(results, heads), *(_told(lines) if lines else (_WITHOUT,)), *flags[COLUMN.key]),
        notes_of=flags,
    )


def _within(head: Row, own: Mapping[tuple[object, ...], Sequence[Row]]) -> list[Row]:
    """Return the rows that a line stands for: its victim's clean ones, and those of attacks in its place and budget."""
    budget = head.keys["epsilon"]
    return [
        row
        for row in own.get(head.values(_VICTIM), ())
        if row.clean
        or (
            all(row.keys[key] == head.keys[key] for key in ("domain", "delivery"))
            and (budget is None or (row.keys["norm"] == head.keys["norm"] and row.keys["epsilon"] <= budget))
        )
    ]


def _told(lines: Sequence[_Line]) -> list[str]:
    """Return the notes of a board that has rows."""
    counts: dict[tuple[object, ...], set[str]] = {}
    for line in lines:
        # Of entries without a rank the board says what they lack, and anchors are attacked by nothing.
        if line.texts[2]:
            counts.setdefault(line.row.values((*SETTING, *_ARENA)), set()).add(line.attacks)
    unequal = any(len(here) > 1 for here in counts.values())
    return [WORST_NOTE, *([UNEQUAL] if unequal else []), TRAINED, CITED]


def _lines(results: Results, found: Sequence[Mapping[str, Any]], metric: str) -> list[_Line]:
    seed = seed_text(results)
    clean = {_of(record): record for record in found if record["attack"] == CLEAN}
    # Results without any attack have a ranking too: of the clean cells.
    ranked = [record for record in found if record["attack"] != CLEAN] or list(clean.values())
    arenas: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for record in ranked:
        keys = _keys(record, seed)
        arenas.setdefault(tuple(keys[key] for key in (*SETTING, *_ARENA)), []).append(record)
    aside = anchors(results)
    lines = []
    for entries in arenas.values():
        ordered = sorted(entries, key=lambda record: (not record["rank"], record["rank"]))
        lines += [_line(record, clean.get(_of(record)), seed) for record in ordered]
        head = lines[-1].row
        here = [row for row in aside if row.values(SETTING) == head.values(SETTING)]
        lines += [_anchor(row, head, metric) for row in here]
    return lines


def _of(record: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(record[key] for key in (*SETTING, "model", "defense") if key != "seed")


def _keys(record: Mapping[str, Any], seed: object) -> dict[str, Any]:
    """Return the keys of a row, the setting first, then its place of attack."""
    of_record = {**record, "seed": seed, "source_model": "", "source_defense": ""}
    names = (*SETTING, *_ARENA, "model", "defense", "params", "labels", "access", "source_model", "source_defense")
    # The worst of several attacks has no labels of its own.
    return {name: None if pd.isna(of_record[name]) else of_record[name] for name in names} | {"labels": "none"}


def _line(record: Mapping[str, Any], clean: Mapping[str, Any] | None, seed: object) -> _Line:
    place = standing(record)
    row = Row(_keys(record, seed))
    if place is None:
        return _Line(row, ("–", "", ""), _cell(clean), _cell(record), MISSING, MISSING, str(record["attacks"]))
    texts = (str(place.rank), place.interval, _letters(place.tie))
    first = place.rank == 1
    behind = Cell(record["difference"], record["difference_low"], record["difference_high"], status="ok")
    nothing = Cell(status="not-applicable")
    p = nothing if first else Cell(record["p"], status="ok")
    return _Line(row, texts, _cell(clean), _cell(record), nothing if first else behind, p, str(record["attacks"]))


def _cell(record: Mapping[str, Any] | None) -> Cell:
    """Return the figure of a row of the ranks."""
    if record is None or math.isnan(record["value"]):
        return replace(MISSING, reason="" if record is None else record["reason"])
    return Cell(
        record["value"], record["ci_low"], record["ci_high"], status="ok", reason=_bound(record),
        spread=record["spread"], standing=standing(record), origin=_origin(record),
    )  # fmt: skip


def _origin(record: Mapping[str, Any]) -> str:
    """Return the cell that a row of the ranks is of: the worst of several attacks has no source of its own."""
    return cell_id({**record, "source_model": "", "source_defense": ""})


def _bound(record: Mapping[str, Any]) -> str:
    return f"{record['reason']}; an upper bound" if record["reason"] else ""


def _anchor(row: Row, head: Row, metric: str) -> _Line:
    """Return an anchor's line in the section of ``head``."""
    keys = {**head.keys, "model": row.keys["model"], "defense": ""}
    figure, nothing = row.figure(metric), Cell(status="not-applicable")
    return _Line(Row(keys), ("–", "", ""), figure, figure, nothing, nothing, "")


def _letters(tie: int) -> str:
    """Return a tie group as a letter, a for the first; after z come aa, ab and so on."""
    return (_letters((tie - 1) // 26) if tie > 26 else "") + "abcdefghijklmnopqrstuvwxyz"[(tie - 1) % 26]


def _section(head: Row, shown: Sequence[str]) -> str:
    return " · ".join([*(f"{key} {head.text(key)}" for key in shown), ", ".join(configuration(head))])
