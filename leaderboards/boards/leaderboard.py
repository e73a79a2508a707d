"""The leaderboard: models and defenses ranked by their worst case over several attacks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pandas as pd

from advser.leaderboards.boards.board import MISSING, Board, Cell, Column, Entries, frame_of, is_varying
from advser.leaderboards.boards.flags import COLUMN, add_flags
from advser.leaderboards.boards.layout import common_facts, configuration, groups, reader_notes
from advser.leaderboards.boards.rows import SETTING, Row, cell_id, chance_baselines, rows, seed_text
from advser.leaderboards.boards.standings import records, standing
from advser.results.folder import Results
from advser.results.schema import CLEAN

TRAINED: Final = (
    "Ties and ranks account for the sample of speakers, given these trained models. With one seed, a model's luck in "
    "training counts as a merit of its method."
)
BASELINE_NOTE: Final = "A chance baseline ignores the sound, so that no attack changes its figure; it has no rank."
WORST_NOTE: Final = (
    "Each clip counts under the attack that leaves it the lowest margin, among all on the victim in that place and "
    "within that budget, noise and the clean clip included."
)
UNEQUAL: Final = (
    "Entries of one place differ in their number of attacks, because examples crafted on a model are not transferred "
    "to that model. The worst case of entries with more attacks includes transferred examples."
)
_VICTIM: Final = (*SETTING, "model", "defense")
_ARENA: Final = ("domain", "delivery", "norm", "epsilon", "epsilon_unit", "attack")
_WITHOUT: Final = "These results have no ranks: they are older than the ranking."
_UNRANKED: Final = "–"
_NOT_APPLICABLE: Final = Cell(status="not-applicable")


@dataclass(frozen=True)
class _Line:
    """One row of the board; its other fields are the entries of the columns of the same name.

    Attributes:
        row: the keys of the entry and of its place of attack.
        rank, ranks, tie: rank, its 95 % interval, and the letter of the tie group.
        clean, robust: the clean figure and the worst case.
        behind, p: the worst case less that of the best entry, and the p of that difference.
        attacks: number of attacks, as a text.
    """

    row: Row
    clean: Cell
    robust: Cell
    rank: str = _UNRANKED
    ranks: str = ""
    tie: str = ""
    behind: Cell = MISSING
    p: Cell = MISSING
    attacks: str = ""

    @property
    def model(self) -> str:
        return self.row.text("model")

    @property
    def defense(self) -> str:
        return self.row.text("defense")


def _columns(title: str, decimals: int) -> tuple[Column, ...]:
    """Return the columns for a metric; each shows the attribute of `_Line` that its key names."""
    return (
        Column("rank", ("rank",), measured=False, identifies=False),
        Column("ranks", ("95 %",), measured=False, identifies=False),
        Column("tie", ("tie",), measured=False, identifies=False),
        Column("model", ("model",), measured=False),
        Column("defense", ("defense",), measured=False),
        Column("clean", ("clean", title), decimals=decimals, best="highest"),
        Column("robust", ("worst case", title), decimals=decimals, interval=True, best="highest"),
        Column("behind", ("behind", "the best"), decimals=decimals, interval=True),
        Column("p", ("p",), decimals=3),
        Column("attacks", ("attacks",), measured=False, identifies=False),
    )


def leaderboard(results: Results) -> Board:
    """Return a section for each place of attack and budget, with models and defenses by rank.

    Ranks are those of UAR (accuracy, if there is no UAR) under the worst of several attacks, clip by clip: the suite's
    worst cases, or else all attacks in the place within the budget. Unranked entries follow the ranked ones; chance
    baselines come last.
    """
    ranks = records(results, "leaderboard")
    ranked = dict.fromkeys(record["metric"] for record in ranks)
    metric = "uar" if "uar" in ranked or not ranked else next(iter(ranked))
    lines = _lines(results, [record for record in ranks if record["metric"] == metric], metric)
    heads = [line.row for line in lines]
    title = results.metric(metric).title
    columns = _columns(title, results.metric(metric).decimals)
    entries: Entries = {column: [getattr(line, column.key) for line in lines] for column in columns}
    by_victim = {of_victim[0].values(_VICTIM): of_victim for of_victim in groups(rows(results), _VICTIM)}
    flag_notes = add_flags(results, entries, [_within(head, by_victim) for head in heads])
    index = (*SETTING, *_ARENA, "model", "defense")
    shown = [key for key in SETTING if is_varying([head.text(key) for head in heads])]
    return Board(
        "leaderboard",
        f"Models and defenses by {title} under the worst of several attacks",
        tuple(entries),
        frame_of(entries),
        pd.DataFrame([head.values(index) for head in heads], columns=list(index), dtype=object),
        tuple(_section(head, shown) for head in heads),
        " · ".join([*shown, "place of attack"]),
        common_facts(heads, ()),
        (*reader_notes(results, heads), *(_notes(lines) if lines else (_WITHOUT,)), *flag_notes[COLUMN.key]),
        notes_of=flag_notes,
    )


def _within(head: Row, by_victim: Mapping[tuple[object, ...], Sequence[Row]]) -> list[Row]:
    """Return the rows that a line represents: its victim's clean rows, and those of attacks in its place and budget."""
    budget = head.keys["epsilon"]
    return [
        row
        for row in by_victim.get(head.values(_VICTIM), ())
        if row.clean
        or (
            all(row.keys[key] == head.keys[key] for key in ("domain", "delivery"))
            and (budget is None or (row.keys["norm"] == head.keys["norm"] and row.keys["epsilon"] <= budget))
        )
    ]


def _notes(lines: Sequence[_Line]) -> list[str]:
    """Return the notes of a board that has rows."""
    counts: dict[tuple[object, ...], set[str]] = {}
    for line in lines:
        # Unranked entries have a footnote on the attacks that they lack, and chance baselines are not attacked.
        if line.tie:
            counts.setdefault(line.row.values((*SETTING, *_ARENA)), set()).add(line.attacks)
    unequal = any(len(of_arena) > 1 for of_arena in counts.values())
    return [WORST_NOTE, *([UNEQUAL] if unequal else []), TRAINED, BASELINE_NOTE]


def _lines(results: Results, ranks: Sequence[Mapping[str, Any]], metric: str) -> list[_Line]:
    seed = seed_text(results)
    clean = {_victim(record): record for record in ranks if record["attack"] == CLEAN}
    # Results without any attack have a ranking too: of the clean cells.
    ranked = [record for record in ranks if record["attack"] != CLEAN] or list(clean.values())
    arenas: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for record in ranked:
        keys = _keys(record, seed)
        arenas.setdefault(tuple(keys[key] for key in (*SETTING, *_ARENA)), []).append(record)
    baselines = chance_baselines(results)
    lines = []
    for in_arena in arenas.values():
        ordered = sorted(in_arena, key=lambda record: (not record["rank"], record["rank"]))
        lines += [_line(record, clean.get(_victim(record)), seed) for record in ordered]
        head = lines[-1].row
        of_setting = [row for row in baselines if row.values(SETTING) == head.values(SETTING)]
        lines += [_baseline_line(row, head, metric) for row in of_setting]
    return lines


def _victim(record: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(record[key] for key in _VICTIM if key != "seed")


def _keys(record: Mapping[str, Any], seed: object) -> dict[str, Any]:
    """Return the keys of a row, the setting first, then its place of attack."""
    of_record = {**record, "seed": seed, "source_model": "", "source_defense": ""}
    names = (*SETTING, *_ARENA, "model", "defense", "params", "labels", "access", "source_model", "source_defense")
    # The worst of several attacks has no labels of its own.
    return {name: None if pd.isna(of_record[name]) else of_record[name] for name in names} | {"labels": "none"}


def _line(record: Mapping[str, Any], clean: Mapping[str, Any] | None, seed: object) -> _Line:
    rank = standing(record)
    line = _Line(Row(_keys(record, seed)), _cell(clean), _cell(record), attacks=str(record["attacks"]))
    if rank is None:
        return line
    behind = Cell(record["difference"], record["difference_low"], record["difference_high"], status="ok")
    return replace(
        line,
        rank=str(rank.rank),
        ranks=rank.interval,
        tie=_letters(rank.tie),
        behind=_NOT_APPLICABLE if rank.rank == 1 else behind,
        p=_NOT_APPLICABLE if rank.rank == 1 else Cell(record["p"], status="ok"),
    )


def _cell(record: Mapping[str, Any] | None) -> Cell:
    """Return the figure in a row of the ranks."""
    if record is None or math.isnan(record["value"]):
        return replace(MISSING, reason="" if record is None else record["reason"])
    return Cell(
        record["value"], record["ci_low"], record["ci_high"], status="ok", reason=_bound(record),
        spread=record["spread"], standing=standing(record), origin=_origin(record),
    )  # fmt: skip


def _origin(record: Mapping[str, Any]) -> str:
    """Return the identifier of a ranked cell; the worst of several attacks has no source of its own."""
    return cell_id({**record, "source_model": "", "source_defense": ""})


def _bound(record: Mapping[str, Any]) -> str:
    return f"{record['reason']}; an upper bound" if record["reason"] else ""


def _baseline_line(row: Row, head: Row, metric: str) -> _Line:
    """Return a chance baseline's line in the section of ``head``."""
    keys = {**head.keys, "model": row.keys["model"], "defense": ""}
    figure = row.figure(metric)
    return _Line(Row(keys), figure, figure, behind=_NOT_APPLICABLE, p=_NOT_APPLICABLE)


def _letters(tie: int) -> str:
    """Return a tie group as a letter, a for the first; after z come aa, ab and so on."""
    return (_letters((tie - 1) // 26) if tie > 26 else "") + "abcdefghijklmnopqrstuvwxyz"[(tie - 1) % 26]


def _section(head: Row, shown: Sequence[str]) -> str:
    return " · ".join([*(f"{key} {head.text(key)}" for key in shown), ", ".join(configuration(head))])
