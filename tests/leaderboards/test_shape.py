"""Boards shaped for a paper: columns, decimals, marks, pivots, caption and label; by library and command line."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import synthetic
from commandline import advser_here

from advser.errors import InputError
from advser.leaderboards.boards.board import MISSING, Board, Cell
from advser.leaderboards.boards.catalogue import BOARDS
from advser.leaderboards.boards.flags import COLUMN as FLAGS
from advser.leaderboards.boards.shape import Shape, pivoted, shaped, with_columns
from advser.leaderboards.formats.latex import latex
from advser.leaderboards.formats.render import render
from advser.results.folder import Results
from advser.results.selection import select


@pytest.fixture(scope="module")
def results() -> Results:
    return select(synthetic.ranked(), {"model": "cnn4", "domain": "waveform", "access": "white-box"})


@pytest.fixture(scope="module")
def board(results: Results) -> Board:
    return BOARDS["attacks"](results)


def test_columns_are_in_the_given_order_with_texts_first(board: Board) -> None:
    cut = shaped(board, Shape(columns=("pesq", "attack", "uar", "defense")))
    assert [column.key for column in cut.columns] == ["attack", "defense", "pesq", "uar"]
    assert list(cut.frame) == ["attack", "defense", "pesq", "uar"]
    assert cut.frame["uar"].tolist() == board.frame["uar"].tolist()


def test_a_key_that_all_rows_share_may_be_named_and_stays_a_fact(board: Board) -> None:
    assert "model" not in board.frame
    assert with_columns(board, ("model", "attack", "uar")).frame.equals(with_columns(board, ("attack", "uar")).frame)


def test_decimals_marks_intervals_notes_caption_and_label(board: Board) -> None:
    shape = Shape(
        columns=("attack", "uar", "pesq"), decimals={"": 1, "uar": 2}, bold=False, intervals=False, notes=False,
        caption="All & everything", label="tab:mine",
    )  # fmt: skip
    text = latex(shaped(board, shape))
    assert r"\caption{All \& everything}\label{tab:mine}" in text
    assert r"\textbf" not in text
    assert "[" not in text.partition(r"\begin{tabular}")[2].partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    figures = re.findall(r"& (\d\.\d+) & (\d\.\d+)", text)
    assert figures
    assert {(len(uar), len(pesq)) for uar, pesq in figures} == {(4, 3)}
    assert shaped(board, shape).notes == ()
    assert latex(shaped(board, Shape())) == latex(board)


def test_a_key_that_all_rows_of_a_selection_share_may_be_a_column_and_the_pivot(results: Results) -> None:
    selected = select(results, {"domain": "waveform", "defense": "none"})
    board = BOARDS["attacks"](selected)
    cut = shaped(board, Shape(columns=("attack", "epsilon", "defense", "uar"), pivot="defense"))
    assert "attack" in cut.frame
    assert "defense" not in cut.frame


def test_a_given_caption_moves_the_facts_to_the_notes(board: Board) -> None:
    cut = shaped(board, Shape(caption="Mine"))
    assert (cut.title, cut.facts) == ("Mine", ())
    assert cut.notes[0] == f"{', '.join(board.facts)}."


def test_a_pivot_shows_the_values_of_a_key_side_by_side_with_every_figure(board: Board) -> None:
    narrow = with_columns(board, ("defense", "attack", "epsilon", "uar", "pesq"))
    wide = pivoted(narrow, "defense")
    assert not wide.sectioned
    names = list(dict.fromkeys(narrow.frame["defense"]))
    assert len(names) > 1
    assert [column.key for column in wide.columns[-2 * len(names) :]] == [
        f"{metric}.{name}" for metric in ("uar", "pesq") for name in names
    ]
    before = {(row.attack, row.epsilon, row.defense): row.uar for row in narrow.frame.itertuples(index=False)}
    shown = 0
    for record in wide.frame.to_dict("records"):
        for name in names:
            expected = before.get((record["attack"], record["epsilon"], name), MISSING)
            assert record[f"uar.{name}"] is expected
            shown += expected is not MISSING
    assert shown == len(before)
    heading = latex(wide).partition(r"\toprule")[2].partition(r"\midrule")[0]
    assert heading.count(rf"\multicolumn{{{len(names)}}}{{c}}") == 2
    assert heading.count(r"\cmidrule(lr)") == 2


def test_flags_do_not_split_rows_of_a_pivot_and_notes_follow_their_columns(board: Board) -> None:
    narrow = with_columns(board, ("defense", "attack", "epsilon", "uar"))
    marks = ["A B" if defense == "none" else "" for defense in narrow.frame["defense"]]
    flagged = replace(
        narrow,
        columns=(*narrow.columns[:-1], FLAGS, narrow.columns[-1]),
        frame=narrow.frame.assign(flags=marks),
        notes=("of all", "of flags", "of an absent column"),
        notes_of={"flags": ["of flags"], "pesq": ["of an absent column"]},
    )
    wide = pivoted(flagged, "defense")
    assert len(wide.frame) == len(pivoted(narrow, "defense").frame)
    # A column of texts that are all empty is left out.
    assert [column.key for column in wide.columns if column.key.startswith("flags")] == ["flags.none"]
    assert set(wide.frame["flags.none"]) == {"A B"}
    assert wide.notes == flagged.notes
    assert with_columns(flagged, ("attack", "uar")).notes == ("of all",)
    assert with_columns(flagged, ("attack", "flags", "uar")).notes == ("of all", "of flags")


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda board: shaped(board, Shape(columns=("attack", "defence"))), "expected .*did you mean 'defense'"),
        (lambda board: shaped(board, Shape(pivot="defence")), "pivot: got 'defence', .*did you mean 'defense'"),
        (lambda board: shaped(board, Shape(columns=("uarr",))), "columns: got 'uarr', expected .*did you mean 'uar'"),
        (lambda board: shaped(board, Shape(columns=("uar", "uar"))), "got 'uar' twice"),
        (lambda board: shaped(board, Shape(decimals={"attack": 2})), "decimals: got 'attack', expected "),
        (lambda board: shaped(board, Shape(pivot="uar")), "pivot: got 'uar', expected "),
        (lambda board: shaped(board, Shape(columns=("split",))), "columns: got split, the same in all rows, expected "),
        (lambda _: Shape(label="a}b"), r"label a\}b: got '\}', expected letters, digits"),
        (
            lambda board: shaped(board, Shape(columns=("defense", "uar"), pivot="defense")),
            "pivot defense: got two rows for",
        ),
    ],
)
def test_an_impossible_shape_is_refused(cut: Callable[[Board], Board], message: str, board: Board) -> None:
    with pytest.raises(InputError, match=message):
        cut(board)


def test_csv_has_every_figure_in_full_whatever_the_shape(board: Board) -> None:
    text = render(shaped(board, Shape(decimals={"": 1}, bold=False, intervals=False)), "csv")
    read = pd.read_csv(io.StringIO(text))
    cells: list[Cell] = board.frame["uar"].tolist()
    values = [cell.value for cell in cells]
    pd.testing.assert_series_equal(read["uar value"], pd.Series(values, name="uar value"), check_exact=True)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize(
    "shape",
    [
        Shape(pivot="defense", span=True),
        Shape(columns=("attack", "uar"), label="tab:a", notes=False),
        Shape(columns=("attack", "uar"), caption='[*] "Đą" 50 % of\\it_', span=True),
    ],
)
def test_shaped_boards_compile(shape: Shape, board: Board, tmp_path: Path) -> None:
    body = latex(shaped(board, shape))
    source = "\n".join(
        [r"\documentclass[twocolumn]{article}", r"\usepackage{booktabs}", r"\begin{document}", body, r"\end{document}"]
    )
    (tmp_path / "board.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "board.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_command_line_shapes_boards(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path)
    done = advser_here(
        "board", tmp_path, "--columns", "defense,attack,epsilon,uar", "--pivot", "defense", "--decimals", "2",
        "--no-intervals", "--no-notes", "--format", "latex", "--label", "tab:x", "--caption", "Ours",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert r"\caption{Ours}\label{tab:x}" in done.stdout
    for options in (("--decimals", "two"), ("--decimals", "uar=99"), ("--pivot", "nothing"), ("--columns", "x")):
        done = advser_here("board", tmp_path, *options)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
