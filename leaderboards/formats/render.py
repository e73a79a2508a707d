"""A board as text: for terminals, Markdown, LaTeX, CSV or HTML."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Final

import pandas as pd
from tabulate import tabulate

from advser.errors import InputError
from advser.leaderboards.boards.board import Board, Cell, Standing, standing_of
from advser.leaderboards.boards.sheet import Sheet, Shown, leading_texts, panels, sheet
from advser.leaderboards.boards.texts import spreadsheet_field
from advser.leaderboards.formats.latex import latex
from advser.leaderboards.page.site import board_html

TERMINAL_WIDTH: Final = 120
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_CELL_FIELDS = ("value", "low", "high", "n", "n_failed", "status", "reason")
_RANK_FIELDS = ("rank", "low", "high", "tie")


def render(board: Board, format: str, width: int = TERMINAL_WIDTH) -> str:  # noqa: A002
    """Return a board as text without a final newline.

    Args:
        board: the board.
        format: one of `FORMATS`.
        width: characters per line, for ``terminal``; a wider table is split into panels that repeat the texts.

    Raises:
        InputError: if the format is unknown.
    """
    if format not in FORMATS:
        raise InputError(f"format: got '{format}', expected {', '.join(FORMATS)}")
    if format == "terminal":
        return terminal(board, width)
    return FORMATS[format](board)


def terminal(board: Board, width: int = TERMINAL_WIDTH) -> str:
    """Return a board for a terminal: aligned columns, section headings, footnotes, lines of at most ``width``.

    A figure that together with its row's texts exceeds ``width`` is not cut.
    """
    shown = sheet(board)
    lines = textwrap.wrap(shown.caption, width)
    if not shown.body:
        lines += ["", "No rows."]
    else:
        body = _aligned(shown)
        heads = _headings(shown)
        widths = [max(map(len, column)) for column in zip(*heads, *body, strict=True)]
        for panel in panels(widths, leading_texts(shown), width, gap=2):
            lines += ["", *_panel(shown, [*heads, ["-" * width for width in widths]], body, panel)]
    below = [*_explanations(shown), *shown.notes]
    for line in below:
        lines += ["", *textwrap.wrap(line, width)] if line is below[0] else textwrap.wrap(line, width)
    return "\n".join(line.rstrip() for line in lines)


def markdown(board: Board) -> str:
    """Return a board as a GitHub-flavoured Markdown table under a heading; sections are its first column."""
    shown = sheet(board)
    sectioned = board.sectioned
    heads = [*([shown.section_title] if sectioned else []), *("<br>".join(map(_escape, t)) for t in shown.header)]
    body = [
        [*([_escape(section)] if sectioned else []), *(_markdown_field(field) for field in row)]
        for section, row in zip(shown.sections, shown.body, strict=True)
    ]
    align = [*(["left"] if sectioned else []), *("right" if measured else "left" for measured in shown.measured)]
    table = tabulate(body, heads, tablefmt="pipe", disable_numparse=True, colalign=align) if body else "No rows."
    below = [f"- {_escape(line)}" for line in [*_explanations(shown), *shown.notes]]
    return "\n".join([f"### {_escape(shown.caption)}", "", table, *(["", *below] if below else [])])


def csv(board: Board) -> str:
    """Return a board as CSV in full precision: the rows' keys, then seven or more columns per figure.

    A figure's columns are named after its key and ``value``, ``low``, ``high`` (empty: none), ``n``, ``n_failed``,
    ``status`` and ``reason``; with several seeds also ``spread``, and if figures are ranked ``rank``, ``rank low``,
    ``rank high`` and ``tie`` (empty: none). Reading the file restores the numbers exactly. A text that a spreadsheet
    would compute begins with an apostrophe, and control characters are left out.
    """
    parts = [board.index]
    for column in board.columns:
        entries = board.frame[column.key]
        if column.measured:
            cells: list[Cell] = entries.tolist()
            columns = {f"{column.key} {name}": [getattr(cell, name) for cell in cells] for name in _CELL_FIELDS}
            parts.append(pd.DataFrame(columns))
            if any(not math.isnan(cell.spread) for cell in cells):
                parts.append(pd.DataFrame({f"{column.key} spread": [cell.spread for cell in cells]}))
            if any(standings := standing_of(cells)):
                parts.append(pd.DataFrame({f"{column.key} {_rank_name(name)}": _ranks(standings, name)
                                           for name in _RANK_FIELDS}))  # fmt: skip
        elif column.key not in board.index:
            parts.append(entries.to_frame())
    table = pd.concat(parts, axis=1).rename(columns=spreadsheet_field)
    texts = {str(name): table[name].map(_field) for name in table.select_dtypes(exclude="number")}
    return table.assign(**texts).to_csv(index=False, lineterminator="\n").removesuffix("\n")


def _field(value: Any) -> Any:
    return spreadsheet_field(value) if isinstance(value, str) else value


def _rank_name(name: str) -> str:
    return f"rank {name}" if name in ("low", "high") else name


def _ranks(standings: Sequence[Standing | None], name: str) -> pd.Series:
    return pd.Series([None if standing is None else getattr(standing, name) for standing in standings], dtype="Int64")


def _headings(shown: Sheet) -> list[list[str]]:
    """Return the headings line by line; short headings go on the last lines, next to the figures."""
    height = max(len(title) for title in shown.header)
    padded = [("",) * (height - len(title)) + title for title in shown.header]
    return [list(line) for line in zip(*padded, strict=True)]


def _panel(shown: Sheet, heads: list[list[str]], body: list[list[str]], panel: list[int]) -> list[str]:
    # Headings are passed as rows: tabulate pads its own headings beyond the computed width.
    heads = [line for line in heads if any(line[i] for i in panel)]
    lines = tabulate(
        [[row[i] for i in panel] for row in (*heads, *body)],
        tablefmt="plain",
        disable_numparse=True,
        preserve_whitespace=True,
        colalign=["right" if shown.measured[i] else "left" for i in panel],
    ).split("\n")
    placed = lines[: len(heads)]
    previous = ""
    for line, section in zip(lines[len(heads) :], shown.sections, strict=True):
        placed += [section] if section and section != previous else []
        placed.append(line)
        previous = section
    return placed


def _aligned(shown: Sheet) -> list[list[str]]:
    """Return the fields with their marks, padded on the right so that the figures of a column align."""
    columns = []
    for fields in zip(*shown.body, strict=True):
        marks = [("*" if field.best else "") + _number(field.footnote) for field in fields]
        longest = max(len(mark) for mark in marks)
        columns.append([field.text + mark.ljust(longest) for field, mark in zip(fields, marks, strict=True)])
    return [list(row) for row in zip(*columns, strict=True)]


def _number(footnote: int) -> str:
    return str(footnote).translate(_SUPERSCRIPT) if footnote else ""


def _markdown_field(field: Shown) -> str:
    text = _escape(field.text)
    return (f"**{text}**" if field.best and text else text) + _number(field.footnote)


def _escape(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    for character in "\\`*_|":
        escaped = escaped.replace(character, f"\\{character}")
    # Brackets alone are plain in Markdown, and intervals have many.
    escaped = escaped.replace("](", "]\\(")
    return " ".join(escaped.split())


def _explanations(shown: Sheet) -> list[str]:
    lines = [f"{mark}: {meaning}." for mark, meaning in shown.marks.items()]
    lines += [f"Marked figures are {shown.best}."] * bool(shown.best)
    lines += shown.legend
    return lines + [f"{_number(number)} {text}" for number, text in enumerate(shown.footnotes, 1)]


FORMATS: Final[dict[str, Callable[[Board], str]]] = {
    "terminal": terminal,
    "markdown": markdown,
    "latex": latex,
    "csv": csv,
    "html": board_html,
}
"""The formats by name."""
