"""Texts of others on boards, in terminals, spreadsheets, XML and annotations."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import synthetic
from commandline import advser_here
from hypothesis import given
from hypothesis import strategies as st

from advser.leaderboards.boards.catalogue import BOARDS
from advser.leaderboards.boards.texts import spreadsheet_field, visible
from advser.leaderboards.formats.render import render
from advser.results.folder import Results
from advser.suite.loading import load

EVIL = "\x1b]0;title\x07\x1b[31m\x00\x08\u202e\x9b31m\ufffe=cmd|' /C calc'!A0\r\n::error::x"
"""A text that colours a terminal, turns its order, breaks lines and XML, and computes."""

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "＝")


def with_texts(evil: str) -> Results:
    """Results with a text as name of a model, and in every other place that boards print."""
    results = synthetic.results()
    table = results.table.assign(model=results.table["model"].replace({"cnn4": evil}))
    table.loc[table["status"] == "failed", "reason"] = evil
    run = {
        **results.run,
        "suite": load("mock").model_dump(mode="json"),
        "notes": [evil],
        "metrics": {"uar": {"title": evil, "unit": evil}},
    }
    return Results(table, results.examples, run)


@pytest.mark.parametrize("kind", ["terminal", "markdown", "latex", "csv"])
@pytest.mark.parametrize("name", BOARDS)
def test_no_board_prints_a_control_character(name: str, kind: str) -> None:
    text = render(BOARDS[name](with_texts(EVIL)), kind)
    assert all(character.isprintable() or character == "\n" for line in text.splitlines() for character in line)
    assert text.isprintable() or "\n" in text
    assert "\u202e" not in text


@pytest.mark.parametrize("start", FORMULAS)
@pytest.mark.parametrize("name", BOARDS)
def test_no_field_of_a_csv_is_a_formula(name: str, start: str) -> None:
    text = render(BOARDS[name](with_texts(f"{start}cmd|' /C calc'!A0")), "csv")
    fields = [field for row in csv.reader(io.StringIO(text, newline="")) for field in row]
    assert any("calc" in field for field in fields) or name not in ("attacks", "models")
    for field in fields:
        assert not field.startswith(FORMULAS) or float(field) is not None


@pytest.mark.parametrize("number", ["-1", "+1.5", "-1e-05", "-.5"])
def test_numbers_stay_numbers(number: str) -> None:
    assert spreadsheet_field(number) == number


@given(text=st.text(st.characters(exclude_categories=[])))
def test_any_text_becomes_a_line_that_xml_holds(text: str) -> None:
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    element = ElementTree.Element("a", name=shown)
    assert ElementTree.fromstring(ElementTree.tostring(element, "utf-8")).get("name") == shown


@pytest.mark.parametrize("kind", ["junit", "github", "terminal", "csv", "markdown"])
def test_a_comparison_prints_no_control_character(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    base = with_texts(EVIL)
    uar = (base.table["metric"] == "uar") & (base.table["status"] == "ok")
    table = base.table.assign(value=np.where(uar, base.table["value"] - 0.2, base.table["value"]))
    for name, results in (("base", base), ("new", replace(base, table=table))):
        (tmp_path / name).mkdir()
        results.save(tmp_path / name)
    words = ("compare", "base", "new", "--fail-on", "uar=-0.01", "--level", "1", "--format", kind)
    done = advser_here(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert all(line.isprintable() for line in done.stdout.split("\n"))
    if kind == "junit":
        suite = ElementTree.fromstring(done.stdout)
        assert any("calc" in case.get("name", "") for case in suite.iter("testcase"))
    if kind == "github":
        assert all(line.startswith("::error title=AdvSER") for line in done.stdout.splitlines())
