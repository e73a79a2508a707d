from __future__ import annotations

import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import synthetic

from advser.errors import InputError
from advser.leaderboards.boards.board import Board, Cell
from advser.leaderboards.boards.catalogue import BOARDS
from advser.leaderboards.formats.latex import escape
from advser.leaderboards.formats.render import FORMATS, render
from advser.leaderboards.write import write_all
from advser.results.folder import Results
from advser.results.selection import select

RESULTS = synthetic.results()
CASES = (*BOARDS, "empty", "one cell", "ranked leaderboard", "ranked defenses")
boards = pytest.mark.parametrize("board", CASES, indirect=True)


@cache
def cases() -> dict[str, Board]:
    ranked = synthetic.ranked()
    single = {"attack": "none", "model": "cnn4", "defense": "none"}
    return {
        **{name: build(RESULTS) for name, build in BOARDS.items()},
        "empty": BOARDS["transfer"](select(RESULTS, {"access": "blind"})),
        "one cell": BOARDS["attacks"](select(RESULTS, single)),
        "ranked leaderboard": BOARDS["leaderboard"](ranked),
        "ranked defenses": BOARDS["defenses"](ranked),
    }


@pytest.fixture
def board(request: pytest.FixtureRequest) -> Board:
    return cases()[request.param]


class Tags(HTMLParser):
    """A parser that checks that tags nest, and collects identifiers, addresses and the cells of each table row."""

    VOID = frozenset({"br", "img", "link", "meta", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.rows: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [str(given["id"])] if "id" in given else []
        self.addresses += [str(given[name]) for name in ("src", "href") if name in given]
        if tag == "tr":
            self.rows.append(0)
        if tag in ("th", "td"):
            self.rows[-1] += int(given.get("colspan") or 1)
            assert tag == "td" or given["scope"] in ("col", "row", "rowgroup")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    return tags


@pytest.mark.parametrize("name", FORMATS)
@boards
def test_every_board_renders_in_every_format_the_same_each_time(board: Board, name: str) -> None:
    text = render(board, name)
    assert text
    assert text == text.strip("\n") == render(board, name)


@boards
@pytest.mark.parametrize("width", [100, 120])
def test_terminal_lines_fit(board: Board, width: int) -> None:
    text = render(board, "terminal", width=width)
    assert [line for line in text.split("\n") if len(line) > width] == []
    titles = {line for column in board.columns for line in column.title} if board.frame.size else set()
    assert all(title in text for title in titles)


@boards
def test_terminal_shows_every_figure(board: Board) -> None:
    text = render(board, "terminal")
    for column in board.columns:
        for cell in board.frame[column.key] if column.measured else []:
            if cell.status == "ok":
                assert f"{cell.value:.{column.decimals}f}".lstrip("-") in text


@pytest.mark.parametrize("name", ["terminal", "markdown", "latex", "html"])
def test_an_unmeasured_figure_is_a_mark_and_never_a_number(name: str) -> None:
    failed = {"model": "cnn4", "defense": "vanilla", "attack": "fgsm", "epsilon": "0.06", "labels": "true"}
    single = select(RESULTS, failed)
    assert not single.table["value"].notna().any()
    text = render(BOARDS["attacks"](single), name)
    assert {"terminal": "†¹", "markdown": "†¹", "latex": r"$\dagger$\textsuperscript{1}", "html": "†<sup>"}[
        name
    ] in text
    assert "perturbation has NaN" in text
    assert not re.search(r"\b0\.0+\b|\bnan\b", text)


@pytest.mark.parametrize("name", ["terminal", "markdown", "latex", "html"])
def test_inapplicable_and_missing_figures_have_their_own_marks(name: str) -> None:
    text = render(BOARDS["attacks"](select(RESULTS, {"domain": "spectrogram", "labels": "true"})), name)
    assert "n/a" in text
    assert "not applicable (features are no sound)" in text
    text = render(BOARDS["defenses"](RESULTS), name)
    assert ("--: not among" if name == "latex" else "–: not among") in text


@boards
def test_markdown_rows_have_as_many_fields_as_the_header(board: Board) -> None:
    lines = [line for line in render(board, "markdown").split("\n") if line.startswith("|")]
    fields = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert len(fields) == (0 if board.frame.empty else 1)
    assert len(lines) == (0 if board.frame.empty else len(board.frame) + 2)


@boards
def test_csv_is_lossless(board: Board) -> None:
    read = pd.read_csv(io.StringIO(render(board, "csv")), keep_default_na=False, dtype=str)
    assert len(read) == len(board.frame)
    for key in board.index.columns:
        values = board.index[key].tolist()
        texts = ["" if value is None else str(value) for value in values]
        assert read[key].tolist() == texts
    for column in board.columns:
        if column.measured:
            for field in ("value", "low", "high"):
                texts = read[f"{column.key} {field}"].tolist()
                values = [getattr(cell, field) for cell in board.frame[column.key]]
                assert [math.isnan(value) for value in values] == [text == "" for text in texts]
                assert [float(text) for text in texts if text != ""] == [v for v in values if not math.isnan(v)]
            assert read[f"{column.key} status"].tolist() == [cell.status for cell in board.frame[column.key]]
            assert read[f"{column.key} reason"].tolist() == [cell.reason for cell in board.frame[column.key]]


@boards
def test_latex_is_well_formed(board: Board) -> None:
    text = render(board, "latex")
    opened = re.findall(r"\\begin\{(\w+)\}", text)
    assert sorted(opened) == sorted(re.findall(r"\\end\{(\w+)\}", text))
    assert text.count(r"\label{") == 1
    for tabular in re.findall(r"\\begin\{tabular\}\{@\{\}(\w+)@\{\}\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        align, body = tabular
        lines = [line for line in body.split("\n") if line.endswith(r"\\") and "multicolumn" not in line]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(align)}
    assert text.isascii()


def test_latex_escapes_special_characters() -> None:
    assert escape("50 %_{#}&$~^\\") == (r"50 \%\_\{\#\}\&\$\textasciitilde{}\textasciicircum{}\textbackslash{}")
    assert escape("ä ε 中 Đ") == r"ä $\varepsilon$ ? ?"
    assert escape('"') == "''"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_with_booktabs_alone(tmp_path: Path) -> None:
    notes = ('"Đą"', "[x] begins like an argument", "*begins like a star")
    odd = replace(next(iter(cases().values())), title='[*] "ę"', notes=notes, span=True)
    tables = "\n".join(render(board, "latex") for board in [*cases().values(), odd])
    document = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n" + tables + "\n\\end{document}\n"
    (tmp_path / "boards.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "boards.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Float too large" not in done.stdout
    assert "Overfull \\hbox" not in done.stdout


@boards
def test_html_nests_and_its_rows_are_equally_long(board: Board) -> None:
    tags = parsed(render(board, "html"))
    assert len(set(tags.rows)) == (0 if board.frame.empty else 1)
    assert len(tags.ids) == len(set(tags.ids))
    assert all(address.startswith("#") and address[1:] in tags.ids for address in tags.addresses)


def test_texts_are_escaped_in_html() -> None:
    text = render(cases()["attacks"], "html")
    assert "mean &lt;nothing&gt;" in text
    assert "<nothing>" not in text


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="format: got 'pdf', expected terminal, markdown, latex, csv, html"):
        render(cases()["attacks"], "pdf")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    small = select(RESULTS, {"model": "cnn4", "defense": "none"})
    paths = write_all(small, folder)
    assert all(path.is_file() for path in paths)
    assert {path.relative_to(folder) for path in paths} == {
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file()
    }
    return folder


def test_all_figures_that_tie_with_the_best_are_bold() -> None:
    board = BOARDS["defenses"](synthetic.ranked())
    cells: list[Cell] = board.frame["clean"].tolist()
    shown = [f"{cell.value:.3f} ({cell.standing.interval.replace('–', '--')})" for cell in cells if cell.standing]
    tied = [cell.standing.tie == 1 for cell in cells if cell.standing]
    assert tied.count(True) > 2, "more than the best of each of two models"
    tex, html = render(board, "latex"), render(board, "html")
    for text, best in zip(shown, tied, strict=True):
        assert (rf"\textbf{{{text}}}" in tex) == best
        assert (f"<strong>{text.replace('--', '–')}</strong>" in html) == best
    assert "Bold: the best of their section's column, and all that tie with it." in tex
    assert "Bold figures are the best of their section's column, and all that tie with it." in unescape(html)
    table = pd.read_csv(io.StringIO(render(board, "csv")))
    assert table["clean rank"].tolist() == [cell.standing.rank for cell in cells if cell.standing]


def test_write_all_writes_every_board_in_every_file_format(written: Path) -> None:
    names = {f"{name}.{suffix}" for name in BOARDS for suffix in ("txt", "md", "tex", "csv")}
    assert {path.name for path in (written / "boards").iterdir()} == names


def test_the_page_needs_no_network(written: Path) -> None:
    html = (written / "index.html").read_text(encoding="utf-8")
    tags = parsed(html)
    assert len(tags.ids) == len(set(tags.ids))
    assert set(BOARDS) <= set(tags.ids)
    cells: set[str] = set()
    for path in written.glob("page/cells-*.js"):
        cells |= {*json.loads(path.read_text(encoding="utf-8").partition(", ")[2].rpartition(")")[0])}
    for address in tags.addresses:
        inside = address[1:] in tags.ids or address.removeprefix("#cell=") in cells
        assert inside or address.startswith("data:") or (written / address).is_file(), address
    assert "http" not in html
    assert "Made-up results" in html
    assert "fgsm: perturbation has NaN" in html
    assert html.count("These numbers are made up") == 1


def test_results_without_any_attack_have_boards_too(tmp_path: Path) -> None:
    clean: Results = select(RESULTS, {"attack": "none"})
    assert (tmp_path / "index.html") in write_all(clean, tmp_path)
    assert not list(tmp_path.rglob("*.svg"))
