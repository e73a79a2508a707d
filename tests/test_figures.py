from __future__ import annotations

import re
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import pytest
import synthetic

from advser.leaderboards.curves import EPSILON, STEPS, panels
from advser.leaderboards.figures import draw, write_figures
from advser.leaderboards.rows import rows
from advser.results import Results, select


@pytest.fixture(scope="module")
def made() -> Results:
    return select(synthetic.results(), {"model": "cnn4"})


def test_figures_are_written_in_both_formats(made: Results, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    written = write_figures(select(made, {"defense": "none"}), tmp_path)
    assert dict(matplotlib.rcParams) == before
    assert {path.name for path in written} == {
        f"{name}.{suffix}"
        for name in (
            "uar-against-epsilon", "accuracy-against-epsilon", "wer-against-epsilon", "uar-against-steps",
            "accuracy-against-steps",
        )
        for suffix in ("svg", "png")
    }  # fmt: skip
    for path in written:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
            assert not re.search(r"\d{4}-\d\d-\d\dT", path.read_text(encoding="utf-8"))
        else:
            data = path.read_bytes()
            width, height = struct.unpack(">II", data[16:24])
            assert data.startswith(b"\x89PNG")
            assert min(width, height) > 400


def test_the_same_results_give_the_same_svg(made: Results, tmp_path: Path) -> None:
    small = select(made, {"defense": "none", "domain": "waveform"})
    first = {path.name: path.read_bytes() for path in write_figures(small, tmp_path / "a")}
    second = {path.name: path.read_bytes() for path in write_figures(small, tmp_path / "b")}
    assert first
    assert first == second


def test_curves_hold_the_figures_of_the_table(made: Results) -> None:
    drawn = panels(rows(made), "uar", EPSILON)
    assert {panel.place for panel in drawn} == {"waveform", "spectrogram, judged as features"}
    panel = next(p for p in drawn if p.place == "waveform" and "none" in p.victim)
    assert panel.x_label == "L∞ budget ε (full scale, [−1, 1])"
    curve = next(curve for curve in panel.curves if not curve.control)
    table = select(made, {"defense": "none", "domain": "waveform", "attack": "ifgsm", "access": "white-box"}).table
    expected = table[table["metric"] == "uar"].set_index("epsilon")["value"]
    assert {x: cell.value for x, cell in curve.points} == expected.to_dict()
    assert [x for x, _ in curve.points] == sorted(expected.index)
    assert [curve.name for curve in panel.curves if curve.control] == ["noise"]


def test_no_line_is_drawn_across_a_failed_cell(made: Results) -> None:
    drawn = panels(rows(made), "uar", EPSILON)
    panel = next(p for p in drawn if p.place != "waveform" and "vanilla" in p.victim)
    curve = next(curve for curve in panel.curves if curve.name == "fgsm, true labels")
    assert [cell.status for _, cell in curve.points] == ["ok", "failed", "ok"]
    line = next(line for line in draw([panel], "UAR").axes[0].get_lines() if line.get_label() == curve.name)
    values = [float(value) for value in line.get_ydata()]
    assert values[1] != values[1]


def test_steps_are_an_axis_where_they_vary(made: Results) -> None:
    drawn = panels(rows(made), "uar", STEPS)
    assert {panel.place for panel in drawn} == {"spectrogram, judged as features"}
    assert {tuple(x for x, _ in curve.points) for panel in drawn for curve in panel.curves} == {(3.0, 10.0)}


def test_the_legend_names_every_curve_once(made: Results) -> None:
    drawn = panels(rows(made), "uar", EPSILON)
    names = [text.get_text() for text in draw(drawn, "UAR").legends[0].get_texts()]
    assert sorted(names) == sorted({"clean", *(curve.name for panel in drawn for curve in panel.curves)})


def test_controls_are_dashed_and_grey(made: Results) -> None:
    drawn = panels(rows(made), "uar", EPSILON)
    for axes in draw(drawn, "UAR").axes:
        for line in axes.get_lines():
            if line.get_label() == "noise":
                assert (line.get_linestyle(), line.get_color()) == ("--", "#6b6b6b")
            elif line.get_label() != "clean":
                assert line.get_linestyle() != "--"


def test_one_budget_gives_no_figure(made: Results, tmp_path: Path) -> None:
    assert write_figures(select(made, {"epsilon": "0.001"}), tmp_path) == []
