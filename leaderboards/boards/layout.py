"""Shared parts of the boards: headings, sections, notes, and the facts that all rows have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from advser.leaderboards.boards.board import MARKED, Board, Column, Entries, frame_of, is_varying
from advser.leaderboards.boards.rows import CONTROL_NOTE, NORM_NAMES, SETTING, UNIT_NOTES, Row, chance_baselines
from advser.leaderboards.boards.sheet import figure_text
from advser.results.folder import Results
from advser.results.schema import FEWEST

CONFIGURATION = ("attack", "params", "domain", "delivery", "labels", "norm", "epsilon", "epsilon_unit")
"""Keys of an attack and of how it was judged, whatever model it was crafted on."""


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
    return tuple(text for text in (place, row.attack, row.labels, f"{row.text('epsilon')}{norm}") if text)


def victim_text(row: Row, among: Sequence[Row]) -> str:
    """Return a model's name with its defense, without the part that all rows ``among`` share."""
    keys = [key for key in ("model", "defense") if is_varying([other.text(key) for other in among])]
    return " · ".join(row.text(key) for key in keys or ["model"])


def groups(listed: Iterable[Row], keys: Sequence[str]) -> list[list[Row]]:
    """Return the rows grouped by the values of ``keys``, in order of first appearance."""
    by_values: dict[tuple[object, ...], list[Row]] = {}
    for row in listed:
        by_values.setdefault(row.values(keys), []).append(row)
    return list(by_values.values())


def reader_notes(results: Results, shown: Iterable[Row]) -> list[str]:
    """Return the notes of the run, and those on controls, units of budgets, chance baselines and few speakers."""
    listed = list(shown)
    used = {row.keys["epsilon_unit"] for row in listed if row.keys["epsilon"] is not None}
    controls = [CONTROL_NOTE] if any(row.control for row in listed) else []
    units = [note for unit, note in UNIT_NOTES.items() if unit in used]
    return [*results.notes, *controls, *units, *_baseline_notes(results, listed), *_few_speakers(results)]


def _few_speakers(results: Results) -> list[str]:
    most = max(results.ranks["speakers"], default=FEWEST)
    if most >= FEWEST:
        return []
    separated = f"With {most} speaker{'s' if most > 1 else ''} no test separates two entries"
    coarse = "intervals over so few are coarse, and may end at the figure itself"
    return [f"{separated} (p ≤ .05 needs at least {FEWEST}): all tie, whatever their figures; {coarse}."]


def _baseline_notes(results: Results, listed: Sequence[Row]) -> list[str]:
    """Return the figures of the chance baselines, in each of the rows' settings."""
    settings = {row.values(SETTING) for row in listed}
    heads_of: dict[str, list[Row]] = {}
    for baselines in groups((row for row in chance_baselines(results) if row.values(SETTING) in settings), SETTING):
        with_figures = [(row, _figures(results, row)) for row in baselines]
        text = "; ".join(f"{row.keys['model']} {figures}" for row, figures in with_figures if figures)
        heads_of.setdefault(text, []).append(baselines[0])
    differing = [key for key in SETTING if len({values[SETTING.index(key)] for values in settings}) > 1]
    wheres = {text: f" ({_where(heads, differing)})" if len(heads_of) > 1 else "" for text, heads in heads_of.items()}
    return [f"Chance baselines, which ignore the sound{where}: {text}." for text, where in wheres.items() if text]


def _figures(results: Results, row: Row) -> str:
    shown = [(results.metric(name), row.figure(name)) for name in ("uar", "accuracy") if name in row.cells]
    return ", ".join(f"{info.title} {figure_text(cell, info.decimals, interval=True)}" for info, cell in shown)


def _where(heads: Sequence[Row], differing: Sequence[str]) -> str:
    return "; ".join(", ".join(f"{key} {head.text(key)}" for key in differing) for head in heads)


def section_texts(heads: Sequence[Row], keys: Sequence[str]) -> tuple[str, ...]:
    """Return the section of each row: those of its setting and ``keys`` that differ between rows."""
    shown = [key for key in (*SETTING, *keys) if is_varying([head.text(key) for head in heads])]
    return tuple(
        " · ".join(head.text(key) if key == "model" else f"{key} {head.text(key)}" for key in shown) for head in heads
    )


def common_facts(heads: Sequence[Row], keys: Sequence[str]) -> tuple[str, ...]:
    """Return those of the rows' setting and ``keys`` that all rows share."""
    if not heads:
        return ()
    return tuple(
        f"{key} {heads[0].text(key)}"
        for key in (*SETTING, *keys)
        if not is_varying([head.text(key) for head in heads]) and heads[0].text(key)
    )


@dataclass(frozen=True, eq=False)
class Layout:
    """The rows of a board, whose sections and facts follow from the keys of rows of the results.

    Attributes:
        name, title, marked: as in `Board`.
        heads: one row of the results for each row of the board.
        section_keys: keys, besides the setting, that make sections.
        index_keys: keys that identify a row in CSV.
    """

    name: str
    title: str
    heads: Sequence[Row]
    section_keys: Sequence[str]
    index_keys: Sequence[str]
    marked: str = MARKED

    def board(
        self,
        entries: Entries,
        notes: Iterable[str],
        notes_of: Mapping[str, Sequence[str]],
        facts: Iterable[str] = (),
    ) -> Board:
        """Return the board.

        Args:
            entries: the columns, with a text or cell for each of ``heads``.
            notes: remarks on the whole board.
            notes_of: column → further notes, which belong to it.
            facts: facts besides those that follow from the keys.
        """
        differing = [
            key for key in (*SETTING, *self.section_keys) if is_varying([head.text(key) for head in self.heads])
        ]
        index = [head.values(self.index_keys) for head in self.heads]
        return Board(
            self.name,
            self.title,
            tuple(entries),
            frame_of(entries),
            pd.DataFrame(index, columns=list(self.index_keys), dtype=object),
            section_texts(self.heads, self.section_keys),
            " · ".join(differing),
            (*common_facts(self.heads, self.section_keys), *facts),
            (*notes, *(note for of_column in notes_of.values() for note in of_column)),
            self.marked,
            notes_of=notes_of,
        )
