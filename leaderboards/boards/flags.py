"""The audit's flags: a letter on the rows of the boards, and a board that tells what was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Final

import pandas as pd

from advser.leaderboards.boards.board import Board, Column
from advser.leaderboards.boards.layout import configuration, reader_notes
from advser.leaderboards.boards.rows import Row, rows
from advser.results.folder import Results

COLUMN: Final = Column("flags", ("flags",), measured=False, names=False)
"""The letters on a row."""


@dataclass(frozen=True)
class Flags:
    """The flags of a run.

    Attributes:
        raised: each flag as `advser.audit.audit.Flag` has it.
        meanings: check → what its flag means; its letter follows from its place.
        needs: check → what a run must have for it, of the checks that this run gives nothing to look at.
    """

    raised: Sequence[Mapping[str, Any]]
    meanings: Mapping[str, str]
    needs: Mapping[str, str]

    def letter(self, check: str) -> str:
        """Return a check's letter, the same in every run of one version of AdvSER."""
        return ascii_uppercase[[*self.meanings].index(check)]

    def on(self, found: Iterable[Row]) -> list[str]:
        """Return the checks whose flags stand on any of some rows, in the order of the audit."""
        listed = list(found)
        checks = {flag["check"] for flag in self.raised if any(_stands_on(flag["where"], row) for row in listed)}
        return [check for check in self.meanings if check in checks]

    def letters(self, found: Iterable[Row]) -> str:
        """Return the letters of the flags that stand on any of some rows."""
        return " ".join(map(self.letter, self.on(found)))

    def notes(self, found: Iterable[Row]) -> list[str]:
        """Return what the letters on some rows mean."""
        return [f"Flag {self.letter(check)}: {_lowered(self.meanings[check])}" for check in self.on(found)]


def flags(results: Results) -> Flags:
    """Return the flags of a run; none of one that was made before there were audits."""
    audit = results.run.get("audit", {})
    blind = [check for check, cases in audit.get("looked_at", {}).items() if not cases]
    return Flags(audit.get("flags", []), audit.get("checks", {}), {check: audit["needs"][check] for check in blind})


def flagged(
    results: Results, columns: list[Column], frame: dict[str, list[object]], lines: Sequence[Sequence[Row]]
) -> dict[str, list[str]]:
    """Add the column of flags, if there are any on the rows that each line stands for; return it with their meaning."""
    raised, everything = flags(results), [row for line in lines for row in line]
    if raised.on(everything):
        columns.append(COLUMN)
        frame[COLUMN.key] = [raised.letters(line) for line in lines]
    return {COLUMN.key: raised.notes(everything)}


def audited(results: Results) -> Board:
    """Return the board of the audit: a line a flag, with the row or the model that it stands on, and what was found."""
    raised, found = flags(results), rows(results)
    lines = [
        (raised.letter(flag["check"]), flag["check"].replace("-", " "), *_place(flag["where"], found), flag["detail"])
        for check in raised.meanings
        for flag in raised.raised
        if flag["check"] == check and any(_stands_on(flag["where"], row) for row in found)
    ]
    names = ("flag", "check", "on", "found")
    columns = tuple(Column(name, (name,), measured=False) for name in names)
    return Board(
        "audit",
        "Audit: what to know of these figures before believing them",
        columns,
        pd.DataFrame(lines, columns=list(names), dtype=object),
        pd.DataFrame(index=range(len(lines))),
        ("",) * len(lines),
        "",
        (),
        (*reader_notes(results, found), *raised.notes(found), *_silent(raised, found), *_unmade(raised)),
    )


def _silent(raised: Flags, found: Iterable[Row]) -> Iterator[str]:
    if not raised.meanings:
        yield "This run was not audited."
    elif made := len(raised.meanings) - len(raised.needs) - len(raised.on(found)):
        yield f"{made} {'further ' if raised.raised else ''}{'check' if made == 1 else 'checks'} found nothing."


def _unmade(raised: Flags) -> Iterator[str]:
    for check, needs in raised.needs.items():
        yield f"Not made, {check.replace('-', ' ')}: there was nothing to look at; it needs {needs}."


def _place(where: Mapping[str, Any], found: Sequence[Row]) -> tuple[str]:
    if not where:
        return ("the whole run",)
    row = next(row for row in found if _stands_on(where, row))
    parts = [f"part {row.text('part')}"] * bool(row.text("part"))
    attack = configuration(row) if "attack" in where else ()
    return (", ".join([*parts, row.text("model"), f"defense {row.text('defense')}", *attack]),)


def _stands_on(where: Mapping[str, Any], row: Row) -> bool:
    # A row over all seeds has the flags of each.
    over_seeds = isinstance(row.keys["seed"], str)
    return all(row.keys[key] == value or (over_seeds and key == "seed") for key, value in where.items())


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
