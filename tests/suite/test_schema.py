"""The suite schema: valid suites, and the messages about invalid ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advser.errors import InputError
from advser.plan.exhibit_checks import check
from advser.suite.loading import load, shipped
from advser.suite.schema import PluginEntry, Suite

SMALL = """
name: small
corpus: demo
protocol: 3pair
models: [tiny]
defenses: [none]
attacks:
  - {name: fgsm, domain: spectrogram, delivery: features, labels: [true, predicted], params: {epsilon: 6e-2}}
metrics: [uar]
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_suite_fits_the_schema(name: str) -> None:
    assert load(name).name == name


@pytest.mark.parametrize("name", shipped())
def test_a_suite_in_json_reads_back_equal(name: str) -> None:
    suite = load(name, ["training.iterations=7"])
    assert Suite.model_validate(json.loads(suite.model_dump_json())) == suite


def test_true_is_read_as_a_label_and_6e_2_as_a_number(small: Path) -> None:
    attack = load(str(small)).attacks[0]
    assert attack.labels == ["true", "predicted"]
    assert attack.params == {"epsilon": 0.06}
    assert attack.domain == ["spectrogram"]


@pytest.mark.parametrize(
    ("change", "is_changed"),
    [
        ("training.iterations=7", lambda suite: suite.training.iterations == 7),
        ("training.learning_rate=1e-4", lambda suite: suite.training.learning_rate == 1e-4),
        ("attacks.fgsm.params.epsilon=[0.1,0.2]", lambda suite: suite.attacks[0].params["epsilon"] == [0.1, 0.2]),
        ("attacks.0.params.epsilon=0.5", lambda suite: suite.attacks[0].params["epsilon"] == 0.5),
        ("models.tiny.training.batch_size=4", lambda suite: suite.models[0].training == {"batch_size": 4}),
        ("folds=[fold1]", lambda suite: suite.folds == ["fold1"]),
        ("corpus.params.a=b", lambda suite: suite.corpus == PluginEntry(name="demo", params={"a": "b"})),
        ("seeds=[1, 2]", lambda suite: suite.seeds == [1, 2]),
        ("attacks.f*.params.epsilon=0.5", lambda suite: suite.attacks[0].params == {"epsilon": 0.5}),
        ("models.*.training.batch_size=4", lambda suite: suite.models[0].training == {"batch_size": 4}),
    ],
)
def test_set_changes_one_value(small: Path, change: str, is_changed) -> None:
    assert is_changed(load(str(small), [change]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.iterations=many", "training.iterations.*got 'many'"),
        ("training.iterations=0", "training.iterations: got 0, expected at least 1"),
        ("training.epochs=3", "unknown key 'training.epochs'"),
        ("trainng.iterations=3", r"unknown key 'trainng' .*; did you mean 'training'\?$"),
        ("colour=red", "unknown key 'colour'"),
        ("attacks.pgd.params.epsilon=1", "got entry 'pgd', expected fgsm$"),
        ("attacks.p*.params.epsilon=1", r"got 'p\*', expected a match in 'attacks': fgsm$"),
        ("name", "no '='"),
        ("name.first=x", "got 'first' below a value, expected a path of keys"),
        ("models=[tiny, tiny]", "'tiny' is listed twice"),
        ("attacks.0.domain=picture", "got 'picture'"),
        ("seeds=[]", "seeds"),
        ("training={fit_on: train+validation, select: best}", "leaves no validation clips"),
        ("seeds=[1, 0, 1]", "seeds: 1 is listed twice"),
        ("folds=[]", r"folds: got \[\], expected a list of length 1 or more"),
        ("folds=[fold1, fold2, fold1]", "folds: 'fold1' is listed twice"),
        ("classes=[anger, anger]", "classes: 'anger' is listed twice"),
        ("models.tiny.defenses=[]", r"models.0.defenses: .*length 1 or more"),
        ("models.tiny.defenses=[vanilla]", "models.tiny.defenses: got 'vanilla', expected none"),
        ("attacks.0.labels=none", "got 'none', expected 'true', 'predicted' or 'soft'"),
        ("attacks.0.labels=[]", "attacks.0.labels: .*length 1 or more"),
        ("attacks.0.domain=[]", "attacks.0.domain: .*length 1 or more"),
        ("attacks.0.delivery=[]", "attacks.0.delivery: .*length 1 or more"),
        ("attacks.0.name=none", "attacks.0: got 'none'.*the clean cell is always included"),
        ("attacks.0.label=none", "attacks.0: got 'none'"),
        ("newcomers=[{domain: waveform, epsilon: 0.001, labels: none}]", "got 'none'"),
        ("transcriber={name: auto, params: {model: tiny}}", "transcriber.params: got .*expected none with 'auto'"),
        ("transcriber={name: none, params: {model: tiny}}", "transcriber.params: got .*expected none with 'none'"),
        ("parts.typo.folds=[fold1]", "got part 'typo', expected none$"),
        ("exhibits=[{curves: c, title: C, metrics: [uar], x: budget}]", "exhibits.0.curves.x: .*got 'budget'"),
        (
            "exhibits=[{curves: c, title: C, metrics: [uar], published: [{title: p, metric: war, x: [0], y: [0]}]}]",
            "metric: got 'war', expected uar",
        ),
    ],
)
def test_a_bad_change_is_reported_in_one_line(small: Path, change: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(str(small), [change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "not YAML"),
        ("- a", "got list"),
        ("name: a\nname: b", "duplicate key 'name'"),
        ("name: x", "corpus: got nothing, expected a value"),
        (SMALL.replace("small", "Upper Case", 1), "name"),
    ],
)
def test_a_bad_file_is_reported_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_set_expects_a_number_where_a_name_is_listed_twice(small: Path) -> None:
    twice = ["attacks=[noise, {name: fgsm, params: {epsilon: 0.1}}, fgsm]"]
    for ending in (".params.epsilon=0.5", "=fgsm"):
        with pytest.raises(
            InputError, match=r"'fgsm' is listed 2 times, expected attacks\.1 or attacks\.2, or a glob$"
        ):
            load(str(small), [*twice, f"attacks.fgsm{ending}"])
    assert load(str(small), [*twice, "attacks.2.params.epsilon=0.5"]).attacks[2].params == {"epsilon": 0.5}


def test_a_transcriber_with_a_name_has_parameters(small: Path) -> None:
    suite = load(str(small), ["transcriber={name: pocketsphinx, params: {model: here}}"])
    assert suite.transcriber.params == {"model": "here"}


def test_an_unknown_suite_names_the_shipped_ones() -> None:
    with pytest.raises(InputError, match="demo"):
        load("no-such-suite")


def test_parts_inherit_the_suite_and_change_its_keys(small: Path) -> None:
    changes = [
        "parts={published: {protocol: random}, fair: {training: {iterations: 7}, title: Fair}}",
        "training={batch_size: 8, iterations: 9}",
    ]
    suite = load(str(small), changes)
    published, fair = suite.settings
    assert (published.part, published.protocol, published.training.iterations) == ("published", "random", 9)
    assert (fair.part, fair.protocol, fair.title) == ("fair", suite.protocol, "Fair")
    assert (fair.training.iterations, fair.training.batch_size) == (7, 8)
    assert {part.name for part in suite.settings} == {suite.name}
    assert load(str(small)).settings == [load(str(small))]


TABLE = "{table: one, title: One, rows: [{title: a, published: [1.0]}], columns: [{title: [b], metric: uar}]}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("parts={fair: 3}", "parts.fair: got 3, expected a mapping"),
        ("parts={fair: {name: other}}", "parts.fair: got name, expected any other key"),
        ("parts={fair: {parts: {deep: {}}}}", "parts.fair: got parts, expected any other key"),
        ("parts={fair: {colour: red}}", "unknown key 'parts.fair.colour'"),
        ("exhibits=[{tabel: one}]", "one of the keys table, curves, profile, pictures"),
        (f"exhibits=[{TABLE}, {TABLE}]", "the name 'one' is taken"),
        (f"exhibits=[{TABLE.replace('table: one', 'table: attacks')}]", "the name 'attacks' is taken"),
        (f"exhibits=[{TABLE.replace('[1.0]', '[1.0, 2.0]')}]", "row 'a' has 2 published values, expected 1"),
        (f"exhibits=[{TABLE.replace('metric: uar', 'metric: uar, where: {epsilon: $eps}')}]", "row 'a' gives no eps"),
    ],
)
def test_wrong_parts_and_exhibits_are_refused(small: Path, change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(str(small), [change])


SHARED = """
name: shared
corpus: demo
protocol: 3pair
models: [{name: tiny, params: {frames: 32}}]
defenses: [none]
metrics: [uar]
parts:
  one: {attacks: &same [{name: fgsm, params: {epsilon: 0.1}}]}
  two: {attacks: *same}
"""


def test_a_change_in_a_missing_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text(SHARED)
    with pytest.raises(InputError, match=r"got part 'three', expected one, two$"):
        load(str(path), ["parts.three.folds=[fold1]"])
    path.write_text(SHARED.replace("one:", "2017:"))
    with pytest.raises(InputError, match=r"got part 'three', expected 2017, two$"):
        load(str(path), ["parts.three.folds=[fold1]"])


def test_a_change_in_one_part_stays_in_it(tmp_path: Path) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text(SHARED)
    changes = ["parts.one.attacks.fgsm.params.epsilon=0.2", "parts.one.models.tiny.params.frames=64"]
    suite = load(str(path), changes)
    assert [part.attacks[0].params["epsilon"] for part in suite.settings] == [0.2, 0.1]
    assert [part.models[0].params["frames"] for part in suite.settings] == [64, 32]
    assert suite.models[0].params["frames"] == 32
    every = load(str(path), ["parts.*.models.tiny.params.frames=48"])
    assert [part.models[0].params["frames"] for part in every.settings] == [48, 48]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("worst=[{name: fgsm}]", "'fgsm' is taken"),
        ("worst=[{name: none}]", "'none' is taken"),
        ("worst=[{name: worst}, {name: worst}]", "'worst' is taken"),
        ("parts={a: {metrics: [{name: uar, label: x}]}, b: {metrics: [{name: error, label: x}]}}", "'x' is two"),
    ],
)
def test_colliding_names_are_refused(small: Path, change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(str(small), [change])


@pytest.mark.parametrize("name", shipped())
def test_the_exhibits_of_a_shipped_suite_have_cells(name: str) -> None:
    check(load(name))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("worst=[{attacks: [fgms]}]", "worst-case: attacks: got 'fgms', expected fgsm"),
        (f"exhibits=[{TABLE.replace('uar', 'aur')}]", "exhibit one: metric: got 'aur', expected uar"),
        ("exhibits=[{curves: c, title: C, metrics: [uar], where: {colour: red}}]", "exhibit c: key: got 'colour'"),
        ("exhibits=[{curves: c, title: C, metrics: [uar], series: [modle]}]", "exhibit c: key: got 'modle'"),
        ("exhibits=[{profile: c, title: C, metrics: [uar], where: {attack: pgd}}]", "exhibit c: attack: got 'pgd'"),
        (f"exhibits=[{TABLE.replace('title: a', 'title: a, where: {part: fair}')}]", "exhibit one: part: got 'fair'"),
        ("exhibits=[{curves: c, title: C, metrics: [uar], x: params.stepz}]", "exhibit c: parameter: got 'stepz'"),
        ("exhibits=[{pictures: c, title: C}]", "exhibit c: samples of the suite: got 0"),
    ],
)
def test_exhibits_and_worst_cases_without_cells_are_refused(small: Path, declared: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(load(str(small), [declared]))
