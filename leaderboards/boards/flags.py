"""The audit's flags: a letter on the rows of the boards, and a board with the detail of each flag."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import ascii_uppercase
from typing import Any, Final

import pandas as pd

from advser.leaderboards.boards.board import Board, Column, Entries
from advser.leaderboards.boards.layout import configuration, reader_notes
from advser.leaderboards.boards.rows import Row, rows
from advser.results.folder import Results

COLUMN: Final = Column("flags", ("flags",), measured=False, identifies=False)
"""The letters on a row."""

_ALL_SEEDS: Final = "all seeds"


@dataclass(frozen=True)
class Flags:
    """The flags of a run.

    Attributes:
        raised: each flag, with the fields of `advser.audit.audit.Flag`.
        meanings: check → meaning of its flag; its letter follows from its position.
        needs: check → what a run must have for it, of the checks that had no case in this run.
    """

    raised: Sequence[Mapping[str, Any]]
    meanings: Mapping[str, str]
    needs: Mapping[str, str]

    def letter(self, check: str) -> str:
        """Return a check's letter, the same in every run of one version of AdvSER."""
        return ascii_uppercase[[*self.meanings].index(check)]

    def on(self, listed: Iterable[Row]) -> list[str]:
        """Return the checks with a flag on any of the given rows, in the order of the audit."""
        checks: set[str] = set()
        for row in listed:
            for keys, checks_at in self._by_keys.items():
                checks |= checks_at.get(_values(row, keys), frozenset())
        return [check for check in self.meanings if check in checks]

    @cached_property
    def _by_keys(self) -> dict[tuple[str, ...], dict[tuple[object, ...], set[str]]]:
        """Keys of flags → their values → the checks with a flag there: a row needs no search through all flags."""
        by_keys: dict[tuple[str, ...], dict[tuple[object, ...], set[str]]] = {}
        for flag in self.raised:
            for values in _places(flag["where"]):
                by_keys.setdefault(tuple(flag["where"]), {}).setdefault(values, set()).add(flag["check"])
        return by_keys

    def first_rows(self, listed: Sequence[Row]) -> list[Row | None]:
        """Return, for each flag, the first of the given rows that it is on; None if it is on none."""
        firsts: dict[tuple[str, ...], dict[tuple[object, ...], tuple[int, Row]]] = {}
        for keys in self._by_keys:
            firsts[keys] = {}
            for place, row in enumerate(listed):
                firsts[keys].setdefault(_values(row, keys), (place, row))
        chosen = []
        for flag in self.raised:
            at = firsts.get(tuple(flag["where"]), {})
            matching = [at[values] for values in _places(flag["where"]) if values in at]
            chosen.append(min(matching, key=lambda pair: pair[0])[1] if matching else None)
        return chosen

    def letters(self, listed: Iterable[Row]) -> str:
        """Return the letters of the flags on any of the given rows."""
        return " ".join(map(self.letter, self.on(listed)))

    def notes(self, listed: Iterable[Row]) -> list[str]:
        """Return the meaning of each letter on the given rows."""
        return [f"Flag {self.letter(check)}: {_lowered(self.meanings[check])}" for check in self.on(listed)]


def flags(results: Results) -> Flags:
    """Return the flags of a run; none if it is older than the audit."""
    record = results.run.get("audit", {})
    without_cases = [check for check, cases in record.get("looked_at", {}).items() if not cases]
    needs = {check: record["needs"][check] for check in without_cases}
    return Flags(record.get("flags", []), record.get("checks", {}), needs)


def add_flags(results: Results, entries: Entries, lines: Sequence[Sequence[Row]]) -> dict[str, list[str]]:
    """Add the column of flags to ``entries`` if a flag is on any row; return that column's key → its notes.

    Args:
        results: the results.
        entries: the columns of a board.
        lines: for each row of the board, the rows of the results that it represents.
    """
    raised, everything = flags(results), [row for line in lines for row in line]
    if raised.on(everything):
        entries[COLUMN] = [raised.letters(line) for line in lines]
    return {COLUMN.key: raised.notes(everything)}


def audit(results: Results) -> Board:
    """Return the board of the audit: a row per flag, with the row or model that it is on and its detail."""
    raised, every_row = flags(results), rows(results)
    shown = zip(raised.raised, raised.first_rows(every_row), strict=True)
    placed: dict[str, list[tuple[str, str]]] = {}
    for flag, row in shown:
        if row is not None:
            placed.setdefault(flag["check"], []).append((_place(flag["where"], row), flag["detail"]))
    lines = [
        (raised.letter(check), check.replace("-", " "), place, detail)
        for check in raised.meanings
        for place, detail in placed.get(check, ())
    ]
    names = ("flag", "check", "on", "detail")
    columns = tuple(Column(name, (name,), measured=False) for name in names)
    return Board(
        "audit",
        "Audit: flags to consider before trusting these figures",
        columns,
        pd.DataFrame(lines, columns=list(names), dtype=object),
        pd.DataFrame(index=range(len(lines))),
        ("",) * len(lines),
        "",
        (),
        (*reader_notes(results, every_row), *raised.notes(every_row), *_silent(raised, every_row), *_skipped(raised)),
    )


def _silent(raised: Flags, listed: Iterable[Row]) -> Iterator[str]:
    if not raised.meanings:
        yield "This run was not audited."
    elif silent := len(raised.meanings) - len(raised.needs) - len(raised.on(listed)):
        yield f"{silent} {'further ' if raised.raised else ''}{'check' if silent == 1 else 'checks'} raised no flag."


def _skipped(raised: Flags) -> Iterator[str]:
    for check, needs in raised.needs.items():
        yield f"Check skipped, {check.replace('-', ' ')}: this run has no case of it; it needs {needs}."


def _place(where: Mapping[str, Any], row: Row) -> str:
    if not where:
        return "the whole run"
    parts = [f"part {row.text('part')}"] * bool(row.text("part"))
    attack = configuration(row) if "attack" in where else ()
    return ", ".join([*parts, row.text("model"), f"defense {row.text('defense')}", *attack])


def _places(where: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """Return the values of rows that a flag is on, as `_values` returns them: of one seed, and over all seeds."""
    values = tuple(where.values())
    if not all(isinstance(value, Hashable) for value in values):
        return []
    over_seeds = tuple(_ALL_SEEDS if key == "seed" else value for key, value in where.items())
    return [values] if values == over_seeds else [values, over_seeds]


def _values(row: Row, keys: Sequence[str]) -> tuple[object, ...]:
    """Return a row's values under some keys; a row over all seeds has the flags of each."""
    return tuple(_ALL_SEEDS if key == "seed" and isinstance(row.keys["seed"], str) else row.keys[key] for key in keys)


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
