"""A suite with parts, samples, worst cases and exhibits, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from commandline import advser_here, jobs_done

from advser.results.folder import Results

SUITE = """
name: parted
corpus: demo
protocol: 3pair
folds: [fold1]
training: {iterations: 20, batch_size: 8, learning_rate: 2e-3}
models: [{name: tiny, params: {frames: 32}}]
defenses: [none]
attacks:
  - {name: noise, params: {epsilon: 0.001}}
  - {name: fgsm, objective: margin, params: {epsilon: 0.001}}
  - {name: ifgsm, params: {epsilon: 0.001, steps: 3}}
metrics: [uar, error, snr, alignment, {name: gradient-mass, label: late, params: {seconds: 2.0}}]
transcriber: none
noise: false
audit: false
samples: 1
parts:
  published: {protocol: random, folds: [random], attacks: [{name: noise, params: {epsilon: 0.001}}]}
  fair: {worst: [{name: worst}]}
exhibits:
  - {profile: late-gradient, title: Late gradient, metrics: [late], where: {attack: none}}
  - {pictures: one-clip, title: One clip, where: {part: fair, attack: ifgsm}}
  - table: both
    title: Both
    rows: [{title: fair, where: {part: fair}, published: [0.5]}]
    columns: [{title: [UAR], metric: uar, where: {attack: worst}}]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    (folder / "parted.yaml").write_text(SUITE)
    done = advser_here("run", "parted.yaml", "--store", "store", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Both" in done.stdout
    return folder


@pytest.fixture(scope="module")
def results(place: Path) -> Results:
    return Results.load(place / "out")


def test_each_part_has_rows_of_its_own(results: Results) -> None:
    attacks = results.table.groupby("part")["attack"].agg(set).to_dict()
    assert attacks == {"published": {"none", "noise"}, "fair": {"none", "noise", "fgsm", "ifgsm", "worst"}}
    assert set(results.table["suite"]) == {"parted"}
    assert results.table.groupby("part")["protocol"].agg(set).to_dict() == {"published": {"random"}, "fair": {"3pair"}}
    assert any(note.startswith("published: Protocol 'random' is speaker-dependent") for note in results.notes)


def test_the_worst_case_is_right_only_where_no_attack_misleads(results: Results) -> None:
    clips = results.examples[results.examples["part"] == "fair"]
    right = (clips["prediction"] == clips["label"]).groupby([clips["attack"], clips["clip"]]).all().unstack(0)
    assert right["worst"].equals((right["fgsm"] & right["ifgsm"]).rename("worst"))
    table = results.table[(results.table["part"] == "fair") & (results.table["metric"] == "error")]
    value = table.set_index("attack")["value"]
    assert value["worst"] >= max(value["fgsm"], value["ifgsm"])


def test_the_exact_gradients_sign_is_better_aligned_than_noise(results: Results) -> None:
    table = results.table[(results.table["part"] == "fair") & (results.table["metric"] == "alignment")]
    alignment = table[table["status"] == "ok"].set_index("attack")["value"]
    assert abs(alignment["noise"]) < 0.1 < alignment["fgsm"] <= 1
    late = results.table[results.table["metric"] == "late"].set_index(["part", "attack"])["status"]
    assert late["fair", "none"] == "ok"
    assert late["fair", "fgsm"] == "not-applicable"


def test_the_objective_is_a_parameter_of_the_attack(results: Results) -> None:
    params = results.table[results.table["attack"] == "fgsm"]["params"].iloc[0]
    assert json.loads(params)["objective"] == "margin"


def test_samples_are_the_evaluated_sound(place: Path) -> None:
    folder = place / "out" / "samples"
    entries = json.loads((folder / "index.json").read_text())
    assert {entry["attack"] for entry in entries} == {"none", "noise", "fgsm", "ifgsm"}
    for entry in entries:
        original, rate = soundfile.read(folder / entry["original"], dtype="int16")
        judged, _ = soundfile.read(folder / entry["judged"], dtype="int16")
        assert rate == 16_000
        assert len(original) == len(judged)
        change = abs(judged.astype(int) - original.astype(int)).max()
        assert (change == 0) if entry["attack"] == "none" else (0 < change <= 32)


def test_exhibits_are_written_and_printed(place: Path) -> None:
    for name in ("late-gradient", "one-clip"):
        assert (place / "out" / "figures" / f"{name}.png").stat().st_size > 0
    assert (place / "out" / "boards" / "both.tex").is_file()
    shown = advser_here("board", "out", "--by", "both", "--format", "csv", cwd=place)
    assert shown.returncode == 0
    assert "0.500" in shown.stdout
    assert "both" in advser_here("board", "out", "--by", "neither", cwd=place).stderr


def test_one_part_can_be_run_alone_from_the_store(place: Path) -> None:
    done = advser_here("run", "parted.yaml", "--store", "store", "--out", "one", "--only", "part=fair", cwd=place)
    assert done.returncode == 0, done.stderr
    assert jobs_done(done) == 0
    assert set(Results.load(place / "one").table["part"]) == {"fair"}
    refused = advser_here("run", "parted.yaml", "--store", "store", "--only", "part=unfair", cwd=place)
    assert refused.returncode == 2
    assert "got part 'unfair', expected published, fair" in refused.stderr
