from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from hashlib import sha256
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from places import PUBLISHED

from advser.errors import InputError
from advser.execution.verification import suite_description
from advser.leaderboards.boards.board import Board
from advser.leaderboards.boards.catalogue import BOARDS
from advser.leaderboards.boards.exhibits import tables
from advser.leaderboards.formats.render import render
from advser.leaderboards.page.site import page
from advser.results.folder import UNSIGNED, Results
from advser.results.schema import (
    EXAMPLES_SCHEMA,
    KEYS,
    RANKS_SCHEMA,
    RENAMED_CHECKS,
    SCHEMA_VERSION,
    TABLE_SCHEMA,
    no_examples,
)
from advser.results.selection import select, with_metrics
from advser.store.provenance import provenance

RUN = {"notes": ["a note"], "failures": []}


def table(**changes: object) -> pd.DataFrame:
    row = {
        **synthetic.BASE, **synthetic.CLEAN, "model": "cnn4", "defense": "none", "metric": "uar", "value": 0.5,
        "ci_low": 0.4, "ci_high": 0.6, "n": 535, "n_failed": 0, "status": "ok", "reason": None,
        "higher_is_better": True,
    }  # fmt: skip
    return pd.DataFrame([{**row, **changes}])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    examples = pd.DataFrame([synthetic.example(), synthetic.example(clip="03a01Nc", transcript="ja", pesq=np.nan)])
    Results(table(), examples, RUN).save(tmp_path)
    return tmp_path


def assert_one_line(error: pytest.ExceptionInfo[InputError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_round_trip(tmp_path: Path) -> None:
    results = synthetic.results()
    results.save(tmp_path)
    read = Results.load(tmp_path)
    assert_frame_equal(read.table, results.table)
    digests = {path.name: sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("*.parquet")}
    assert read.run == {**results.run, "schema": SCHEMA_VERSION, "digests": digests}
    assert list(read.table.columns) == TABLE_SCHEMA.names
    assert {path.name for path in tmp_path.iterdir()} == {"results.parquet", "examples.parquet", "run.json"}


def test_ranks_and_figures_over_seeds_are_saved_and_removed_by_the_next_save(tmp_path: Path) -> None:
    results = synthetic.results()
    keys = {key: value for key, value in results.table.iloc[0].items() if key in RANKS_SCHEMA.names}
    ranks = pd.DataFrame([{**dict.fromkeys(RANKS_SCHEMA.names, 1), **keys, "among": "model", "reason": ""}])
    pooled = results.table.drop(columns="seed").assign(spread=0.1, seeds=2)
    whole = replace(results, ranks=ranks, pooled=pooled)
    whole.save(tmp_path)
    read = Results.load(tmp_path)
    assert_frame_equal(read.ranks, whole.ranks)
    assert_frame_equal(read.pooled, whole.pooled)
    assert len(select(read, {"model": "cnn4"}).ranks) == 1
    assert select(read, {"model": "emodb-cnn"}).ranks.empty
    first_seed = select(read, {"seed": "0"})
    assert first_seed.pooled.empty
    assert first_seed.ranks.empty
    assert set(with_metrics(read, ["uar"]).pooled["metric"]) == {"uar"}
    results.save(tmp_path)
    assert Results.load(tmp_path).ranks.empty
    assert {path.name for path in tmp_path.iterdir()} == {"results.parquet", "examples.parquet", "run.json"}


def test_examples_have_further_numbers_and_absent_texts_are_empty(saved: Path) -> None:
    examples = Results.load(saved).examples
    assert list(examples.columns) == [*EXAMPLES_SCHEMA.names, "pesq"]
    assert examples["transcript"].tolist() == ["", "ja"]
    assert examples["pesq"].iloc[0] == 4.1
    assert np.isnan(examples["pesq"].iloc[1])


@pytest.mark.parametrize("better", [True, False, None])
def test_a_metric_may_have_no_better_direction(tmp_path: Path, better: bool | None) -> None:
    Results(table(higher_is_better=better), no_examples(), RUN).save(tmp_path)
    assert Results.load(tmp_path).table["higher_is_better"].tolist() == [better]


@settings(max_examples=12)
@given(
    value=st.floats(allow_nan=False),
    epsilon=st.one_of(st.just(float("nan")), st.floats(0, 10)),
    text=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20),
)
def test_values_and_texts_survive_saving(
    tmp_path_factory: pytest.TempPathFactory, value: float, epsilon: float, text: str
) -> None:
    directory = tmp_path_factory.mktemp("results")
    results = Results(table(value=value, epsilon=epsilon, reason=text), no_examples(), RUN)
    results.save(directory)
    assert_frame_equal(Results.load(directory).table, results.table, check_exact=True)


def without_digests(folder: Path) -> None:
    """Write the run as it was before tables had digests."""
    run = json.loads((folder / "run.json").read_text())
    del run["digests"]
    (folder / "run.json").write_text(json.dumps(run))


def test_results_of_an_older_schema_get_the_columns_that_were_added_since(saved: Path) -> None:
    without_digests(saved)
    for file in ("results.parquet", "examples.parquet"):
        frame = pd.read_parquet(saved / file)
        frame.drop(columns={"part", "detection", "clean_detection", "model_key"} & {*frame}).to_parquet(saved / file)
    with pytest.raises(InputError, match="no column part"):
        Results.load(saved)
    (saved / "run.json").write_text(json.dumps({**RUN, "schema": 1}))
    results = Results.load(saved)
    assert set(results.table["part"]) == set(results.examples["part"]) == {""}
    assert results.examples[["detection", "clean_detection"]].isna().all(axis=None)
    assert set(results.examples["model_key"]) == {""}


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in PUBLISHED.glob("*/run.json")), ids=lambda folder: folder.name
)
def test_published_results_can_still_be_read(folder: Path) -> None:
    results = Results.load(folder)
    assert len(results.table)
    assert results.examples.empty


def test_published_results_have_no_examples(saved: Path) -> None:
    (saved / "examples.parquet").unlink()
    assert Results.load(saved).examples.empty


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"status": "maybe"}, ["status", "maybe", "ok, failed, not-applicable"]),
        ({"status": "failed"}, ["uar", "0.5", "failed"]),
        ({"value": np.nan}, ["uar", "nan", "status ok"]),
        ({"n": None}, ["column n", "int64"]),
        ({"value": "high"}, ["column value", "double"]),
        ({"surplus": 1}, ["unknown column surplus"]),
    ],
)
def test_wrong_tables_are_refused(changes: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(InputError) as error:
        Results(table(**changes), no_examples(), RUN)
    assert_one_line(error, "results.parquet", *parts)


def test_a_cell_and_metric_may_occur_once() -> None:
    with pytest.raises(InputError) as error:
        Results(pd.concat([table(), table()]), no_examples(), RUN)
    assert_one_line(error, "uar", "twice")


def test_missing_columns_are_named() -> None:
    with pytest.raises(InputError) as error:
        Results(table().drop(columns=["metric", "n"]), no_examples(), RUN)
    assert_one_line(error, "no column metric, n")


@pytest.mark.parametrize("run", [{"failures": []}, {"notes": [1], "failures": []}, {"notes": []}])
def test_run_needs_notes_and_failures(run: dict[str, object]) -> None:
    with pytest.raises(InputError) as error:
        Results(table(), no_examples(), run)
    assert_one_line(error, "run.json", "expected text" if run.get("notes") == [1] else "expected a value")


def places(data: object, place: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Yield the places in plain data, of long lists those of the first entries."""
    yield place
    items = data.items() if isinstance(data, dict) else enumerate(data[:3]) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*place, key))


AUDITED = json.loads((PUBLISHED / "leaderboard" / "run.json").read_text())
SHOWN = [place for place in places(AUDITED) if place and place[0] not in ("packages", "host", "git")]
WRONG = [
    None, True, 1, -1, 0.5, 1e308, 2**63, "", "x" * 10**5, "a\ud800", "\x1b[31m\0", [], {}, [[]], {"a": 1}, ["x"],
]  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(place=st.sampled_from(SHOWN), value=st.sampled_from(WRONG))
def test_a_run_with_another_value_anywhere_is_refused_or_can_be_shown(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], value: object
) -> None:
    folder = tmp_path_factory.mktemp("results")
    synthetic.results().save(folder)
    run = json.loads(json.dumps({**AUDITED, "digests": json.loads((folder / "run.json").read_text())["digests"]}))
    last = reduce(getitem, place[:-1], run)
    last[place[-1]] = value
    (folder / "run.json").write_text(json.dumps(run))
    with suppress(InputError):
        results = Results.load(folder)
        shown = [render(board(results), "terminal") for board in (*BOARDS.values(), *declared(results))]
        shown += [*page(results, [], []).values(), suite_description(results)]
        assert all(text.encode() for text in shown)


def declared(results: Results) -> list[Callable[[Results], Board]]:
    return [lambda results, name=name: tables(results)[name] for name in tables(results)]


def _edited(folder: Path) -> None:
    pd.read_parquet(folder / "results.parquet").assign(value=0.99).to_parquet(folder / "results.parquet")


def test_an_edited_table_is_refused_and_one_without_digests_has_a_note(saved: Path) -> None:
    assert UNSIGNED not in Results.load(saved).notes
    _edited(saved)
    with pytest.raises(InputError, match=r"results.parquet: got a table that differs from its digest"):
        Results.load(saved)
    without_digests(saved)
    assert Results.load(saved).notes[-1] == UNSIGNED


def test_a_table_that_was_taken_away_is_missed(tmp_path: Path) -> None:
    synthetic.ranked().save(tmp_path)
    (tmp_path / "ranks.parquet").unlink()
    with pytest.raises(InputError, match=r"ranks.parquet: got no such file, expected the table whose digest is in"):
        Results.load(tmp_path)


def test_an_accuracy_is_a_share_of_the_clips() -> None:
    assert len(Results(table(metric="accuracy", n=48, value=47 / 48), no_examples(), RUN).table) == 1
    with pytest.raises(
        InputError, match=r"accuracy of none on cnn4: got 0.99 of 48 clips, expected a multiple of 1/48"
    ):
        Results(table(metric="accuracy", n=48, value=0.99), no_examples(), RUN)


def _infinite(folder: Path) -> None:
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"failures": []', '"failures": [], "jobs": {"seconds": Infinity}'))


def _newer(folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps({**RUN, "schema": SCHEMA_VERSION + 1}))


def _without_column(folder: Path) -> None:
    pd.read_parquet(folder / "results.parquet").drop(columns="model").to_parquet(folder / "results.parquet")


def _pickled(folder: Path) -> None:
    table().to_pickle(folder / "results.parquet")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (lambda folder: shutil.rmtree(folder), ["no such folder"]),
        (lambda folder: (folder / "results.parquet").unlink(), ["results.parquet", "no such file"]),
        (lambda folder: (folder / "run.json").unlink(), ["run.json", "no such file"]),
        (lambda folder: (folder / "run.json").write_text("{"), ["run.json", "corrupt"]),
        (lambda folder: (folder / "run.json").write_text("[]"), ["run.json", "list"]),
        (lambda folder: (folder / "run.json").write_text("{}"), ["schema", "None"]),
        (_newer, ["schema", str(SCHEMA_VERSION + 1)]),
        (lambda folder: (folder / "results.parquet").write_bytes(b"PAR1 not really"), ["results.parquet", "corrupt"]),
        (lambda folder: (folder / "examples.parquet").write_bytes(b""), ["examples.parquet", "corrupt"]),
        (_pickled, ["results.parquet", "corrupt"]),
        (_without_column, ["results.parquet", "no column model"]),
        (_infinite, ["run.json", "corrupt", "got Infinity, expected a finite number"]),
        (lambda folder: (folder / "run.json").write_text("[" * 100_000), ["run.json", "corrupt", "too many levels"]),
    ],
)
def test_damaged_folders_raise_an_error_of_one_line(saved: Path, damage: object, parts: list[str]) -> None:
    assert callable(damage)
    without_digests(saved)
    damage(saved)
    with pytest.raises(InputError) as error:
        Results.load(saved)
    assert_one_line(error, str(saved), *parts)


def test_saving_again_replaces_everything(saved: Path) -> None:
    Results(table(value=0.25), no_examples(), {"notes": [], "failures": []}).save(saved)
    read = Results.load(saved)
    assert read.table["value"].tolist() == [0.25]
    assert read.notes == ()
    assert read.examples.empty


@pytest.mark.parametrize(
    "where", [{"model": "cnn*"}, {"epsilon": "0.06"}, {"epsilon": ""}, {"attack": "?fgsm", "defense": "none"}]
)
def test_select_returns_exactly_the_matching_cells(where: dict[str, str]) -> None:
    results = synthetic.results()
    selected = select(results, where).table
    expected = results.table
    for key, value in where.items():
        if key == "epsilon":
            expected = expected[expected["epsilon"].isna() if value == "" else expected["epsilon"] == float(value)]
        elif key == "model":
            expected = expected[expected["model"] == "cnn4"]
        else:
            expected = expected[expected[key] == value.replace("?", "i")]
    assert 0 < len(selected) < len(results.table)
    assert_frame_equal(selected, expected.reset_index(drop=True))


def test_select_takes_several_globs() -> None:
    results = synthetic.results()
    both = select(results, {"attack": "none|?fgsm"}).table
    assert set(both["attack"]) == {"none", "ifgsm"}
    assert len(both) == sum(len(select(results, {"attack": name}).table) for name in ("none", "ifgsm"))


@pytest.mark.parametrize(
    ("where", "part"),
    [
        ({"modle": "*"}, "unknown key, expected .*did you mean 'model'"),
        ({"model": "none-such"}, "no cell matches, expected here: cnn4, "),
        ({"attack": "none|ifgms"}, "--where attack=ifgms: no cell matches, expected here: "),
        ({"epsilon": "7"}, 'no cell matches, expected here: "", 0.0005'),
        ({"attack": "none", "epsilon": "0.001"}, "no cell matches them all"),
    ],
)
def test_select_refuses_globs_without_a_match(where: dict[str, str], part: str) -> None:
    with pytest.raises(InputError, match=part) as error:
        select(synthetic.results(), where)
    assert_one_line(error, "--where")


def test_select_applies_to_examples() -> None:
    examples = pd.DataFrame([synthetic.example(), synthetic.example(model="emodb-cnn")])
    results = Results(pd.concat([table(), table(model="emodb-cnn")]), examples, RUN)
    assert select(results, {"model": "emodb-cnn"}).examples["model"].tolist() == ["emodb-cnn"]


def test_keys_are_in_both_tables() -> None:
    assert set(KEYS) <= set(TABLE_SCHEMA.names)
    assert set(KEYS) <= set(EXAMPLES_SCHEMA.names)


def test_provenance_is_plain_data_without_the_name_of_the_machine() -> None:
    facts = provenance()
    assert json.loads(json.dumps(facts)) == facts
    assert {"torch", "pandas", "pesq"} <= set(facts["packages"])
    assert set(facts["host"]) == {"system", "machine", "processor", "cores", "memory_gib"}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_provenance_has_commit_and_state_of_an_advser_checkout_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.chdir(tmp_path)
    assert provenance()["git"] is None
    git("init", "-q")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n')
    git("add", ".")
    git("commit", "-qm", "first")
    assert provenance()["git"] is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "advser"\n')
    assert provenance()["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": True}
    git("commit", "-qam", "second")
    assert provenance()["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": False}


def test_older_results_have_the_present_names_of_the_audits_checks(tmp_path: Path) -> None:
    """A run.json from before the checks were renamed is read with their present names, flags included."""
    results = Results.load(PUBLISHED / "leaderboard")
    audit = results.run["audit"]
    assert not {*RENAMED_CHECKS} & {*audit["checks"], *audit["needs"], *audit["looked_at"]}
    assert {*RENAMED_CHECKS.values()} <= {*audit["checks"]}
    former = {present: name for name, present in RENAMED_CHECKS.items()}
    flag = {"check": former["robust-to-huge-budget"], "where": {}, "detail": ""}
    older = Results(results.table, results.examples, {**results.run, "audit": {**audit, "flags": [flag]}})
    older.save(tmp_path)
    (read,) = Results.load(tmp_path).run["audit"]["flags"]
    assert read == {**flag, "check": "robust-to-huge-budget"}


@pytest.mark.parametrize("name", ["fgsm [v2]", "a|b, <c>", "what?", "2*", "[!x]"])
def test_select_takes_every_name_that_it_offers(name: str) -> None:
    results = synthetic.results()
    table = results.table.assign(attack=results.table["attack"].replace("ifgsm", name))
    assert set(select(replace(results, table=table), {"attack": name}).table["attack"]) == {name}
