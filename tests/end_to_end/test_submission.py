"""Submissions: packed, unpacked and run again; what was tampered with is found out."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
from commandline import advser, advser_here

from advser.errors import InputError
from advser.execution.prepare import joined
from advser.execution.submission import MANIFEST, submit, unpack
from advser.execution.verification import Verified, _other_ranks, _suite, compared, suite_told
from advser.results.folder import Results
from advser.results.schema import TABLE_FILE
from advser.suite.schema import Suite

SUITE = """
name: submitted
corpus: demo
protocol: 3pair
folds: [fold1]
models: [tiny]
training: {iterations: 20}
defenses: [none]
transcriber: none
noise: false
audit: false
metrics: [uar, accuracy, seconds]
attacks:
  - {name: halved, labels: predicted, params: {epsilon: 0.004}}
"""
PLUGIN = '''
import advser
from advser.attacks.gradient_sign import FGSM
from ways.half import way


@advser.attack("halved")
class Halved(FGSM):
    """FGSM that goes half the way."""

    def perturb(self, target, x, labels, generator):
        return x + way(super().perturb(target, x, labels, generator) - x)
'''
BESIDE = "def way(whole):\n    return whole / 2\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and its submission."""
    place = tmp_path_factory.mktemp("submission")
    (place / "submitted.yaml").write_text(SUITE)
    (place / "halved.py").write_text(PLUGIN)
    (place / "ways").mkdir()
    (place / "ways" / "half.py").write_text(BESIDE)
    done = advser(
        "run", "submitted.yaml", "--plugin", "halved.py", "--store", "store", cwd=place
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = advser_here("submit", "results/submitted", "--plugin", "halved.py", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "submitted.zip written: results of its own suite 'submitted'; plugin files: halved.py" in done.stdout
    return place


def test_a_submission_is_confirmed_by_running_it_again_from_nothing(place: Path, tmp_path: Path) -> None:
    done = advser("verify", place / "submitted.zip", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "claimed" in done.stdout
    assert "verified" in done.stdout
    jobs = Results.load(place / "results" / "submitted").run["jobs"]["total"]
    assert f"; 0 ranks differ\nran its own suite 'submitted', {jobs} jobs done" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"], "the store was kept"
    again = Results.load(tmp_path / "results" / "submitted-verified")
    figures = compared(Results.load(place / "results" / "submitted").table, again.table)
    assert set(figures["outcome"]) == {"same"}
    assert "halved" in set(figures["attack"])
    assert "seconds" not in set(figures["metric"])


def changed(place: Path, into: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A submission whose contents were changed."""
    with zipfile.ZipFile(place / "submitted.zip") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    change(contents)
    with zipfile.ZipFile(into, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return into


def with_manifest(contents: dict[str, bytes], name: str) -> None:
    contents[name] = b"x"
    manifest = json.loads(contents[MANIFEST])
    manifest["files"][name] = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    contents[MANIFEST] = json.dumps(manifest).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda contents: contents.update({"plugins/halved.py": b"import os"}),
            "plugins/halved.py: found another file",
        ),
        (lambda contents: contents.update({"more.txt": b"?"}), "more.txt: found another file"),
        (lambda contents: contents.pop(TABLE_FILE), "results.parquet: found another file"),
        (lambda contents: contents.pop(MANIFEST), "no submission"),
        (lambda contents: with_manifest(contents, "elsewhere/x.py"), "got a path out of the file"),
        (lambda contents: with_manifest(contents, "../outside.txt"), "got a path out of the file"),
        (lambda contents: with_manifest(contents, "/outside.txt"), "got a path out of the file"),
    ],
)
def test_what_was_tampered_with_is_refused(place: Path, tmp_path: Path, change: Callable, message: str) -> None:
    file = changed(place, tmp_path / "changed.zip", change)
    with pytest.raises(InputError, match=message):
        unpack(file, tmp_path / "into")
    assert not (tmp_path / "outside.txt").exists()


# An interval is a claim too: none is wide enough to hide behind.
@pytest.mark.parametrize("interval", [(0.9, 1.0), (0.0, 1.0)])
def test_a_claim_that_does_not_hold_is_told(place: Path, tmp_path: Path, interval: tuple[float, float]) -> None:
    folder = tmp_path / "claimed"
    results = Results.load(place / "results" / "submitted")
    better = results.table.copy()
    attacked = (better["attack"] == "halved") & (better["metric"] == "uar")
    better.loc[attacked, ["value", "ci_low", "ci_high"]] = [0.95, *interval]
    Results(better, results.examples, results.run, results.ranks, results.pooled).save(folder)
    submit(folder, [place / "halved.py"], tmp_path / "claimed.zip")
    done = advser("verify", tmp_path / "claimed.zip", "--store", place / "store", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0.9500" in done.stdout
    assert "1 outside" in done.stdout


def test_the_plugin_files_must_be_those_of_the_run(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--plugin: got none, expected the files of the run, halved\.py"):
        submit(place / "results" / "submitted", [], tmp_path / "none.zip")


def test_a_plugin_that_changed_since_the_run_is_refused(place: Path, tmp_path: Path) -> None:
    results = Results.load(place / "results" / "submitted")
    assert sorted(results.run["plugin_files"]) == ["halved.py", "ways/half.py"]
    then = results.run | {"plugin_files": results.run["plugin_files"] | {"ways/half.py": "0" * 64}}
    replace(results, run=then).save(tmp_path / "then")
    with pytest.raises(InputError, match=r"ways/half\.py: changed since the run"):
        submit(tmp_path / "then", [place / "halved.py"], tmp_path / "changed.zip")
    fewer = {name: digest for name, digest in results.run["plugin_files"].items() if name == "halved.py"}
    replace(results, run=results.run | {"plugin_files": fewer}).save(tmp_path / "fewer")
    with pytest.raises(InputError, match=r"ways/half\.py: changed since the run"):
        submit(tmp_path / "fewer", [place / "halved.py"], tmp_path / "changed.zip")


def test_two_files_of_one_name_are_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "halved.py").write_text("")
    results = Results.load(place / "results" / "submitted")
    replace(results, run=results.run | {"plugins": ["halved.py"] * 2}).save(tmp_path / "both")
    with pytest.raises(InputError, match=r"--plugin: found two files called 'halved\.py'"):
        submit(tmp_path / "both", [place / "halved.py", tmp_path / "halved.py"], tmp_path / "both.zip")


def test_flags_are_claims_too(place: Path, tmp_path: Path) -> None:
    results = Results.load(place / "results" / "submitted")
    told = {flag["check"] for flag in results.run["audit"]["flags"]}
    assert told
    silent = results.run["audit"] | {"flags": []}
    replace(results, run=results.run | {"audit": silent}).save(tmp_path / "claimed")
    submit(tmp_path / "claimed", [place / "halved.py"], tmp_path / "claimed.zip")
    done = advser("verify", tmp_path / "claimed.zip", "--store", place / "store", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"flags that the submission does not tell: {', '.join(sorted(told))}" in done.stdout


def verified(claimed: Results, outcomes: list[str], found: Results) -> Verified:
    """What verifying came to, of figures with these outcomes."""
    ranks = _other_ranks(claimed, found, exact={*outcomes} == {"same"})
    return Verified(pd.DataFrame({"outcome": outcomes}), ranks, (), "", ("1", "1"), 0, Path())


def test_ranks_are_claims_too_and_must_fit_though_figures_may_differ_a_little() -> None:
    found = synthetic.ranked()
    ranks = found.ranks
    assert verified(found, ["same"], found).confirmed
    last = ranks.index[(ranks["rank"] > 0) & (ranks["rank_low"] > 1)][0]
    better = replace(found, ranks=ranks.assign(rank=ranks["rank"].where(ranks.index != last, 1)))
    for outcomes in (["same"], ["same", "within"]):
        assert verified(better, outcomes, found).ranks == 1
        assert not verified(better, outcomes, found).confirmed
    surer = replace(found, ranks=ranks.assign(p=ranks["p"] / 2))
    assert not verified(surer, ["same"], found).confirmed
    open_to_chance = ranks.index[(ranks["rank_low"] < ranks["rank"])][0]
    lower = ranks["rank"].where(ranks.index != open_to_chance, ranks["rank_low"])
    assert verified(replace(found, ranks=ranks.assign(rank=lower)), ["same", "within"], found).confirmed


def test_an_interval_is_a_claim_too() -> None:
    table = synthetic.results().table
    narrower = table.assign(ci_low=table["ci_low"] + 0.01)
    assert set(compared(pd.DataFrame(narrower), table)["outcome"]) == {"interval"}


@pytest.mark.parametrize(
    ("changes", "only", "name", "told"),
    [
        (["bootstrap=3"], {}, "mock", "the shipped suite 'mock' with --set bootstrap=3"),
        (
            ["bootstrap=3"],
            {"attack": "fgsm*"},
            "mock",
            "the shipped suite 'mock' with --set bootstrap=3 --only 'attack=fgsm*'",
        ),
        ([], {}, "mock", "its own suite 'mock', which is not the shipped one of that name"),
        ([], {}, "other", "its own suite 'other'"),
        ([], {"attack": "fgsm"}, "other", "its own suite 'other', cut by --only attack=fgsm"),
    ],
)
def test_which_suite_was_run_is_told(
    tmp_path: Path, changes: list[str], only: dict[str, str], name: str, told: str
) -> None:
    suite = joined("mock", ["bootstrap=3"]).model_copy(update={"name": name}).model_dump(mode="json")
    results = synthetic.results()
    claimed = replace(results, run=results.run | {"suite": suite, "set": changes, "only": only})
    found, again = _suite(claimed, tmp_path)
    assert (again, suite_told(claimed)) == (changes if told.startswith("the shipped") else (), told)
    assert joined(found, again) == Suite.model_validate(suite)


def test_the_same_results_give_the_same_file(place: Path, tmp_path: Path) -> None:
    files = [submit(place / "results" / "submitted", [place / "halved.py"], tmp_path / name) for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_figures_are_paired_by_their_keys_in_whatever_order() -> None:
    table = synthetic.results().table
    assert set(compared(table, table.sample(frac=1, random_state=0))["outcome"]) == {"same"}
    last = table.index[(table["metric"] == "uar") & (table["status"] == "ok")][-1]
    assert compared(table, table.drop(index=last))["outcome"].value_counts()["lacking"] == 1
    shift = np.where(table["metric"] == "uar", 10.0, 0.0)
    worse = table.assign(**{name: table[name] + shift for name in ("value", "ci_low", "ci_high")})
    outcome = compared(table, pd.DataFrame(worse)).set_index("metric")["outcome"]
    assert set(outcome["uar"]) == {"outside"}


def test_what_is_no_submission_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("nothing")
    for name in ("text.zip", "missing.zip"):
        done = advser_here("verify", name, cwd=tmp_path)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert name in done.stderr
