from __future__ import annotations

import itertools
import json
import re
import struct
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
import synthetic
from commandline import advser_here
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pydantic import ValidationError

from advser.api import load
from advser.commands.usage import drawing_processes
from advser.errors import InputError
from advser.leaderboards.boards.board import Cell
from advser.leaderboards.boards.rows import rows
from advser.leaderboards.figures import files
from advser.leaderboards.figures.budget_curves import budget_figures, draw
from advser.leaderboards.figures.curves import EPSILON, STEPS, Curve, Panel, panels
from advser.leaderboards.figures.drawing import SCREEN, Paper, look
from advser.leaderboards.figures.files import write_figures
from advser.results.folder import Results
from advser.results.selection import select, with_metrics
from advser.suite.exhibits import Profile


@pytest.fixture(scope="module")
def results() -> Results:
    return select(synthetic.results(), {"model": "cnn4"})


def written_to(directory: Path, results: Results) -> list[Path]:
    return write_figures(budget_figures(results, SCREEN), directory)


def test_several_processes_write_the_same_figures_in_the_same_order(results: Results, tmp_path: Path) -> None:
    drawn = {f"{name}-{again}": drawing for again in "12" for name, drawing in budget_figures(results, SCREEN).items()}
    assert len(drawn) >= files.MANY
    alone = write_figures(drawn, tmp_path / "alone")
    announced: list[tuple[str, int]] = []
    with drawing_processes() as processes:
        together = write_figures(
            drawn, tmp_path / "together", None, lambda *figure: announced.append(figure), processes
        )
        with pytest.raises(InputError, match="absent"):
            refused = partial(Results.load, tmp_path / "absent")
            write_figures({"refused": refused, **drawn}, tmp_path / "refused", processes=processes)
    assert announced == [(name, number) for number, name in enumerate(drawn)]
    assert [path.name for path in together] == [path.name for path in alone]
    assert [path.read_bytes() for path in together] == [path.read_bytes() for path in alone]


def test_figures_are_written_in_both_formats(results: Results, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    written = written_to(tmp_path, select(results, {"defense": "none"}))
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


def test_the_same_results_give_the_same_svg(results: Results, tmp_path: Path) -> None:
    small = select(results, {"defense": "none", "domain": "waveform"})
    first = {path.name: path.read_bytes() for path in written_to(tmp_path / "a", small)}
    second = {path.name: path.read_bytes() for path in written_to(tmp_path / "b", small)}
    assert first
    assert first == second


def test_curves_have_the_figures_of_the_table(results: Results) -> None:
    drawn = panels(rows(results), "uar", EPSILON)
    assert {panel.place for panel in drawn} == {"waveform", "spectrogram, judged as features"}
    panel = next(p for p in drawn if p.place == "waveform" and "none" in p.victim)
    assert panel.x_label == "L∞ budget ε (full scale, [−1, 1])"
    curve = next(curve for curve in panel.curves if not curve.control)
    table = select(results, {"defense": "none", "domain": "waveform", "attack": "ifgsm", "access": "white-box"}).table
    expected = table[table["metric"] == "uar"].set_index("epsilon")["value"]
    assert {x: cell.value for x, cell in curve.points} == expected.to_dict()
    assert [x for x, _ in curve.points] == sorted(expected.index)
    assert [curve.name for curve in panel.curves if curve.control] == ["noise"]


def test_no_line_is_drawn_across_a_failed_cell(results: Results) -> None:
    drawn = panels(rows(results), "uar", EPSILON)
    panel = next(p for p in drawn if p.place != "waveform" and "vanilla" in p.victim)
    curve = next(curve for curve in panel.curves if curve.name == "fgsm, true labels")
    assert [cell.status for _, cell in curve.points] == ["ok", "failed", "ok"]
    line = next(line for line in draw([panel], "UAR").axes[0].get_lines() if line.get_label() == curve.name)
    values = [float(value) for value in line.get_ydata()]
    assert values[1] != values[1]


def test_steps_are_an_axis_where_they_vary(results: Results) -> None:
    drawn = panels(rows(results), "uar", STEPS)
    assert {panel.place for panel in drawn} == {"spectrogram, judged as features"}
    assert {tuple(x for x, _ in curve.points) for panel in drawn for curve in panel.curves} == {(3.0, 10.0)}


def test_no_curve_against_steps_goes_through_cells_of_other_parameters(results: Results) -> None:
    again = results.table[results.table["params"].str.contains('"steps"')].copy()
    again["params"] = [json.dumps({**json.loads(text), "alpha": 0.1}) for text in again["params"]]
    drawn = panels(rows(replace(results, table=pd.concat([results.table, again], ignore_index=True))), "uar", STEPS)
    names = {curve.name for panel in drawn for curve in panel.curves}
    assert names == {
        f"{attack}, true labels, ε = {epsilon} z"
        for attack in ("ifgsm", "ifgsm (alpha=0.1)")
        for epsilon in ("0.02", "0.06", "0.1")
    }
    for panel in drawn:
        for curve in panel.curves:
            assert len({x for x, _ in curve.points}) == len(curve.points)


def test_the_budget_of_nested_attacks_equals_the_outer_one_and_is_not_shown_twice(results: Results) -> None:
    table = results.table[results.table["attack"].eq("fgsm")].copy()
    budgets = [json.loads(text)["epsilon"] for text in table["params"]]
    inner = [[{"name": "apgd", "params": {"epsilon": budget, "steps": 5}}] for budget in budgets]
    params = [json.dumps({"epsilon": b, "attacks": nested}) for b, nested in zip(budgets, inner, strict=True)]
    named = {row.attack for row in rows(replace(results, table=table.assign(attack="ensemble", params=params)))}
    assert named == {"ensemble"}
    params[0] = params[0].replace('"steps": 5', '"steps": 6')
    named = {row.attack for row in rows(replace(results, table=table.assign(attack="ensemble", params=params)))}
    assert len(named) > 1, "a parameter of nested attacks that differs is shown"


def test_the_legend_names_every_curve_once(results: Results) -> None:
    drawn = panels(rows(results), "uar", EPSILON)
    names = [text.get_text() for text in draw(drawn, "UAR").legends[0].get_texts()]
    assert sorted(names) == sorted({"clean", *(curve.name for panel in drawn for curve in panel.curves)})


def test_controls_are_dashed_and_grey(results: Results) -> None:
    drawn = panels(rows(results), "uar", EPSILON)
    for axes in draw(drawn, "UAR").axes:
        for line in axes.get_lines():
            if line.get_label() == "noise":
                assert (line.get_linestyle(), line.get_color()) == ("--", "#6b6b6b")
            elif line.get_label() != "clean":
                assert line.get_linestyle() != "--"


def test_a_single_budget_gives_no_figure(results: Results, tmp_path: Path) -> None:
    assert written_to(tmp_path, select(results, {"epsilon": "0.001"})) == []


def of_many(results: Results, parts: tuple[str, ...], defenses: int, places: tuple[str, ...]) -> Results:
    table = results.table[results.table["defense"].eq("none") & results.table["metric"].eq("uar")]
    table = table[table["domain"].isin(places) | table["attack"].eq("none")]
    copies = [
        table.assign(part=part, defense=f"defense-{number:02}") for part in parts for number in range(defenses)
    ]  # fmt: skip
    return Results(pd.concat(copies, ignore_index=True), results.examples, results.run)


def size(path: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return int(width), int(height)


def test_each_part_has_a_figure_and_a_long_figure_is_continued(results: Results) -> None:
    many = of_many(results, ("fair", "as_published"), 14, ("waveform", "spectrogram"))
    many = select(many, {"labels": "true", "access": "white-box"})
    drawn = budget_figures(many, SCREEN)
    assert [name for name in drawn if "epsilon" in name] == [
        "uar-against-epsilon-fair", "uar-against-epsilon-fair_2",
        "uar-against-epsilon-as-published", "uar-against-epsilon-as-published_2",
    ]  # fmt: skip
    figure = drawn["uar-against-epsilon-fair"]()
    assert figure is not None
    assert figure.get_size_inches()[1] < 32


def test_models_are_side_by_side_with_a_single_place_of_attack(results: Results, tmp_path: Path) -> None:
    small = of_many(results, ("",), 13, ("waveform",))
    (picture,) = [path for path in written_to(tmp_path, small) if path.suffix == ".png"]
    assert picture.stem == "uar-against-epsilon"
    width, height = size(picture)
    assert height < 2.1 * width
    axes = draw(panels(rows(small), "uar", EPSILON), "UAR").axes
    assert len(axes) == 13
    assert sum(bool(place.get_xlabel()) for place in axes) == 3


def test_no_figure_has_a_name_that_exhibits_may_have(results: Results) -> None:
    many = of_many(results, ("", "fair"), 40, ("waveform",))
    names = {*budget_figures(many, SCREEN), *budget_figures(results, SCREEN)}
    assert {"uar-against-epsilon", "wer-against-epsilon", "uar-against-steps", "uar-against-epsilon-fair_2"} <= names
    for name in names:
        with pytest.raises(ValidationError):
            Profile(profile=name, title="One", metrics=["uar"])


def test_no_two_curves_look_the_same() -> None:
    assert len({tuple(sorted(look(number).items())) for number in range(24)}) == 24
    curves = [
        Curve(
            f"attack-{number}, {labels}", f"attack-{number}", labels, False, ((0.1, Cell(0.5, 0.4, 0.6, 10, 0, "ok")),)
        )
        for number in range(24)
        for labels in ("true", "predicted", "soft")
    ]
    lines = draw([Panel("one", "waveform", "ε", None, tuple(curves))], "UAR").axes[0].get_lines()
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}) == len(curves)


def test_a_curve_looks_the_same_in_all_parts_of_a_figure(results: Results) -> None:
    drawn = panels(rows(results), "uar", EPSILON)
    alone = [panel for panel in drawn if panel.place != "waveform"][-1:]
    colors = {line.get_label(): line.get_color() for line in draw(drawn, "UAR").axes[-1].get_lines()}
    again = {line.get_label(): line.get_color() for line in draw(alone, "UAR", "2 of 2", drawn).axes[0].get_lines()}
    assert again == colors


@pytest.fixture(scope="module")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("results")
    results.save(place)
    return place


@pytest.mark.parametrize("width", [2.0, 3.35, 7.0])
def test_a_figure_of_a_paper_is_as_wide_as_its_column_and_not_cut_off(results: Results, width: float) -> None:
    paper = Paper(width, heading=False)
    for name, drawing in budget_figures(with_metrics(results, ["uar"]), paper).items():
        with paper.style():
            figure = drawing()
            assert figure is not None
            assert figure.get_size_inches()[0] == width
            assert figure.get_suptitle() == ""
            box = figure.get_tightbbox()
            assert box.x0 > -0.02, name
            assert box.x1 < width + 0.02, name
            for axes in figure.axes:
                ticks = [tick.get_window_extent() for tick in axes.get_xticklabels() if tick.get_text()]
                shown = sorted(ticks, key=lambda box: box.x0)
                assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(shown)), name


def test_the_command_writes_a_figure_with_fonts_that_publishers_accept(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "uar.pdf"
    arguments = ["figure", folder, "uar-against-epsilon", out, "--where", "defense=none"]
    done = advser_here(*arguments)
    assert done.returncode == 0, done.stderr
    assert "3.35 ×" in done.stdout
    data = out.read_bytes()
    assert b"/MediaBox [ 0 0 241.2 " in data
    assert b"/Type3" not in data
    advser_here(*arguments, "--width", "7", "--heading")
    assert b"/MediaBox [ 0 0 504 " in out.read_bytes()
    assert advser_here(*arguments).returncode == 0
    assert out.read_bytes() == data
    for suffix in ("svg", "png"):
        assert advser_here("figure", folder, "uar-against-epsilon", out.with_suffix(f".{suffix}")).returncode == 0
        assert out.with_suffix(f".{suffix}").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("uar-against-epsilom", "a.pdf"),
            "figure 'uar-against-epsilom': got no such .* here: .*did you mean 'uar-against-e",
        ),
        (("uar-against-epsilon", "a.eps"), r"a\.eps: got suffix '\.eps', expected \.svg, \.png, \.pdf"),
        (("uar-against-epsilon", "a.pdf", "--width", "85"), r"width: got 85, expected 2 to 20 \(inches\)"),
        (("uar-against-epsilon", "a.pdf", "--width", "0"), r"width: got 0, expected 2 to 20 \(inches\)"),
        (("uar-against-epsilon", "a.pdf", "--where", "model=none"), "none"),
        (("uar-against-epsilon", "a.pdf", "--where", "epsilon=0.001"), "expected here: none"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused_in_one_line(arguments, message, folder: Path, tmp_path: Path) -> None:
    done = advser_here("figure", folder, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_panels_that_share_an_axis_show_all_points_of_each() -> None:
    def panel(victim: str, *budgets: float) -> Panel:
        points = tuple((x, Cell(0.5, 0.4, 0.6, 10, 0, "ok")) for x in budgets)
        return Panel(victim, "waveform", "ε", None, (Curve("fgsm", "fgsm", "true", False, points),))

    figure = draw([panel("a", 0.002, 0.01), panel("b", 0.001, 0.002)], "UAR", paper=Paper(2.0))
    assert all(axes.get_xlim()[1] > 0.01 for axes in figure.axes)
    wide = draw([panel("a", 0.0001, 0.01), panel("b", 0.005, 0.01)], "UAR", paper=Paper(2.0))
    assert {axes.get_xscale() for axes in wide.axes} == {"log"}


def test_a_run_plots_its_figures(folder: Path, tmp_path: Path) -> None:
    figure = load(folder).plot("uar-against-epsilon", width=3.35, out=tmp_path / "uar.pdf")
    assert figure.get_size_inches()[0] == 3.35
    assert b"/Type3" not in (tmp_path / "uar.pdf").read_bytes()
    run = load(folder)
    assert run.plot("uar-against-epsilon").get_suptitle()
    assert run.plot("uar-against-epsilon", where={"defense": "none"}, width=4, heading=False).get_size_inches()[0] == 4


@pytest.mark.parametrize("label", ["$\\eps$-ball", "_mine", "c $5 vs $10", "100 %_a^b{"])
def test_a_label_is_printed_as_it_is_written(label: str) -> None:
    results = synthetic.results()
    renamed = results.table.assign(attack=results.table["attack"].replace({"fgsm": label}))
    drawn = budget_figures(replace(results, table=renamed), SCREEN)
    with SCREEN.style():
        figures = [figure for drawing in drawn.values() if (figure := drawing())]
        names = {text.get_text() for figure in figures for legend in figure.legends for text in legend.get_texts()}
        for figure in figures:
            FigureCanvasAgg(figure).draw()
    assert any(name.startswith(label) for name in names)
