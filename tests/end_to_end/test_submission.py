"""Submissions: packed, unpacked, run again; changed submissions are refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from commandline import advser, advser_here

from advser.errors import InputError
from advser.execution.prepare import joined
from advser.execution.submission import LARGEST, MANIFEST, submit, unpack
from advser.execution.verification import Verified, _differing_ranks, compared, suite_description
from advser.plan.added_plugins import is_with_added_plugins
from advser.results.folder import Results
from advser.results.schema import TABLE_FILE
from advser.results.selection import select
from advser.suite.loading import load
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
    """FGSM with half of its perturbation."""

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


def test_a_submission_is_confirmed_by_a_run_from_an_empty_store(place: Path, tmp_path: Path) -> None:
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
    """Write a submission with changed contents."""
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
            "plugins/halved.py: got a file that differs",
        ),
        (lambda contents: contents.update({"more.txt": b"?"}), "more.txt: got a file that differs"),
        (lambda contents: contents.pop(TABLE_FILE), "results.parquet: got a file that differs"),
        (lambda contents: contents.pop(MANIFEST), "got no manifest, expected a file that"),
        (lambda contents: with_manifest(contents, "elsewhere/x.py"), "got a path outside the submission"),
        (lambda contents: with_manifest(contents, "../outside.txt"), "got the name '../outside.txt'"),
        (lambda contents: with_manifest(contents, "/outside.txt"), "got the name '/outside.txt'"),
        (lambda contents: with_manifest(contents, "plugins/" * 2000 + "x"), "got the name 'plugins/plugins"),
        (lambda contents: with_manifest(contents, "plugins/halved.py/x"), "got an archive with two members of one"),
        *(
            (lambda contents, text=text: contents.update({MANIFEST: text}), "submission.json: got no manifest")
            for text in (
                b"[]",
                b"{}",
                b"1",
                b"\xff",
                b'{"advser": 1, "files": {}}',
                b'{"advser": "1", "files": [1]}',
                b'{"advser": "1", "files": {"a": 1}}',
                b"[" * 100_000,
                b'{"advser": NaN, "files": {}}',
            )
        ),
    ],
)
def test_a_changed_submission_is_refused(place: Path, tmp_path: Path, change: Callable, message: str) -> None:
    file = changed(place, tmp_path / "changed.zip", change)
    with pytest.raises(InputError, match=message):
        unpack(file, tmp_path / "into")
    assert not (tmp_path / "outside.txt").exists()


def bomb(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("x", "w") as member:
        for _ in range(LARGEST // 2**20 + 1):
            member.write(bytes(2**20))


def marked(offset: int, value: int) -> Callable[[Path], None]:
    """Return a writer of an archive whose member has another value in both headers, at ``offset`` of the second."""

    def write(file: Path) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(MANIFEST, "{}")
        data = bytearray(file.read_bytes())
        data[data.index(b"PK\x01\x02") + offset] = value
        data[offset - 2] = value
        file.write_bytes(data)

    return write


ARCHIVES: dict[str, tuple[Callable[[Path], None], str]] = {
    "bomb": (bomb, "got an archive of more than 256 MiB unpacked"),
    "encrypted": (marked(8, 1), "got an archive with the encrypted member 'submission.json'"),
    "method": (marked(10, 99), "got no readable archive (That compression method is not supported)"),
    "cut": (lambda file: file.write_bytes(b"PK\x03\x04" + bytes(40)), "got no readable archive"),
    "folder": (lambda file: file.mkdir(), "got Is a directory"),
}


@pytest.mark.parametrize("options", [(), ("--list",)])
@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_unusable_archive_is_refused_in_one_line(kind: str, options: tuple[str, ...], tmp_path: Path) -> None:
    write, message = ARCHIVES[kind]
    write(tmp_path / "claim.zip")
    done = advser_here("verify", "claim.zip", *options, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"claim.zip: {message}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["claim.zip"]


def test_the_contents_of_a_submission_are_printed_and_not_run(place: Path, tmp_path: Path) -> None:
    def change(contents: dict[str, bytes]) -> None:
        contents["plugins/halved.py"] = b"raise SystemExit('run')"
        manifest = json.loads(contents[MANIFEST])
        manifest["files"]["plugins/halved.py"] = sha256(contents["plugins/halved.py"]).hexdigest()
        contents[MANIFEST] = json.dumps(manifest).encode()

    done = advser_here("verify", changed(place, tmp_path / "claim.zip", change), "--list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    for text in (
        "its own suite 'submitted'",
        "plugins/halved.py: 23 bytes",
        "plugins/ways/half.py",
        "AdvSER ",
        "uar 0.",
    ):
        assert text in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["claim.zip"]


@pytest.mark.parametrize("key", ["notes", "suite", "metrics"])
def test_messages_name_the_submission_and_no_temporary_folder(place: Path, tmp_path: Path, key: str) -> None:
    def change(contents: dict[str, bytes]) -> None:
        contents["run.json"] = json.dumps({**json.loads(contents["run.json"]), key: 7}).encode()
        manifest = json.loads(contents[MANIFEST])
        manifest["files"]["run.json"] = sha256(contents["run.json"]).hexdigest()
        contents[MANIFEST] = json.dumps(manifest).encode()

    done = advser_here("verify", changed(place, tmp_path / "claim.zip", change).name, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"advser: claim.zip: run.json: {key}: got 7, expected ")
    assert "advser-verify" not in done.stderr


# The claimed interval is itself a claim: a wide interval excuses nothing.
@pytest.mark.parametrize("interval", [(0.9, 1.0), (0.0, 1.0)])
def test_a_false_claim_is_reported(place: Path, tmp_path: Path, interval: tuple[float, float]) -> None:
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
    older = results.run | {"plugin_files": results.run["plugin_files"] | {"ways/half.py": "0" * 64}}
    replace(results, run=older).save(tmp_path / "older")
    with pytest.raises(InputError, match=r"ways/half\.py: changed since the run"):
        submit(tmp_path / "older", [place / "halved.py"], tmp_path / "changed.zip")
    fewer = {name: digest for name, digest in results.run["plugin_files"].items() if name == "halved.py"}
    replace(results, run=results.run | {"plugin_files": fewer}).save(tmp_path / "fewer")
    with pytest.raises(InputError, match=r"ways/half\.py: changed since the run"):
        submit(tmp_path / "fewer", [place / "halved.py"], tmp_path / "changed.zip")


def test_two_files_with_the_same_name_are_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "halved.py").write_text("")
    results = Results.load(place / "results" / "submitted")
    replace(results, run=results.run | {"plugins": ["halved.py"] * 2}).save(tmp_path / "both")
    with pytest.raises(InputError, match=r"--plugin: got two files called 'halved\.py'"):
        submit(tmp_path / "both", [place / "halved.py", tmp_path / "halved.py"], tmp_path / "both.zip")


def test_flags_are_claims_too(place: Path, tmp_path: Path) -> None:
    results = Results.load(place / "results" / "submitted")
    flags = {flag["check"] for flag in results.run["audit"]["flags"]}
    assert flags
    silent = results.run["audit"] | {"flags": []}
    replace(results, run=results.run | {"audit": silent}).save(tmp_path / "claimed")
    submit(tmp_path / "claimed", [place / "halved.py"], tmp_path / "claimed.zip")
    done = advser("verify", tmp_path / "claimed.zip", "--store", place / "store", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"flags that the submission does not report: {', '.join(sorted(flags))}" in done.stdout


def verified(claimed: Results, outcomes: list[str], again: Results) -> Verified:
    """Return the verification of figures with these outcomes."""
    ranks = _differing_ranks(claimed, again, exact={*outcomes} == {"same"})
    return Verified(pd.DataFrame({"outcome": outcomes}), ranks, (), "", ("1", "1"), 0, Path())


def test_ranks_are_claims_too_and_must_be_in_the_verified_range_though_figures_may_differ() -> None:
    again = synthetic.ranked()
    ranks = again.ranks
    assert verified(again, ["same"], again).confirmed
    last = ranks.index[(ranks["rank"] > 0) & (ranks["rank_low"] > 1)][0]
    better = replace(again, ranks=ranks.assign(rank=ranks["rank"].where(ranks.index != last, 1)))
    for outcomes in (["same"], ["same", "within"]):
        assert verified(better, outcomes, again).ranks == 1
        assert not verified(better, outcomes, again).confirmed
    lower_p = replace(again, ranks=ranks.assign(p=ranks["p"] / 2))
    assert not verified(lower_p, ["same"], again).confirmed
    tied = ranks.index[(ranks["rank_low"] < ranks["rank"])][0]
    lower = ranks["rank"].where(ranks.index != tied, ranks["rank_low"])
    assert verified(replace(again, ranks=ranks.assign(rank=lower)), ["same", "within"], again).confirmed


def test_intervals_are_claims_too() -> None:
    table = synthetic.results().table
    narrower = table.assign(ci_low=table["ci_low"] + 0.01)
    assert set(compared(pd.DataFrame(narrower), table)["outcome"]) == {"interval"}


@pytest.mark.parametrize(
    ("moved", "outcomes"),
    [
        (("uar",), {"uar": "contrary", "accuracy": "same"}),
        (("accuracy",), {"uar": "same", "accuracy": "contrary"}),
        (("uar", "accuracy"), {"uar": "within", "accuracy": "within"}),
        (("snr",), {"uar": "same", "snr": "within"}),
    ],
)
def test_a_figure_of_answers_that_are_the_same_is_not_within(moved: tuple[str, ...], outcomes: dict[str, str]) -> None:
    cells = select(synthetic.results(), {"model": "cnn4", "defense": "none", "attack": "none"}).table
    cells = cells[cells["metric"].isin(["uar", "accuracy"])].drop_duplicates("metric")
    cell = pd.concat([cells, cells[:1].assign(metric="snr")]).assign(ci_low=0.0, ci_high=1000.0)
    claimed = cell.assign(value=np.where(cell["metric"].isin(moved), cell["value"] + 54 / 535, cell["value"]))
    outcome = compared(claimed, cell).set_index("metric")["outcome"]
    assert {metric: outcome[metric] for metric in outcomes} == outcomes


@pytest.mark.parametrize(
    ("changes", "only", "name", "description"),
    [
        (["bootstrap=3"], {}, "mock", "the shipped suite 'mock' with --set bootstrap=3"),
        (
            ["bootstrap=3"],
            {"attack": "fgsm*"},
            "mock",
            "the shipped suite 'mock' with --set bootstrap=3 --only 'attack=fgsm*'",
        ),
        ([], {}, "mock", "its own suite 'mock', which differs from the shipped suite of that name"),
        ([], {}, "other", "its own suite 'other'"),
        ([], {"attack": "fgsm"}, "other", "its own suite 'other', cut by --only attack=fgsm"),
    ],
)
def test_the_suite_is_described_with_its_changes(
    changes: list[str], only: dict[str, str], name: str, description: str
) -> None:
    suite = joined("mock", ["bootstrap=3"]).model_copy(update={"name": name}).model_dump(mode="json")
    results = synthetic.results()
    claimed = replace(results, run=results.run | {"suite": suite, "set": changes, "only": only})
    assert suite_description(claimed) == description


def added(**changes: Any) -> dict[str, Any]:
    """The suite ``mock`` with an attack that AdvSER does not ship, as data."""
    place = {"name": "own", "domain": ["waveform"], "params": {"size": 0.001}}
    suite = load("mock").model_dump(mode="json")
    return {**suite, "attacks": [*suite["attacks"], {**place, **changes}]}


@pytest.mark.parametrize(
    ("suite", "shipped"),
    [
        (added(), True),
        (added(params={"size": 0.1}), False),
        (added(domain=["spectrogram"]), False),
        (added(delivery=["features"]), False),
        (added() | {"bootstrap": 7}, False),
        (added() | {"attacks": added()["attacks"][1:]}, False),
    ],
)
def test_a_shipped_suite_with_a_newcomer_in_its_place_is_recognised(suite: dict[str, Any], shipped: bool) -> None:
    assert is_with_added_plugins(Suite.model_validate(suite), load("mock")) is shipped


TRICKS = {
    "exits": "import sys\nsys.exit(0)",
    "ends": "import os\nos._exit(0)",
    "prints": "import os\nprint('30 figures: 30 same; 0 ranks differ')\nos._exit(0)",
    "patches": "import advser.execution.verification as v, pandas\nv.compared = lambda *a: 1 / 0\n"
    "pandas.DataFrame.merge = None\nraise SystemExit",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_code_of_a_submission_cannot_confirm_itself(place: Path, tmp_path: Path, trick: str) -> None:
    def change(contents: dict[str, bytes]) -> None:
        contents["plugins/halved.py"] = TRICKS[trick].encode().decode("unicode_escape").encode()
        manifest = json.loads(contents[MANIFEST])
        manifest["files"]["plugins/halved.py"] = sha256(contents["plugins/halved.py"]).hexdigest()
        contents[MANIFEST] = json.dumps(manifest).encode()

    done = advser_here("verify", changed(place, tmp_path / "trick.zip", change), cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "same" not in done.stdout
    assert "runs its submitter's code" in done.stderr


def test_the_same_results_give_the_same_file(place: Path, tmp_path: Path) -> None:
    files = [submit(place / "results" / "submitted", [place / "halved.py"], tmp_path / name) for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_figures_are_paired_by_their_keys_in_any_order() -> None:
    table = synthetic.results().table
    assert set(compared(table, table.sample(frac=1, random_state=0))["outcome"]) == {"same"}
    last = table.index[(table["metric"] == "uar") & (table["status"] == "ok")][-1]
    assert compared(table, table.drop(index=last))["outcome"].value_counts()["lacking"] == 1
    shift = np.where(table["metric"] == "uar", 10.0, 0.0)
    worse = table.assign(**{name: table[name] + shift for name in ("value", "ci_low", "ci_high")})
    outcome = compared(table, pd.DataFrame(worse)).set_index("metric")["outcome"]
    assert set(outcome["uar"]) == {"outside"}


def test_a_file_that_is_no_submission_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("nothing")
    for name in ("text.zip", "missing.zip"):
        done = advser_here("verify", name, cwd=tmp_path)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert name in done.stderr
