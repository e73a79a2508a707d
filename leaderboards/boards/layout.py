"""What the boards have in common: headings, sections, and what is the same in all rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from advser.leaderboards.boards.board import MARKED, Board, Column, varying
from advser.leaderboards.boards.rows import CONTROL_NOTE, NORM_NAMES, SETTING, UNIT_NOTES, Row, anchors
from advser.leaderboards.boards.sheet import figure_text
from advser.results.folder import Results
from advser.results.schema import FEWEST

CONFIGURATION = ("attack", "params", "domain", "delivery", "labels", "norm", "epsilon", "epsilon_unit")
"""Keys that say what an attack did and how it was judged, whomever it was crafted on."""


def metric_column(results: Results, metric: str, interval: bool = False) -> Column:
    """Return the column of a metric, headed as the run describes it."""
    info = results.metric(metric)
    title = (info.title, info.unit) if info.unit else (info.title,)
    return Column(metric, title, decimals=info.decimals, interval=interval)


def configuration(row: Row) -> tuple[str, ...]:
    """Return a cell's attack in a few short texts: place, attack, labels, budget."""
    if row.clean:
        return (row.attack,)
    place = row.text("domain")
    if place == "spectrogram" and row.keys["delivery"] == "audio":
        place = "spectrogram, as audio"
    norm = f" in {NORM_NAMES[row.keys['norm']]}" if row.keys["norm"] not in ("", "linf") else ""
    return tuple(text for text in (place, row.attack, row.told_labels, f"{row.text('epsilon')}{norm}") if text)


def victim_text(row: Row, found: Sequence[Row]) -> str:
    """Return a model's name with its defense, of which what is the same in all of ``found`` is left out."""
    keys = [key for key in ("model", "defense") if varying([other.text(key) for other in found])]
    return " · ".join(row.text(key) for key in keys or ["model"])


def groups(found: Iterable[Row], keys: Sequence[str]) -> list[list[Row]]:
    """Return the rows by the values of ``keys``, in order of first appearance."""
    by_values: dict[tuple[object, ...], list[Row]] = {}
    for row in found:
        by_values.setdefault(row.values(keys), []).append(row)
    return list(by_values.values())


def reader_notes(results: Results, found: Iterable[Row]) -> list[str]:
    """Return the notes of the run, and what is to be known of the controls and of the units of the budgets."""
    listed = list(found)
    used = {row.keys["epsilon_unit"] for row in listed if row.keys["epsilon"] is not None}
    controls = [CONTROL_NOTE] if any(row.control for row in listed) else []
    units = [note for unit, note in UNIT_NOTES.items() if unit in used]
    return [*results.notes, *controls, *units, *_anchor_notes(results, listed), *_few_speakers(results)]


def _few_speakers(results: Results) -> list[str]:
    most = max(results.ranks["speakers"], default=FEWEST)
    told = f"{most} speaker{'s' if most > 1 else ''} tell no two entries apart (p ≤ .05 needs at least {FEWEST})"
    coarse = "intervals over so few are coarse, and may end at the figure itself"
    return [f"{told}: all tie, whatever their figures; {coarse}."] if most < FEWEST else []


def _anchor_notes(results: Results, listed: Sequence[Row]) -> list[str]:
    """Return what is reached without listening, in each of the rows' settings."""
    there = {row.values(SETTING) for row in listed}
    texts: dict[str, list[Row]] = {}
    for of_setting in groups((row for row in anchors(results) if row.values(SETTING) in there), SETTING):
        told = "; ".join(f"{row.keys['model']} {figures}" for row in of_setting if (figures := _figures(results, row)))
        texts.setdefault(told, []).append(of_setting[0])
    differing = [key for key in SETTING if len({values[SETTING.index(key)] for values in there}) > 1]
    return [
        f"Anchors, which hear nothing{f' ({_where(heads, differing)})' if len(texts) > 1 else ''}: {told}."
        for told, heads in texts.items()
        if told
    ]


def _figures(results: Results, row: Row) -> str:
    shown = [(results.metric(name), row.figure(name)) for name in ("uar", "accuracy") if name in row.cells]
    return ", ".join(f"{info.title} {figure_text(cell, info.decimals, interval=True)}" for info, cell in shown)


def _where(heads: Sequence[Row], differing: Sequence[str]) -> str:
    return "; ".join(", ".join(f"{key} {head.text(key)}" for key in differing) for head in heads)


def section_texts(heads: Sequence[Row], keys: Sequence[str]) -> tuple[str, ...]:
    """Return the section of each row: what of its setting and ``keys`` differs between rows."""
    shown = [key for key in (*SETTING, *keys) if varying([head.text(key) for head in heads])]
    return tuple(
        " · ".join(head.text(key) if key == "model" else f"{key} {head.text(key)}" for key in shown) for head in heads
    )


def common_facts(heads: Sequence[Row], keys: Sequence[str]) -> tuple[str, ...]:
    """Return what of the rows' setting and ``keys`` is the same in all of them."""
    if not heads:
        return ()
    return tuple(
        f"{key} {heads[0].text(key)}"
        for key in (*SETTING, *keys)
        if not varying([head.text(key) for head in heads]) and heads[0].text(key)
    )


def assemble(
    name: str,
    title: str,
    columns: Sequence[Column],
    frame: dict[str, list[object]],
    heads: Sequence[Row],
    section_keys: Sequence[str],
    index_keys: Sequence[str],
    notes: Iterable[str],
    facts: Iterable[str] = (),
    marked: str = MARKED,
    notes_of: Mapping[str, Sequence[str]] | None = None,
) -> Board:
    """Return a board whose rows stand for ``heads``, with the sections and facts that follow from their keys.

    Args:
        name: as in `Board`.
        title: as in `Board`.
        columns: as in `Board`.
        frame: column → a text or cell for each of ``heads``.
        heads: one row of the results for each row of the board.
        section_keys: keys, beside the setting, that make sections.
        index_keys: keys that name a row in CSV.
        notes: as in `Board`.
        facts: in addition to those that follow from the keys.
        marked: as in `Board`.
        notes_of: as in `Board`: of further notes, which go with a column.
    """
    section_title = " · ".join(key for key in (*SETTING, *section_keys) if varying([head.text(key) for head in heads]))
    return Board(
        name,
        title,
        tuple(columns),
        pd.DataFrame(frame, columns=[column.key for column in columns], dtype=object),
        pd.DataFrame([head.values(index_keys) for head in heads], columns=list(index_keys), dtype=object),
        section_texts(heads, section_keys),
        section_title,
        (*common_facts(heads, section_keys), *facts),
        (*notes, *(note for own in (notes_of or {}).values() for note in own)),
        marked,
        notes_of=notes_of or {},
    )
