"""The transfer board: examples crafted on one model, classified by every other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
_BUDGET = ("domain", "delivery", "norm", "epsilon", "epsilon_unit")
OWN = {
    "transfer-rate": "white-box: share of the clips, classified correctly when clean, that mislead the source",
    "uar": "white-box: UAR of the source itself",
}
"""Metric of a matrix → footnote of its diagonal."""
JOINED = " + "
"""Separator between the models of an ensemble, and between their defenses."""
CONTROL = (
    "of the clips that the model classifies correctly when clean, the share that it misclassifies under the control"
)


@dataclass(frozen=True)
class _Line:
    """One row of a matrix: its section, its source in words, its keys, and a figure per victim."""

    section: str
    source: str
    keys: tuple[object, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class _Setting:
    """The cells of one setting without worst cases, by what a matrix looks them up by.

    Attributes:
        clean: victim → its clean cell.
        own: configuration → the cells that were not transferred.
        controls: place and budget → the cells of controls.
    """

    clean: dict[tuple[object, ...], Row]
    own: dict[tuple[object, ...], list[Row]]
    controls: dict[tuple[object, ...], list[Row]]


def _setting(members: Sequence[Row]) -> _Setting:
    looked_up = _Setting({}, {}, {})
    for row in members:
        if row.clean:
            looked_up.clean.setdefault(row.values(VICTIM), row)
        if not row.transfer:
            looked_up.own.setdefault(row.values(CONFIGURATION), []).append(row)
        if row.control:
            looked_up.controls.setdefault(row.values(_BUDGET), []).append(row)
    return looked_up


def transfer(results: Results) -> Board:
    """Return a source × victim matrix of transfer rate and of UAR for each attack whose examples were transferred.

    Rows are the models that the examples were crafted on, columns those that they were judged on. The diagonal holds
    the white-box attack's own figure, with a footnote: success among the clips classified correctly when clean, or
    UAR. The first row of UAR is clean; controls with the same budget follow, for comparison without transfer.
    Ensembles, and models that nothing was judged on, come last, without a diagonal. Worst cases over several attacks
    are left out: they have no single source.
    """
    worst = worst_cases(results)
    single = [row for row in rows(results) if row.values(("part", "attack")) not in worst]
    transferred = [row for row in single if row.transfer]
    involved = {row.values(VICTIM) for row in transferred} | {row.values(SOURCE) for row in transferred}
    victims = [group[0] for group in groups(single, VICTIM) if group[0].values(VICTIM) in involved]
    decimals = results.metric("transfer-rate").decimals
    columns = [Column("source", ("crafted on",), measured=False)]
    columns += [
        Column(f"on {head.text('model')} {head.text('defense')}", ("judged on", victim_text(head, victims)),
               decimals=decimals)
        for head in victims
    ]  # fmt: skip
    shown_metrics = [metric for metric in OWN if metric in metrics(results)]
    settings = {members[0].values(SETTING): _setting(members) for members in groups(single, SETTING)}
    differing = [key for place, key in enumerate(SETTING) if len({values[place] for values in settings}) > 1]
    lines: list[_Line] = []
    for group in groups(transferred, (*SETTING, *CONFIGURATION)):
        setting = settings[group[0].values(SETTING)]
        where = ", ".join([*(f"{key} {group[0].text(key)}" for key in differing), *configuration(group[0])])
        for metric in shown_metrics:
            section = f"{where}: {results.metric(metric).title}"
            lines += _matrix(section, setting, group, victims, metric)
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
        common_facts(transferred, ()),
        tuple(reader_notes(results, transferred)),
    )


def _matrix(
    section: str, setting: _Setting, group: Sequence[Row], victims: Sequence[Row], metric: str
) -> Iterator[_Line]:
    """Yield the rows of one attack's matrix.

    Args:
        section: heading of the matrix.
        setting: the cells of its setting.
        group: the transferred cells of the attack.
        victims: a row of each victim, in the order of the columns.
        metric: one of `OWN`.
    """
    own: dict[tuple[object, ...], Row] = {}
    for row in setting.own.get(group[0].values(CONFIGURATION), ()):
        own.setdefault(row.values(VICTIM), row)
    keys = group[0].values((*SETTING, *CONFIGURATION))
    if metric == "uar":
        clean = {victim: row.figure("uar") for victim, row in setting.clean.items()}
        cells = tuple(clean.get(victim.values(VICTIM), MISSING) for victim in victims)
        yield _Line(section, "(clean)", (*keys, metric, "", ""), cells)
    for control in _controls(setting, group[0]):
        on = {row.values(VICTIM): _untransferred(setting, row, metric, CONTROL) for row in control}
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
    """Return a row whose victim is the source of ``row``; equal defenses of an ensemble are named once."""
    model, defense = row.values(SOURCE)
    defenses = set(defense.split(JOINED))
    return replace(row, keys={**row.keys, "model": model, "defense": min(defenses) if len(defenses) == 1 else defense})


def _controls(setting: _Setting, attack: Row) -> list[list[Row]]:
    """Return the cells of each control that is judged as ``attack`` is and has its budget."""
    return groups(setting.controls.get(attack.values(_BUDGET), ()), ("attack", "params"))


def _own(setting: _Setting, own: Mapping[tuple[object, ...], Row], source: Row, metric: str) -> Cell:
    of_source = own.get(source.values(VICTIM))
    return MISSING if of_source is None else _untransferred(setting, of_source, metric, OWN[metric])


def _untransferred(setting: _Setting, row: Row, metric: str, remark: str) -> Cell:
    """Return the figure of a cell without transfer in a matrix of ``metric``, with ``remark`` as its footnote."""
    if metric != "transfer-rate":
        cell = row.figure(metric)
        return replace(cell, reason=remark) if cell.status == "ok" and not row.control else cell
    clean = setting.clean.get(row.values(VICTIM))
    success, accuracy = row.figure("attack-success"), MISSING if clean is None else clean.figure("accuracy")
    if success.status != "ok" or accuracy.status != "ok" or not accuracy.value:
        return success if success.status != "ok" else MISSING
    # Attack success is a share of all clips, the transfer rate one of the clips classified correctly when clean.
    return Cell(success.value / accuracy.value, n=round(accuracy.value * accuracy.n), status="ok", reason=remark)
