r"""A board as a LaTeX table, which needs ``\usepackage{booktabs}`` alone."""

from __future__ import annotations

import itertools
import re
from typing import Final

from advser.leaderboards.boards.board import Board
from advser.leaderboards.boards.sheet import Sheet, Shown, leading_texts, panels, sheet

PANEL_WIDTH: Final = 90
"""Characters of a script-size line that fit the text of a one-column page."""

NOTE_WIDTH: Final = 110
"""Characters of running text in a script-size line."""

PAGE_LINES: Final = 58
"""Script-size table lines that fit a page, with its caption."""

_SYMBOLS: Final = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # Characters of TeX's first encoding (OT1), which needs no package.
    '"': "''",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "†": r"$\dagger$",
    "−": "$-$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\rightarrow$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "ε": r"$\varepsilon$",
    "η": r"$\eta$",
    "∞": r"$\infty$",
    "’": "'",
    "“": "``",
    "”": "''",
}


_NO_LETTERS: Final = "ÐðÞþĄąĘęĮįŲųĐđŊŋ"
"""Latin letters that TeX's first encoding (OT1) lacks."""


def latex(board: Board) -> str:
    r"""Return a board as ``table`` floats; the first has the caption and the label.

    A board that is too wide becomes several tabulars, which repeat the columns of texts; a board that is too long
    continues in further floats. Characters that pdfLaTeX cannot print without further packages become ``?``.
    """
    shown = sheet(board)
    caption = escape(shown.caption)
    label = rf"\label{{{board.label or 'tab:' + re.sub(r'[^a-z0-9-]', '-', board.name.lower())}}}"
    floats = _floats(shown) if shown.body else [["  No rows."]]
    below = _below(shown)
    if below:
        if len(floats[-1]) + _height(below) > PAGE_LINES:
            floats.append([])
        floats[-1].append("  \\par\\smallskip\\raggedright\n  " + " \\\\\n  ".join(map(_guarded, below)) + "\\par")
    kind = "table*" if board.span else "table"
    needed = [r"% \usepackage{booktabs}"]
    return "\n".join(
        line
        for number, body in enumerate(floats)
        for line in [
            *([] if number else needed),
            rf"\begin{{{kind}}}[tbp]",
            r"  \centering",
            rf"  \caption{{{caption}{', continued' if number else ''}}}" + ("" if number else label),
            r"  \scriptsize",
            r"  \setlength{\tabcolsep}{3pt}",
            *body,
            rf"\end{{{kind}}}",
        ]
    )


def _height(below: list[str]) -> int:
    """Return the number of script-size lines that the texts below a table take, at most."""
    return sum(1 + len(text) // NOTE_WIDTH for text in below)


def escape(text: str) -> str:
    """Return a text escaped for LaTeX."""
    return "".join(_character(character) for character in " ".join(text.split()))


def _character(character: str) -> str:
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    latin = "À" <= character <= "ſ" and character not in _NO_LETTERS
    return character if character.isascii() or latin else "?"


def _floats(shown: Sheet) -> list[list[str]]:
    """Return the lines of each float: as many tabulars as fit a page."""
    widths = [
        max([*(len(line) for line in title), *(len(row[i].text) for row in shown.body)])
        for i, title in enumerate(shown.header)
    ]
    floats: list[list[str]] = []
    used = PAGE_LINES
    for rows in _pages(shown):
        for panel in panels(widths, leading_texts(shown), PANEL_WIDTH, gap=2):
            lines = _tabular(shown, panel, rows)
            if used + len(lines) > PAGE_LINES:
                floats.append(lines)
                used = len(lines)
            else:
                floats[-1] += [r"  \par\medskip", *lines]
                used += len(lines) + 1
    return floats


def _pages(shown: Sheet) -> list[range]:
    """Split the rows so that each part fits a page, between sections if possible."""
    longest = PAGE_LINES - 14
    starts, used = [0], 0
    ends = [len(shown.body)] * len(shown.body)
    for row in reversed(range(len(shown.body) - 1)):
        ends[row] = ends[row + 1] if shown.sections[row] == shown.sections[row + 1] else row + 1
    for row, section in enumerate(ends):
        begins = bool(shown.sections[row]) and (row == 0 or shown.sections[row] != shown.sections[row - 1])
        # A section's heading takes a line, with some space above it.
        lines = 3 if begins else 1
        if used and (used + lines > longest or (begins and used + 2 + section - row > longest)):
            starts.append(row)
            used = 0
        used += lines
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(shown.body)], strict=True)]


def _tabular(shown: Sheet, panel: list[int], rows: range) -> list[str]:
    align = "".join("r" if shown.measured[i] else "l" for i in panel)
    lines = [rf"  \begin{{tabular}}{{@{{}}{align}@{{}}}}", r"    \toprule"]
    height = max(len(shown.header[i]) for i in panel)
    for level in range(height):
        # A short heading goes on the last line, next to its figures.
        titles = [("",) * (height - len(shown.header[i])) + shown.header[i] for i in panel]
        lines += _heading([title[level] for title in titles], last=level == height - 1)
    lines.append(r"    \midrule")
    previous = ""
    for number in rows:
        row, section = shown.body[number], shown.sections[number]
        if section and section != previous:
            lines += [r"    \addlinespace"] if number > rows.start else []
            lines.append(rf"    \multicolumn{{{len(panel)}}}{{@{{}}l}}{{\textit{{{escape(section)}}}}} \\")
        lines.append(_line([_field(row[i]) for i in panel]))
        previous = section
    return [*lines, r"    \bottomrule", r"  \end{tabular}"]


def _heading(titles: list[str], *, last: bool) -> list[str]:
    """Return a line of headings; above the last line, neighbours with the same text share a heading."""
    groups = [(text, len(list(members))) for text, members in itertools.groupby(titles)]
    if last or all(size == 1 or not text for text, size in groups):
        return [_line([escape(text) for text in titles])]
    fields, rules, start = [], [], 1
    for text, size in groups:
        if text and size > 1:
            fields.append(rf"\multicolumn{{{size}}}{{c}}{{{escape(text)}}}")
            rules.append(rf"\cmidrule(lr){{{start}-{start + size - 1}}}")
        else:
            fields += [escape(text)] * size
        start += size
    return [_line(fields), "    " + " ".join(rules)]


def _line(fields: list[str]) -> str:
    return "    " + " & ".join(map(_guarded, fields)) + r" \\"


def _guarded(text: str) -> str:
    """Return a text in braces if LaTeX would read its start as an argument or star of the line break before it."""
    return "{" + text + "}" if text.startswith(("[", "*")) else text


def _field(field: Shown) -> str:
    text = escape(field.text)
    return (rf"\textbf{{{text}}}" if field.best else text) + _number(field.footnote)


def _number(footnote: int) -> str:
    return rf"\textsuperscript{{{footnote}}}" if footnote else ""


def _below(shown: Sheet) -> list[str]:
    lines = [f"{escape(mark)}: {escape(meaning)}." for mark, meaning in shown.marks.items()]
    lines += [escape(f"Bold: {shown.best}.")] * bool(shown.best)
    lines += [escape(line) for line in shown.legend]
    lines += [f"{_number(number)} {escape(text)}" for number, text in enumerate(shown.footnotes, 1)]
    return lines + [escape(note) for note in shown.notes]
