"""Exhibits: tables and figures that a suite declares, from synthetic results."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import synthetic
from commandline import advser_here
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import TypeAdapter, ValidationError

from advser.errors import InputError
from advser.leaderboards.boards.exhibits import distinguishing_keys, tables
from advser.leaderboards.boards.rows import rows
from advser.leaderboards.figures import exhibits as exhibit_figures
from advser.leaderboards.figures.drawing import SCREEN, Paper
from advser.leaderboards.figures.exhibits import declared_figures
from advser.leaderboards.figures.files import write_figures
from advser.leaderboards.figures.spectrograms import declared_pictures
from advser.leaderboards.formats.render import render
from advser.leaderboards.write import write_all
from advser.results.folder import Results
from advser.results.selection import select
from advser.suite.exhibits import Curves, Exhibit, Profile

TABLE: dict[str, Any] = {
    "table": "paper",
    "title": "Table 1",
    "stub": "training",
    "published": "Ren 2020",
    "where": {"model": "cnn4"},
    "rows": [
        {
            "title": "single",
            "section": "A",
            "where": {"defense": "none"},
            "given": {"eps": 0.06},
            "published": [0.8, None],
        },
        {"title": "vanilla", "section": "B", "where": {"defense": "vanilla"}, "given": {"eps": 0.02}},
    ],
    "columns": [
        {"title": ["UAR", "real"], "metric": "uar", "where": {"attack": "none"}},
        {
            "title": ["UAR", "fake"],
            "metric": "uar",
            "where": {"attack": "fgsm", "labels": "true", "epsilon": "$eps", "domain": "spectrogram"},
        },
    ],
}
CURVES: dict[str, Any] = {
    "curves": "fig-1",
    "title": "Figure 1",
    "x": "params.steps",
    "metrics": ["uar", "accuracy"],
    "panels": ["model"],
    "series": ["defense"],
    "where": {"attack": "ifgsm", "domain": "spectrogram", "delivery": "features", "epsilon": 0.06},
    "published": [{"title": "paper", "metric": "uar", "x": [0, 10], "y": [0.7, 0.1]}],
}
PROFILE: dict[str, Any] = {
    "profile": "fig-2",
    "title": "Figure 2",
    "metrics": ["uar", "accuracy"],
    "where": {"attack": "none", "defense": "none"},
}


def declaring(*exhibits: dict[str, Any]) -> Results:
    return synthetic.results(suite={"name": "made-up", "exhibits": list(exhibits)})


def with_seeds(results: Results) -> Results:
    """Return the same cells for two seeds; the second seed's figures are lower by 54 of its 535 clips."""
    lower = {key: results.table[key] - 54 / 535 for key in ("value", "ci_low", "ci_high")}
    second = results.table.assign(seed=1, **lower)
    return Results(pd.concat([results.table, second], ignore_index=True), results.examples, results.run)


def drawn(results: Results, declared: dict[str, Any]) -> Figure:
    figure = (
        exhibit_figures.curves(results, rows(results), Curves.model_validate(declared))
        if "curves" in declared
        else exhibit_figures.profile(results, rows(results), Profile.model_validate(declared))
    )
    assert figure is not None
    return figure


def lines_of(axes: Axes) -> dict[str, list[float]]:
    return {str(line.get_label()): [float(y) for y in line.get_ydata()] for line in axes.get_lines()}


def value(results: Results, **where: Any) -> float:
    table = results.table[results.table["metric"] == "uar"]
    for key, wanted in where.items():
        table = table[table[key] == wanted]
    assert len(table) == 1
    return float(table["value"].iloc[0])


def test_a_table_shows_each_cell_beside_its_published_value() -> None:
    results = declaring(TABLE)
    board = tables(results)["paper"]
    cells = {key: board.frame[key].tolist() for key in board.frame}
    clean = {"model": "cnn4", "attack": "none"}
    attacked = {"model": "cnn4", "attack": "fgsm", "labels": "true", "domain": "spectrogram"}
    assert [cell.value for cell in cells["UAR real"]] == [
        value(results, **clean, defense="none"),
        value(results, **clean, defense="vanilla"),
    ]
    assert [cell.value for cell in cells["UAR fake"]] == [
        value(results, **attacked, defense="none", epsilon=0.06),
        value(results, **attacked, defense="vanilla", epsilon=0.02),
    ]
    assert cells["UAR real Ren 2020"] == ["0.800", ""]
    assert "UAR fake Ren 2020" not in cells
    assert board.sections == ("A", "B")
    for kind in ("terminal", "markdown", "latex", "csv", "html"):
        assert "0.800" in render(board, kind)


def test_a_cell_that_the_results_lack_is_missing_and_a_table_without_cells_is_left_out() -> None:
    incomplete = {
        **TABLE,
        "rows": [*TABLE["rows"], {"title": "other", "where": {"defense": "other"}, "given": {"eps": 1}}],
    }
    board = tables(declaring(incomplete))["paper"]
    assert board.frame["UAR real"].iloc[2].status == "missing"
    assert tables(declaring({**TABLE, "where": {"model": "other"}})) == {}


def test_an_unknown_key_is_refused() -> None:
    column = {"title": ["x"], "metric": "uar", "where": {"colour": "red"}}
    with pytest.raises(InputError, match=r"got key 'colour', expected params\.NAME, suite"):
        tables(declaring({**TABLE, "columns": [column], "rows": [TABLE["rows"][1]]}))


def test_a_field_for_several_cells_is_missing_and_has_a_footnote(tmp_path: Path) -> None:
    columns = [
        TABLE["columns"][0],
        {"title": ["steps"], "metric": "uar",
         "where": {"attack": "ifgsm", "epsilon": 0.06, "delivery": "features"}},
    ]  # fmt: skip
    results = declaring({**TABLE, "columns": columns})
    board = tables(results)["paper"]
    assert [cell.reason for cell in board.frame["steps"]] == ["2 cells, which differ in params.steps"] * 2
    assert {cell.status for cell in board.frame["steps"]} == {"missing"}
    assert {cell.status for cell in board.frame["UAR real"]} == {"ok"}
    for kind in ("terminal", "markdown", "latex", "html", "csv"):
        text = render(board, kind)
        assert "2 cells, which differ in params.steps" in text
        assert "not among the results" not in text
    both = with_seeds(results)
    both.save(tmp_path)
    shown = advser_here("board", str(tmp_path), "--by", "paper", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "2 cells, which differ in seed" in shown.stdout
    assert "4 cells, which differ in seed, params.steps" in shown.stdout
    write_all(both, tmp_path, bitmaps=())
    assert (tmp_path / "boards" / "paper.csv").is_file()


def test_distinguishing_keys_are_named_without_keys_that_follow_from_them() -> None:
    listed = rows(with_seeds(synthetic.results()))
    attacked = [row for row in listed if row.keys["attack"] == "fgsm" and row.keys["model"] == "cnn4"]
    # The budget is a parameter too, and the victim its own source.
    assert distinguishing_keys(attacked) == ["seed", "defense", "labels", "epsilon"]
    assert distinguishing_keys(attacked, given=["seed", "epsilon"]) == ["defense", "labels"]
    assert distinguishing_keys(attacked[:1]) == []


def test_each_curve_begins_with_the_clean_cell_of_its_own_victim() -> None:
    results = declaring(CURVES)
    figure = drawn(results, CURVES)
    for model, axes in (("cnn4", figure.axes[0]), ("emodb-cnn", figure.axes[2])):
        begins = {name: y[0] for name, y in lines_of(axes).items() if name != "paper"}
        assert begins == {
            f"defense {defense}": value(results, model=model, defense=defense, attack="none")
            for defense in ("none", "vanilla")
        }


def test_no_panel_is_cut_off_at_the_end_of_the_first() -> None:
    high = {"title": "high", "metric": "uar", "panel": "emodb-cnn", "x": [0.0], "y": [5.0]}
    figure = drawn(declaring(CURVES), {**CURVES, "published": [high]})
    assert all(max(y) <= axes.get_ylim()[1] for axes in figure.axes for y in lines_of(axes).values())
    assert {axes.get_ylim()[0] for axes in figure.axes} == {0.0}


def test_a_metric_without_figures_has_no_panel_and_a_figure_without_metrics_is_not_drawn() -> None:
    results = declaring()
    assert len(drawn(results, CURVES).axes) == 2 * len(drawn(results, {**CURVES, "metrics": ["uar", "pesq"]}).axes)
    declared = Curves.model_validate({**CURVES, "metrics": ["pesq"], "published": []})
    assert exhibit_figures.curves(results, rows(results), declared) is None


def test_a_curve_for_several_victims_or_seeds_becomes_several_curves() -> None:
    results = with_seeds(declaring(CURVES))
    where = {**CURVES["where"], "domain": "waveform", "delivery": "audio", "access": "white-box"}
    del where["epsilon"]
    declared = {**CURVES, "x": "epsilon", "metrics": ["uar"], "panels": [], "series": [], "where": where}
    lines = lines_of(drawn(results, {**declared, "published": []}).axes[0])
    cells = {"attack": "ifgsm", "access": "white-box"}
    budgets = (0.0005, 0.001, 0.002)
    assert lines == {
        f"seed {seed}, {model}, defense {defense}": [
            value(results, seed=seed, model=model, defense=defense, attack="none"),
            *(value(results, seed=seed, model=model, defense=defense, epsilon=epsilon, **cells) for epsilon in budgets),
        ]
        for seed in (0, 1)
        for model, defense in synthetic.VICTIMS
    }


def test_bars_for_several_seeds_become_several_groups() -> None:
    results = with_seeds(declaring(PROFILE))
    bars = drawn(results, PROFILE).axes[0].containers
    heights = {str(group.get_label()): float(group[0].get_height()) for group in bars if hasattr(group, "patches")}
    assert heights == {
        f"{model}, seed {seed}": value(results, seed=seed, model=model, defense="none", attack="none")
        for seed in (0, 1)
        for model in ("cnn4", "emodb-cnn")
    }


def test_published_values_are_points_with_a_marker_of_their_own_in_all_panels() -> None:
    published = [
        {"title": "A", "metric": "uar", "panel": "cnn4", "x": [0, 10], "y": [0.7, 0.1]},
        {"title": "B", "metric": "uar", "panel": "cnn4", "x": [0, 10], "y": [0.6, 0.2]},
        {"title": "B", "metric": "uar", "panel": "emodb-cnn", "x": [0, 10], "y": [0.5, 0.3]},
        {"title": "A", "metric": "accuracy", "x": [0, 10], "y": [0.5, 0.3]},
    ]
    figure = drawn(declaring(CURVES), {**CURVES, "published": published})
    lines = [line for axes in figure.axes for line in axes.get_lines() if line.get_label() in ("A", "B")]
    assert len(lines) == 5
    assert {line.get_linestyle() for line in lines} == {"None"}
    markers = {str(line.get_label()): line.get_marker() for line in lines}
    assert markers["A"] != markers["B"]
    assert all(line.get_marker() == markers[str(line.get_label())] for line in lines)
    legend = figure.legends[0]
    keys = [line.get_marker() for line in legend.get_lines()]
    names = [text.get_text() for text in legend.get_texts()]
    assert {"A": markers["A"], "B": markers["B"]}.items() <= dict(zip(names, keys, strict=True)).items()


@pytest.mark.parametrize("kind", ["curves", "profile", "pictures"])
def test_a_figure_may_not_have_the_name_of_a_figure_of_every_run(kind: str) -> None:
    exhibit: TypeAdapter[Any] = TypeAdapter(Exhibit)
    more = {} if kind == "pictures" else {"metrics": ["uar"]}
    for taken in ("uar-against-epsilon", "wer-against-steps", "uar-against-epsilon-fair"):
        with pytest.raises(ValidationError, match=f"got '{taken}', expected a name that does not begin with"):
            exhibit.validate_python({kind: taken, "title": "One", **more})
    for free in ("figure-uar-against-epsilon", "loss-against-steps", "uar-against-epsilons"):
        exhibit.validate_python({kind: free, "title": "One", **more})
    exhibit.validate_python({**TABLE, "table": "uar-against-epsilon"})


def modules(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            yield from ((path.name, name) for name in names if name.split(".")[0] == "advser")


def test_boards_and_figures_need_the_results_alone() -> None:
    folder = Path(exhibit_figures.__file__).parents[1]
    # A comparison of two results is computed from these alone, too.
    allowed = {"errors", "leaderboards", "plugins", "results", "scoring", "store", "suite"}
    assert [(file, name) for file, name in modules(folder) if name.split(".")[1] not in allowed] == []


def test_tick_labels_are_neither_cut_nor_overlapping() -> None:
    where = {"domain": "waveform", "defense": "none", "access": "white-box"}
    title = "A paper's points, whose name is so long that three of them side by side are wider than the figure"
    published = [{**CURVES["published"][0], "title": f"{title} {number}", "x": [0, 0.002]} for number in range(3)]
    declared = {**CURVES, "x": "epsilon", "metrics": ["uar", "accuracy", "wer"], "panels": ["model"],
                "series": ["attack"], "where": where, "published": published}  # fmt: skip
    figure = drawn(declaring(), declared)
    figure.draw_without_rendering()
    boxes = [
        label.get_window_extent()
        for axes in figure.axes[-3:]
        for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        if axes.get_xlim()[0] <= place <= axes.get_xlim()[1]
    ]
    assert len(boxes) >= 9
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.x1


def test_figures_without_data_are_not_written(tmp_path: Path) -> None:
    nothing = {**CURVES, "curves": "empty", "where": {"attack": "pgd"}}
    paths = write_figures(declared_figures(declaring(CURVES, PROFILE, nothing), SCREEN), tmp_path)
    assert sorted(path.name for path in paths) == ["fig-1.png", "fig-1.svg", "fig-2.png", "fig-2.svg"]
    before = (tmp_path / "fig-1.svg").read_bytes()
    write_figures(declared_figures(declaring(CURVES), SCREEN), tmp_path)
    assert (tmp_path / "fig-1.svg").read_bytes() == before


@pytest.mark.parametrize("text", ["{", "{}", '[{"a": 1}]', "[1]"])
def test_unreadable_samples_are_reported(text: str, tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "index.json").write_text(text)
    with pytest.raises(
        InputError, match=r"index\.json: (unreadable|entry 0: got no 'access', expected a file written by `advser run`)"
    ):
        write_all(synthetic.results(), tmp_path)


@pytest.mark.parametrize("command", ["draw", "figure"])
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("judged", "/{outside}/secret.flac", "got the name '"),
        ("original", "../../secret.flac", "got the name '../../secret.flac', expected a name of a file in"),
        ("difference", "link.flac", "a link, expected a file"),
        ("judged", "note.txt", "expected a file with the suffix .flac"),
        ("original", {"a": 1}, "original: got {'a': 1}"),
        ("difference", 7, "got the name 7"),
        ("clip", ["x"], "clip: got ['x']"),
        ("seed", "x", "seed: got 'x'"),
        ("params", None, "params: got None"),
    ],
)
def test_samples_of_others_write_and_read_nothing_outside_the_folder(
    command: str, field: str, value: Any, message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "results"
    results = declaring({"pictures": "clip", "title": "One clip", "where": {}})
    (folder / "samples").mkdir(parents=True)
    results.save(folder)
    soundfile.write(tmp_path / "secret.flac", np.zeros(1600), 16_000)
    (folder / "samples" / "link.flac").symlink_to(tmp_path / "secret.flac")
    sample = {"clip": "c", "label": "a", "prediction": "b", "clean_prediction": "a", "original": "o.flac"}
    keys = next(row.keys for row in rows(results))
    value = value.replace("{outside}", str(tmp_path)[1:]) if isinstance(value, str) else value
    entry = {**keys, **sample, "judged": "j.flac", field: value}
    (folder / "samples" / "index.json").write_text(json.dumps([entry]))
    before = set(tmp_path.rglob("*"))
    words = ["draw", folder] if command == "draw" else ["figure", folder, "clip", tmp_path / "clip.svg"]
    done = advser_here(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["boards", "figures", "samples", "assets"])
def test_a_linked_folder_is_not_written_through(name: str, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "elsewhere").mkdir()
    synthetic.results().save(tmp_path / "results")
    (tmp_path / "results" / name).symlink_to(tmp_path / "elsewhere")
    done = advser_here("draw", tmp_path / "results", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{name}, a link, expected a file or folder of its own" in done.stderr
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_a_picture_is_of_a_selected_cell_and_lost_sounds_are_reported(tmp_path: Path) -> None:
    picture = {"pictures": "clip", "title": "One clip", "where": {"attack": "fgsm"}}
    results = declaring(picture)
    keys = next(row.keys for row in rows(results) if row.keys["attack"] == "fgsm" and row.keys["defense"] == "none")
    sample = {"clip": "c", "label": "a", "prediction": "b", "clean_prediction": "a", "original": "o", "judged": "j"}
    entry = {**keys, **sample}
    pictures = declared_pictures(select(results, {"defense": "none"}), [entry], tmp_path, SCREEN)
    assert [*pictures] == ["clip"]
    with pytest.raises(InputError, match="o: unreadable as audio"):
        pictures["clip"]()
    assert declared_pictures(select(results, {"defense": "vanilla"}), [entry], tmp_path, SCREEN) == {}


@pytest.mark.parametrize("width", [2.0, 3.35, 7.0])
def test_labels_of_bars_do_not_overlap(width: float) -> None:
    metrics = ["uar", "accuracy", "attack-success", "pesq", "stoi", "wer"]
    paper = Paper(width)
    with paper.style():
        figure = declared_figures(declaring({**PROFILE, "metrics": metrics}), paper)["fig-2"]()
    assert figure is not None
    boxes = sorted((tick.get_window_extent() for tick in figure.axes[0].get_xticklabels()), key=lambda box: box.x0)
    assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))


def test_exhibits_are_beside_the_boards_in_the_folder_and_on_the_page(tmp_path: Path) -> None:
    write_all(declaring(TABLE, CURVES), tmp_path)
    assert (tmp_path / "boards" / "paper.tex").is_file()
    page = (tmp_path / "index.html").read_text()
    assert "Table 1" in page
    assert "fig 1" in page
