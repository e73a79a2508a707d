"""The boards: which rows and columns of the results each shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from advser.leaderboards.boards.board import MISSING, Board, Cell, Column, varying
from advser.leaderboards.boards.flags import audited, flagged
from advser.leaderboards.boards.layout import (
    CONFIGURATION,
    assemble,
    configuration,
    groups,
    metric_column,
    reader_notes,
)
from advser.leaderboards.boards.leaderboard import leaderboard
from advser.leaderboards.boards.rows import SETTING, Row, metrics, rows
from advser.leaderboards.boards.standings import Standings
from advser.leaderboards.boards.transfer import transfer
from advser.results.folder import Results
from advser.results.schema import KEYS

_PLACE: Final = ("domain", "delivery", "labels", "access", "norm", "epsilon")
_HEADINGS: Final = {"epsilon": "ε"}


def attacks(results: Results) -> Board:
    """Return the board with a row a cell: every model and defense under every attack that was crafted on it.

    Columns: the attack, where it stands, its budget, and every metric. A key that is the same in all rows becomes a
    fact; a metric that applies to none of them becomes a note. Attacks on one victim rank where place and budget are
    the same, the lowest UAR first.
    """
    found = [row for row in rows(results) if not row.transfer]
    standings = Standings(results, "attacks")
    names = [name for name in metrics(results) if any(row.figure(name).status != "not-applicable" for row in found)]
    keys = ["attack", *(key for key in _PLACE if varying([row.text(key) for row in found]))]
    columns = [
        *(Column(key, (_HEADINGS.get(key, key),), measured=False) for key in keys),
        *(_strongest(metric_column(results, name, interval=name == "uar"), standings) for name in names),
    ]
    frame: dict[str, list[object]] = {key: [row.text(key) for row in found] for key in keys}
    frame |= {name: [standings.cell(row.figure(name), row.keys, name) for row in found] for name in names}
    facts = [fact for key in _PLACE if key not in keys for fact in _constant(found, key)]
    notes = reader_notes(results, found)
    own = _metrics_left_out(results, found, names) | flagged(results, columns, frame, [[row] for row in found])
    title = "Every model and defense under every attack"
    marked = "the strongest attack of its place and budget on the victim"
    return assemble("attacks", title, columns, frame, found, ("model", "defense"), KEYS, notes, facts, marked, own)


def defenses(results: Results) -> Board:
    """Return the board with a row a model and defense: UAR clean, and under every attack crafted on it.

    The defenses of a model rank in each column, and the best are marked.
    """
    found = [row for row in rows(results) if not row.transfer]
    kinds = {_kind(row): row for row in sorted(found, key=_order_of_kinds(found))}
    teams = groups(found, (*SETTING, "model", "defense"))
    columns = [Column("defense", ("defense",), measured=False)]
    frame: dict[str, list[object]] = {"defense": [team[0].text("defense") for team in teams]}
    standings = Standings(results, "model")
    sharing = Counter(configuration(example) for example in kinds.values())
    # The first of a kind counts.
    under = [{_kind(row): row.figure("uar") for row in reversed(team)} for team in teams]
    for kind, example in kinds.items():
        title = configuration(example)
        # Where victims differ in access, as a network and one without gradients, one attack is two.
        column = _uar_column(results, title if sharing[title] == 1 else (*title, example.text("access")))
        columns.append(column)
        frame[column.key] = [
            _standing(own.get(kind, MISSING), team[0], example, standings)
            for own, team in zip(under, teams, strict=True)
        ]
    heads = [team[0] for team in teams]
    index = (*SETTING, "model", "defense")
    about = "UAR of every defense, clean and under attack"
    notes, flags = reader_notes(results, found), flagged(results, columns, frame, teams)
    return assemble("defenses", about, columns, frame, heads, ("model",), index, notes, notes_of=flags)


def models(results: Results) -> Board:
    """Return the board with a row a model and defense: clean, and the lowest UAR in each place that was attacked.

    The lowest is taken over all cells of the place, whatever their budget, controls and transferred examples included;
    the attack that it stems from stands beside it, and since these differ no figure is marked as the best. Clip by
    clip the worst case is taken only in rows that the suite declares so (`advser.suite.schema.WorstCase`). Where cells
    have no figure a footnote says that it is an upper bound.
    """
    found = rows(results)
    defended = groups(found, (*SETTING, "defense"))
    teams = [team for group in defended for team in groups(group, ("model",))]
    heads = [team[0] for team in teams]
    # With a single model, sections by defense would have one row each.
    one, other = ("model", "defense") if varying([head.text("model") for head in heads]) else ("defense", "model")
    standings = Standings(results, "defense" if one == "model" else "model")
    columns = [Column(one, (one,), measured=False)]
    frame: dict[str, list[object]] = {one: [head.text(one) for head in heads]}
    for name in [name for name in ("uar", "accuracy") if name in metrics(results)]:
        shown = metric_column(results, name, interval=True)
        column = replace(shown, key=f"clean {name}", title=("clean", *shown.title), best="highest", ranked=True)
        columns.append(column)
        clean = [next((row for row in team if row.clean), None) for team in teams]
        frame[column.key] = [
            MISSING if row is None else standings.cell(row.figure(name), row.keys, name) for row in clean
        ]
    attacked = [row for row in found if not row.clean]
    for place in dict.fromkeys(row.values(("domain", "delivery")) for row in attacked):
        there = [row for row in attacked if row.values(("domain", "delivery")) == place]
        worst = [_worst([row for row in team if row in there], _expected(there, team[0])) for team in teams]
        title = configuration(there[0])[0]
        column = _uar_column(results, ("lowest", title), key=f"lowest {title} UAR")
        columns.append(replace(column, best="", ranked=False))
        columns.append(Column(f"lowest {title} by", ("lowest", title, "by"), measured=False, names=False))
        frame[columns[-2].key] = [cell for cell, _ in worst]
        frame[columns[-1].key] = [by for _, by in worst]
    index = (*SETTING, "defense", "model")
    title = "Models: clean, and the lowest UAR under any attack"
    notes, flags = reader_notes(results, found), flagged(results, columns, frame, teams)
    return assemble("models", title, columns, frame, heads, (other,), index, notes, notes_of=flags)


def _constant(found: Sequence[Row], key: str) -> list[str]:
    """Return what all attacks have under a key, if anything; controls may have nothing."""
    texts = {row.text(key) for row in found} - {""}
    aside = " but for controls" if any(row.control and not row.text(key) for row in found) else ""
    return [f"{_HEADINGS.get(key, key)} {text}{aside}" for text in texts]


def _metrics_left_out(results: Results, found: Sequence[Row], names: Iterable[str]) -> dict[str, list[str]]:
    """Return metric → why it is no column."""
    notes = {}
    for name in metrics(results):
        if name not in names and not (results.table["metric"].eq(name) & results.table["status"].eq("ok")).any():
            reasons = dict.fromkeys(row.figure(name).reason for row in found)
            notes[name] = [f"{results.metric(name).title}: not applicable to any row ({'; '.join(reasons)})."]
    return notes


def _kind(row: Row) -> tuple[object, ...]:
    return ("clean",) if row.clean else (*row.values(CONFIGURATION), row.keys["access"])


def _order_of_kinds(found: Sequence[Row]) -> Callable[[Row], int]:
    """Clean, then controls, then attacks; else in order of appearance, for a victim may lack some that others have."""
    kinds = {kind: place for place, kind in enumerate(dict.fromkeys(_kind(row) for row in found))}
    return lambda row: kinds[_kind(row)] + len(kinds) * (0 if row.clean else 1 if row.control else 2)


def _uar_column(results: Results, title: tuple[str, ...], key: str = "") -> Column:
    return Column(key or ", ".join(title), title, decimals=results.metric("uar").decimals, best="highest", ranked=True)


def _standing(cell: Cell, head: Row, example: Row, standings: Standings) -> Cell:
    """Return a victim's figure under the attack of ``example``, with how it ranks, or why it does not."""
    victim = dict(zip((*SETTING, "model", "defense"), head.values((*SETTING, "model", "defense")), strict=True))
    return standings.cell(cell, {**example.keys, **victim}, "uar")


def _strongest(column: Column, standings: Standings) -> Column:
    """Return a column of the board of attacks: with the ranks of attacks, if there are any, by UAR and accuracy."""
    ranks = bool(standings) and column.key in ("uar", "accuracy")
    return replace(column, best="lowest", ranked=column.key == "uar") if ranks else column


def _expected(there: Sequence[Row], head: Row) -> set[tuple[object, ...]]:
    """Return the attacks that a place has in the setting of ``head``."""
    return {_kind(row) for row in there if not row.transfer and row.values(SETTING) == head.values(SETTING)}


def _worst(there: Sequence[Row], expected: set[tuple[object, ...]]) -> tuple[Cell, str]:
    """Return the lowest UAR and the attack that it stems from."""
    measured = [row for row in there if row.figure("uar").status == "ok"]
    if not measured:
        failed = [row.figure("uar") for row in there if row.figure("uar").status == "failed"]
        return (failed[0], "") if failed else (MISSING, "")
    lowest = min(measured, key=lambda row: row.figure("uar").value)
    cell = lowest.figure("uar")
    lacking = len(there) - len(measured) + len(expected - {_kind(row) for row in there})
    if lacking:
        cell = replace(cell, reason="an upper bound of the lowest: some attack cells of this row have no figure")
    source = f" from {lowest.text('source_model')} · {lowest.text('source_defense')}" if lowest.transfer else ""
    return cell, ", ".join(configuration(lowest)[1:]) + source


BOARDS: Final[dict[str, Callable[[Results], Board]]] = {
    "leaderboard": leaderboard,
    "attacks": attacks,
    "defenses": defenses,
    "models": models,
    "transfer": transfer,
    "audit": audited,
}
"""The boards by name."""
