"""The boards: which rows and columns of the results each shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from advser.leaderboards.boards.board import MISSING, Board, Cell, Column, Entries, is_varying
from advser.leaderboards.boards.flags import add_flags, audit
from advser.leaderboards.boards.layout import CONFIGURATION, Layout, configuration, groups, metric_column, reader_notes
from advser.leaderboards.boards.leaderboard import leaderboard
from advser.leaderboards.boards.rows import SETTING, Row, metrics, rows
from advser.leaderboards.boards.standings import Standings
from advser.leaderboards.boards.transfer import transfer
from advser.results.folder import Results
from advser.results.schema import KEYS

_PLACE: Final = ("domain", "delivery", "labels", "access", "norm", "epsilon")
_DELIVERED: Final = ("domain", "delivery")
_HEADINGS: Final = {"epsilon": "ε"}


def attacks(results: Results) -> Board:
    """Return the board with a row per cell: every model and defense under every attack that was crafted on it.

    Columns: the attack, its place, its budget, and every metric. A key that all rows share becomes a fact; a metric
    that applies to no row becomes a note. Attacks on one victim with the same place and budget are ranked, the lowest
    UAR first.
    """
    shown = [row for row in rows(results) if not row.transfer]
    standings = Standings(results, "attacks")
    names = [name for name in metrics(results) if any(row.figure(name).status != "not-applicable" for row in shown)]
    keys = ["attack", *(key for key in _PLACE if is_varying([row.text(key) for row in shown]))]
    entries: Entries = {
        Column(key, (_HEADINGS.get(key, key),), measured=False): [row.text(key) for row in shown] for key in keys
    }
    for name in names:
        column = _strongest(metric_column(results, name, interval=name == "uar"), standings)
        entries[column] = [standings.cell(row.figure(name), row.keys, name) for row in shown]
    facts = [fact for key in _PLACE if key not in keys for fact in _constant(shown, key)]
    notes_of = _metrics_left_out(results, shown, names) | add_flags(results, entries, [[row] for row in shown])
    marked = "the strongest attack of its place and budget on the victim"
    layout = Layout("attacks", "Every model and defense under every attack", shown, ("model", "defense"), KEYS, marked)
    return layout.board(entries, reader_notes(results, shown), notes_of, facts)


def defenses(results: Results) -> Board:
    """Return the board with a row per model and defense: UAR clean, and under every attack crafted on it.

    Each column ranks the defenses of a model and marks the best.
    """
    shown = [row for row in rows(results) if not row.transfer]
    kinds = {_kind(row): row for row in sorted(shown, key=_order_of_kinds(shown))}
    victims = groups(shown, (*SETTING, "model", "defense"))
    entries: Entries = {
        Column("defense", ("defense",), measured=False): [members[0].text("defense") for members in victims]
    }
    standings = Standings(results, "model")
    sharing = Counter(configuration(example) for example in kinds.values())
    # The first cell of a kind counts.
    by_kind = [{_kind(row): row.figure("uar") for row in reversed(members)} for members in victims]
    for kind, example in kinds.items():
        title = configuration(example)
        # An attack has two columns if its access differs between victims, as for a network and one without gradients.
        column = _uar_column(results, title if sharing[title] == 1 else (*title, example.text("access")))
        entries[column] = [
            _with_standing(figures.get(kind, MISSING), members[0], example, standings)
            for figures, members in zip(by_kind, victims, strict=True)
        ]
    notes_of = add_flags(results, entries, victims)
    layout = Layout(
        "defenses",
        "UAR of every defense, clean and under attack",
        [members[0] for members in victims],
        section_keys=("model",),
        index_keys=(*SETTING, "model", "defense"),
    )
    return layout.board(entries, reader_notes(results, shown), notes_of)


def models(results: Results) -> Board:
    """Return the board with a row per model and defense: clean, and the lowest UAR in each attacked place.

    The lowest is over all cells of the place, whatever their budget, controls and transferred examples included. The
    attack with that UAR is shown beside it; since these attacks differ, no figure is marked as the best. The worst case
    clip by clip is shown only for rows that the suite declares as such (`advser.suite.schema.WorstCase`). If cells lack
    a figure, a footnote calls the lowest an upper bound.
    """
    shown = rows(results)
    victims = [members for team in groups(shown, (*SETTING, "defense")) for members in groups(team, ("model",))]
    heads = [members[0] for members in victims]
    # With a single model, sections by defense would have one row each.
    stub, section = ("model", "defense") if is_varying([head.text("model") for head in heads]) else ("defense", "model")
    standings = Standings(results, "defense" if stub == "model" else "model")
    entries: Entries = {Column(stub, (stub,), measured=False): [head.text(stub) for head in heads]}
    clean = [next((row for row in members if row.clean), None) for members in victims]
    for name in [name for name in ("uar", "accuracy") if name in metrics(results)]:
        column = metric_column(results, name, interval=True)
        column = replace(column, key=f"clean {name}", title=("clean", *column.title), best="highest", ranked=True)
        entries[column] = [
            MISSING if row is None else standings.cell(row.figure(name), row.keys, name) for row in clean
        ]
    for attacked in groups((row for row in shown if not row.clean), _DELIVERED):
        place = configuration(attacked[0])[0]
        expected = _expected(attacked)
        here = attacked[0].values(_DELIVERED)
        worst = [
            _worst(
                [row for row in members if not row.clean and row.values(_DELIVERED) == here],
                expected.get(members[0].values(SETTING), set()),
            )
            for members in victims
        ]
        column = _uar_column(results, ("lowest", place), key=f"lowest {place} UAR")
        entries[replace(column, best="", ranked=False)] = [cell for cell, _ in worst]
        by = Column(f"lowest {place} by", ("lowest", place, "by"), measured=False, identifies=False)
        entries[by] = [attack for _, attack in worst]
    notes_of = add_flags(results, entries, victims)
    title = "Models: clean, and the lowest UAR under any attack"
    layout = Layout("models", title, heads, (section,), index_keys=(*SETTING, "defense", "model"))
    return layout.board(entries, reader_notes(results, shown), notes_of)


def _constant(shown: Sequence[Row], key: str) -> list[str]:
    """Return the text that all attacks share under a key, if any; controls may have none."""
    texts = {row.text(key) for row in shown} - {""}
    aside = " but for controls" if any(row.control and not row.text(key) for row in shown) else ""
    return [f"{_HEADINGS.get(key, key)} {text}{aside}" for text in texts]


def _metrics_left_out(results: Results, shown: Sequence[Row], names: Iterable[str]) -> dict[str, list[str]]:
    """Return metric → the reason why it has no column."""
    notes = {}
    for name in metrics(results):
        if name not in names and not (results.table["metric"].eq(name) & results.table["status"].eq("ok")).any():
            reasons = dict.fromkeys(row.figure(name).reason for row in shown)
            notes[name] = [f"{results.metric(name).title}: not applicable to any row ({'; '.join(reasons)})."]
    return notes


def _kind(row: Row) -> tuple[object, ...]:
    return ("clean",) if row.clean else (*row.values(CONFIGURATION), row.keys["access"])


def _order_of_kinds(shown: Sequence[Row]) -> Callable[[Row], int]:
    """Return the order of columns: clean, controls, attacks; within these that of appearance in any victim's rows."""
    kinds = {kind: place for place, kind in enumerate(dict.fromkeys(_kind(row) for row in shown))}
    return lambda row: kinds[_kind(row)] + len(kinds) * (0 if row.clean else 1 if row.control else 2)


def _uar_column(results: Results, title: tuple[str, ...], key: str = "") -> Column:
    return Column(key or ", ".join(title), title, decimals=results.metric("uar").decimals, best="highest", ranked=True)


def _with_standing(cell: Cell, head: Row, example: Row, standings: Standings) -> Cell:
    """Return a victim's figure under the attack of ``example``, with its rank or the reason why it has none."""
    victim = dict(zip((*SETTING, "model", "defense"), head.values((*SETTING, "model", "defense")), strict=True))
    return standings.cell(cell, {**example.keys, **victim}, "uar")


def _strongest(column: Column, standings: Standings) -> Column:
    """Return a column of the board of attacks; if attacks are ranked, UAR and accuracy mark the lowest figures."""
    ranks = bool(standings) and column.key in ("uar", "accuracy")
    return replace(column, best="lowest", ranked=column.key == "uar") if ranks else column


def _expected(attacked: Iterable[Row]) -> dict[tuple[object, ...], set[tuple[object, ...]]]:
    """Return setting → the kinds of the attacks of a place."""
    kinds: dict[tuple[object, ...], set[tuple[object, ...]]] = {}
    for row in attacked:
        if not row.transfer:
            kinds.setdefault(row.values(SETTING), set()).add(_kind(row))
    return kinds


def _worst(attacked: Sequence[Row], expected: set[tuple[object, ...]]) -> tuple[Cell, str]:
    """Return a victim's lowest UAR and the attack that has it.

    Args:
        attacked: the victim's rows in one place of attack.
        expected: the kinds of attack that the place has.
    """
    measured = [row for row in attacked if row.figure("uar").status == "ok"]
    if not measured:
        failed = [row.figure("uar") for row in attacked if row.figure("uar").status == "failed"]
        return (failed[0], "") if failed else (MISSING, "")
    lowest = min(measured, key=lambda row: row.figure("uar").value)
    cell = lowest.figure("uar")
    if len(measured) < len(attacked) or expected - {_kind(row) for row in attacked}:
        cell = replace(cell, reason="an upper bound of the lowest: some attack cells of this row have no figure")
    source = f" from {lowest.text('source_model')} · {lowest.text('source_defense')}" if lowest.transfer else ""
    return cell, ", ".join(configuration(lowest)[1:]) + source


BOARDS: Final[dict[str, Callable[[Results], Board]]] = {
    "leaderboard": leaderboard,
    "attacks": attacks,
    "defenses": defenses,
    "models": models,
    "transfer": transfer,
    "audit": audit,
}
"""The boards by name."""
