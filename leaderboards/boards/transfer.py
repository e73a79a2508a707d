"""The transfer board: examples crafted on one model, judged on every other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from advser.leaderboards.boards.board import MISSING, Board, Cell, Column
from advser.leaderboards.boards.layout import (
    CONFIGURATION,
    common_facts,
    configuration,
    groups,
    reader_notes,
    victim_text,
)
from advser.leaderboards.boards.rows import SETTING, Row, metrics, rows, worst_cases
from advser.results.folder import Results

VICTIM = ("model", "defense")
SOURCE = ("source_model", "source_defense")
OWN = {
    "transfer-rate": "white-box: share of the clips that the source reads rightly when clean and wrongly when attacked",
    "uar": "white-box: UAR of the source itself",
}
"""Metric of a matrix → how its diagonal is footnoted."""
JOINED = " + "
"""What stands between the models of an ensemble, and between their defenses."""
CONTROL = "share of the clips that the model reads rightly when clean and wrongly under the control"


@dataclass(frozen=True)
class _Line:
    """One row of a matrix: figures by victim, and what the row is."""

    section: str
    source: str
    keys: tuple[object, ...]
    cells: tuple[Cell, ...]


def transfer(results: Results) -> Board:
    """Return a source × victim matrix of transfer rate and of UAR for each attack whose examples were handed on.

    Rows are the models that the examples were crafted on, columns those that they were judged on. The diagonal holds
    the white-box attack's own figure, with a footnote: success among the clips read rightly when clean, or UAR. The
    first row of UAR is clean; controls with the same budget come next, for what is no transfer. Ensembles, and models
    that nothing was judged on, come last, without a diagonal. The worst of several attacks is no transfer from any one.
    """
    worst = worst_cases(results)
    found = [row for row in rows(results) if row.values(("part", "attack")) not in worst]
    handed_on = [row for row in found if row.transfer]
    involved = {row.values(VICTIM) for row in handed_on} | {row.values(SOURCE) for row in handed_on}
    victims = [group[0] for group in groups(found, VICTIM) if group[0].values(VICTIM) in involved]
    decimals = results.metric("transfer-rate").decimals
    columns = [Column("source", ("crafted on",), measured=False)]
    columns += [
        Column(f"on {head.text('model')} {head.text('defense')}", ("judged on", victim_text(head, victims)),
               decimals=decimals)
        for head in victims
    ]  # fmt: skip
    lines = [
        line
        for group in groups(handed_on, (*SETTING, *CONFIGURATION))
        for metric in OWN
        if metric in metrics(results)
        for line in _matrix(results, found, group, victims, metric)
    ]
    frame = pd.DataFrame(
        [(line.source, *line.cells) for line in lines], columns=[column.key for column in columns], dtype=object
    )
    return Board(
        "transfer",
        "Transfer of adversarial examples between models",
        tuple(columns),
        frame,
        pd.DataFrame([line.keys for line in lines], columns=[*SETTING, *CONFIGURATION, "metric", *SOURCE]),
        tuple(line.section for line in lines),
        "attack: metric",
        common_facts(handed_on, ()),
        tuple(reader_notes(results, handed_on)),
    )


def _matrix(
    results: Results, found: Sequence[Row], group: Sequence[Row], victims: Sequence[Row], metric: str
) -> Iterator[_Line]:
    """Yield the rows of one attack's matrix; ``group`` are its transferred cells."""
    setting = [row for row in found if row.values(SETTING) == group[0].values(SETTING)]
    own = [row for row in setting if row.values(CONFIGURATION) == group[0].values(CONFIGURATION) and not row.transfer]
    differing = [f"{key} {group[0].text(key)}" for key in SETTING if len({row.keys[key] for row in found}) > 1]
    section = f"{', '.join([*differing, *configuration(group[0])])}: {results.metric(metric).title}"
    keys = group[0].values((*SETTING, *CONFIGURATION))
    if metric == "uar":
        clean = {row.values(VICTIM): row.figure("uar") for row in setting if row.clean}
        cells = tuple(clean.get(victim.values(VICTIM), MISSING) for victim in victims)
        yield _Line(section, "(clean)", (*keys, metric, "", ""), cells)
    for control in _controls(setting, group[0]):
        on = {row.values(VICTIM): _alone(setting, row, metric, CONTROL) for row in control}
        cells = tuple(on.get(victim.values(VICTIM), MISSING) for victim in victims)
        yield _Line(section, f"({control[0].text('attack')})", (*keys, metric, control[0].text("attack"), ""), cells)
    sources = {crafted[0].values(SOURCE): crafted for crafted in groups(group, SOURCE)}
    judged = {victim.values(VICTIM): victim for victim in victims}
    others = {source: _as_victim(crafted[0]) for source, crafted in sources.items() if source not in judged}
    for source, head in (judged | others).items():
        if source in sources:
            on = {row.values(VICTIM): row.figure(metric) for row in sources[source]}
            on |= {source: _own(setting, own, head, metric)} if source in judged else {}
            cells = tuple(on.get(victim.values(VICTIM), MISSING) for victim in victims)
            name = victim_text(head, [*victims, *others.values()])
            yield _Line(section, name, (*keys, metric, *source), cells)


def _as_victim(row: Row) -> Row:
    """Return the source of a row as a row of the source itself; defenses of an ensemble that are the same once."""
    model, defense = row.values(SOURCE)
    defenses = set(defense.split(JOINED))
    return replace(row, keys={**row.keys, "model": model, "defense": min(defenses) if len(defenses) == 1 else defense})


def _controls(setting: Sequence[Row], attack: Row) -> list[list[Row]]:
    """Return the cells of each control that is judged as ``attack`` is and has its budget."""
    same = ("domain", "delivery", "norm", "epsilon", "epsilon_unit")
    fitting = [row for row in setting if row.control and row.values(same) == attack.values(same)]
    return groups(fitting, ("attack", "params"))


def _own(setting: Sequence[Row], own: Sequence[Row], source: Row, metric: str) -> Cell:
    mine = next((row for row in own if row.values(VICTIM) == source.values(VICTIM)), None)
    return MISSING if mine is None else _alone(setting, mine, metric, OWN[metric])


def _alone(setting: Sequence[Row], row: Row, metric: str, remark: str) -> Cell:
    """Return what of a cell that is not transferred stands in a matrix of ``metric``."""
    if metric != "transfer-rate":
        cell = row.figure(metric)
        return replace(cell, reason=remark) if cell.status == "ok" and not row.control else cell
    clean = next((other for other in setting if other.clean and other.values(VICTIM) == row.values(VICTIM)), None)
    success, right = row.figure("attack-success"), MISSING if clean is None else clean.figure("accuracy")
    if success.status != "ok" or right.status != "ok" or not right.value:
        return success if success.status != "ok" else MISSING
    # Attack success is a share of all clips; the rate is of those that are read rightly when clean.
    return Cell(success.value / right.value, n=round(right.value * right.n), status="ok", reason=remark)
