"""A run of the demo suite through the real command line: results, boards, cached runs, interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from commandline import ADVSER, advser, advser_here, jobs_done

from advser.leaderboards.boards.catalogue import BOARDS
from advser.models.precision import settled
from advser.results.folder import Results
from advser.results.terms import CHANCE_BASELINES
from advser.store.artefacts import Store

CUT = [
    "--set", "training.iterations=60", "--set", "protocol=loso", "--set", "folds=[f1]", "--set", "defenses=[none]",
    "--set", "audit=false", "--set", "classes=[anger, sadness]", "--set", "attacks.2.delivery=features",
]  # fmt: skip
PLUGIN = '''
import advser
from advser.attacks.base import Attack
from advser.plugins.roles import budget


@advser.attack("shift")
class Shift(Attack):
    """Adds a constant."""

    epsilon: float = budget(unit="full-scale or z", about="budget", ge=0)

    def perturb(self, target, x, labels, generator):
        return {body}
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def finished(place: Path) -> subprocess.CompletedProcess[str]:
    """The cut demo suite after one run from an empty store."""
    return advser("run", *CUT, "--store", "store", cwd=place)


@pytest.fixture(scope="module")
def results(finished: subprocess.CompletedProcess[str], place: Path) -> Results:
    return Results.load(place / "results" / "demo-cut")


def value(results: Results, metric: str, **where: str) -> float:
    """Return the single value of a metric in the matching cell, without chance baselines."""
    table = results.table[(results.table["metric"] == metric) & ~results.table["model"].isin(CHANCE_BASELINES)]
    for key, expected in where.items():
        table = table[table[key] == expected]
    assert len(table) == 1
    return float(table["value"].iloc[0])


def test_a_run_writes_boards_to_the_terminal_and_the_folder(finished, place: Path) -> None:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr
    folder = place / "results" / "demo-cut"
    for name in ("results.parquet", "examples.parquet", "run.json", "index.html"):
        assert (folder / name).stat().st_size > 0
    for board in BOARDS:
        for suffix in ("txt", "md", "tex", "csv"):
            assert (folder / "boards" / f"{board}.{suffix}").stat().st_size > 0
    assert "prove nothing" in finished.stdout
    assert "closed-text" in finished.stdout


def test_every_figure_has_a_value_or_a_reason(results: Results) -> None:
    table = results.table
    assert set(table["status"]) <= {"ok", "not-applicable"}
    assert table.loc[table["status"] == "not-applicable", "reason"].str.len().min() > 0
    ok = table[table["status"] == "ok"]
    assert ok["value"].notna().all()
    bounded = ok[ok["metric"].isin(["uar", "accuracy", "stoi", "attack-success"])]
    assert bounded["value"].between(0, 1).all()
    inside = ok["ci_low"].isna() | ((ok["ci_low"] <= ok["value"]) & (ok["value"] <= ok["ci_high"]))
    assert inside.all()


def test_the_precision_is_reported(results: Results) -> None:
    native = settled("auto", "cpu")
    assert results.run["precision"] == {"training": native, "attacks": {"fgsm": "fp32", "ifgsm": native}}
    assert ("Gradients in bfloat16: ifgsm. " in " ".join(results.notes)) == (native == "bf16")


def test_clean_clips_have_the_best_quality_and_no_change_of_wer(results: Results) -> None:
    assert value(results, "pesq", attack="none") > 4.6
    assert value(results, "stoi", attack="none") == pytest.approx(1, abs=1e-6)
    assert value(results, "wer-change", attack="ifgsm", domain="waveform") == pytest.approx(
        value(results, "wer", attack="ifgsm", domain="waveform") - value(results, "wer", attack="none"), abs=1e-9
    )


def test_an_attack_that_changes_nothing_has_no_word_errors_and_no_snr(finished, place: Path) -> None:
    plugin = place / "nothing.py"
    plugin.write_text(PLUGIN.format(body="x"))
    done = advser_here(
        "run", *CUT, "--store", "store", "--out", "nothing", "--plugin", plugin, "--only", "attack=shift", cwd=place
    )
    assert done.returncode == 0, done.stdout + done.stderr
    unchanged = Results.load(place / "nothing")
    assert value(unchanged, "wer-change", attack="shift", delivery="audio") == 0
    assert value(unchanged, "cer-change", attack="shift", delivery="audio") == 0
    assert value(unchanged, "pesq", attack="shift", delivery="audio") > 4.6
    snr = unchanged.table[(unchanged.table["metric"] == "snr") & (unchanged.table["attack"] == "shift")]
    assert set(snr["status"]) == {"not-applicable"}


def test_the_table_follows_from_the_examples(results: Results) -> None:
    clean = results.examples[results.examples["attack"] == "none"]
    assert (clean["prediction"] == clean["label"]).mean() == pytest.approx(value(results, "accuracy", attack="none"))
    recalls = (clean["prediction"] == clean["label"]).groupby(clean["label"]).mean()
    assert recalls.mean() == pytest.approx(value(results, "uar", attack="none"))


def test_attacks_are_stronger_than_noise_and_have_the_expected_cost(results: Results) -> None:
    clean = value(results, "accuracy", attack="none")
    noise = value(results, "accuracy", attack="noise", domain="waveform")
    attacked = value(results, "accuracy", attack="ifgsm", domain="waveform")
    assert attacked < clean
    assert attacked < noise
    assert value(results, "forwards", attack="ifgsm", domain="waveform") == 10
    assert value(results, "backwards", attack="ifgsm", domain="waveform") == 10
    assert value(results, "forwards", attack="noise", domain="waveform") == 0


def test_a_second_run_computes_nothing_and_has_the_same_results(finished, results: Results, place: Path) -> None:
    again = advser_here("run", *CUT, "--store", "store", "--out", "again", cwd=place)
    assert again.returncode == 0
    assert jobs_done(again) == 0
    pd.testing.assert_frame_equal(Results.load(place / "again").table, results.table)


def test_a_second_run_into_the_same_folder_reads_it_and_restores_a_missing_page(finished, place: Path) -> None:
    page = place / "results" / "demo-cut" / "index.html"
    before = page.stat().st_mtime_ns
    again = advser_here("run", *CUT, "--store", "store", cwd=place)
    assert again.returncode == 0
    assert page.stat().st_mtime_ns == before
    assert "prove nothing" in again.stdout
    page.unlink()
    assert advser_here("run", *CUT, "--store", "store", cwd=place).returncode == 0
    assert page.is_file()


def test_a_folder_with_failures_or_without_its_page_is_scored_again(finished, results, place: Path) -> None:
    command = ["run", *CUT, "--store", "store", "--out", "marked"]
    assert advser_here(*command, cwd=place).returncode == 0
    run = place / "marked" / "run.json"
    failed = json.loads(run.read_text()) | {"failures": [{"reason": "was missing"}]}
    run.write_text(json.dumps(failed))
    assert advser_here(*command, cwd=place).returncode == 0
    assert json.loads(run.read_text())["failures"] == []
    # The state after a kill between the results and their boards.
    (place / "marked" / "index.html").unlink()
    (place / "marked" / "boards" / "attacks.csv").write_text("old")
    assert advser_here(*command, cwd=place).returncode == 0
    assert (place / "marked" / "boards" / "attacks.csv").read_text() != "old"


def test_a_folder_is_redrawn_from_its_tables(finished, place: Path) -> None:
    folder = place / "results" / "demo-cut"
    before = (folder / "boards" / "attacks.md").read_bytes()
    (folder / "boards" / "attacks.md").write_text("spoilt")
    (folder / "figures" / "uar-against-epsilon.svg").unlink()
    assert advser_here("draw", folder, cwd=place).returncode == 0
    assert (folder / "boards" / "attacks.md").read_bytes() == before
    assert (folder / "figures" / "uar-against-epsilon.svg").is_file()
    assert advser_here("draw", "nowhere", cwd=place).returncode == 2


def test_results_of_other_drawing_code_are_scored_again(finished, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["run", *CUT, "--store", "store", "--out", "redrawn"]
    assert advser_here(*command, cwd=place).returncode == 0
    page = place / "redrawn" / "index.html"
    before = page.stat().st_mtime_ns
    assert advser_here(*command, cwd=place).returncode == 0
    assert page.stat().st_mtime_ns == before
    monkeypatch.setattr("advser.leaderboards.write.fingerprint", lambda: "other code")
    assert advser_here(*command, cwd=place).returncode == 0
    assert page.stat().st_mtime_ns > before


def test_drawing_removes_what_it_wrote_before_and_no_longer_makes(finished, place: Path) -> None:
    folder = place / "results" / "demo-cut"
    orphan = folder / "figures" / "wer-against-steps.svg"
    listed = json.loads((folder / "drawn.json").read_text())
    assert "boards/attacks.md" in listed
    (folder / "drawn.json").write_text(json.dumps([*listed, "figures/wer-against-steps.svg"]))
    orphan.write_text("of another suite")
    done = advser_here("draw", folder, cwd=place)
    assert done.returncode == 0, done.stderr
    assert f"{orphan}: removed" in done.stdout
    assert not orphan.exists()
    assert json.loads((folder / "drawn.json").read_text()) == listed


def test_the_boards_can_be_printed_again(finished, place: Path) -> None:
    for by, kind in zip(BOARDS, ("terminal", "markdown", "latex", "csv", "html", "terminal"), strict=True):
        done = advser_here("board", "results/demo-cut", "--by", by, "--format", kind, cwd=place)
        assert done.returncode == 0
        assert ("tiny" in done.stdout) == (by not in ("transfer", "audit")), "one victim, and nothing to flag"


def test_a_plugin_adds_only_its_own_cells_and_recomputes_them_after_a_change(finished, place: Path) -> None:
    places = iter(["first", "commented", "changed"])

    def shifted(body: str) -> subprocess.CompletedProcess[str]:
        # A process loads a plugin file once.
        plugin = place / next(places) / "shift.py"
        plugin.parent.mkdir()
        plugin.write_text(PLUGIN.format(body=body))
        return advser_here(*arguments, "--plugin", plugin, cwd=place)

    quick = ["--set", "metrics=[uar, snr]", "--only", "attack=none"]
    arguments = ["run", *CUT, *quick, "--store", "store", "--out", "plugin"]
    first = shifted("x + self.epsilon")
    assert first.returncode == 0, first.stdout + first.stderr
    assert set(Results.load(place / "plugin").table["attack"]) == {"none", "shift"}
    added = jobs_done(first)
    assert added > 0
    assert jobs_done(shifted("x + self.epsilon  # only a comment changed")) == 0
    assert jobs_done(shifted("x - self.epsilon")) == added


FAULTS = {
    "raises": ("1 / 0", "ZeroDivisionError"),
    "nan": ("x * float('nan')", "not finite"),
    "shape": ("x[:, 1:]", "shape"),
    "attribute": ("target.embedding(x).nothing", "AttributeError"),
}


def test_failing_attacks_are_failed_rows_and_the_others_finish(finished, results, place) -> None:
    plugin = place / "failing.py"
    sources = [PLUGIN.format(body=body).replace("shift", name) for name, (body, _) in FAULTS.items()]
    plugin.write_text("".join(sources))
    done = advser_here("run", *CUT, "--store", "store", "--out", "failing", "--plugin", plugin, cwd=place)
    assert done.returncode == 3, done.stdout + done.stderr
    failing = Results.load(place / "failing")
    failed = failing.table[failing.table["status"] == "failed"]
    assert set(failed["attack"]) == {*FAULTS}
    for name, (_, reason) in FAULTS.items():
        assert reason in " ".join(done.stdout.split())
        assert failed.loc[failed["attack"] == name, "reason"].str.contains(reason).all()
        assert any(reason in failure["reason"] for failure in failing.run["failures"])
    others = failing.table[~failing.table["attack"].isin(FAULTS)].reset_index(drop=True)
    pd.testing.assert_frame_equal(others, results.table)
    tried = failed.drop_duplicates(["attack", "domain", "delivery"])
    assert jobs_done(done) == len(tried), "only the failing jobs were tried"


def finished_artefacts(store: Path) -> set[Path]:
    """Return the finished artefacts."""
    # The store may move unfinished folders while they are listed.
    stages = [place for place in store.glob("*") if not place.name.startswith("unfinished-")]
    return {manifest.parent for stage in stages for manifest in stage.glob("*/manifest.json")}


@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["ctrl-c", "end", "kill"],
)
def test_an_interrupted_run_continues_from_the_store(how, code, finished, results, tmp_path: Path) -> None:
    quick = ["uar", "accuracy", "loss", "snr"]
    command = [
        ADVSER, "run", *CUT, "--set", f"metrics=[{', '.join(quick)}]", "--only", "domain=waveform", "--store", "store"
    ]  # fmt: skip
    # Its own session, so that the signal goes to the whole process group, as in a terminal. Tests that a script started
    # in the background ignore Ctrl-C, which a child would inherit.
    run = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while len(finished_artefacts(tmp_path / "store")) < 4 and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.05)
    os.killpg(run.pid, how)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == code, errors
    assert "Traceback" not in errors
    if code > 0:
        assert errors.splitlines()[-1].startswith("advser: interrupted; finished jobs are in the store")
    stored = finished_artefacts(tmp_path / "store")
    assert len(stored) >= 4
    again = advser_here(*command[1:], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    total = json.loads((tmp_path / "results" / "demo-cut" / "run.json").read_text())["jobs"]["total"]
    assert jobs_done(again) <= total - len(stored) + 1
    # A worker may have outlived the run for a moment: its folder goes at the start after.
    Store(tmp_path / "store").sweep()
    assert not [*(tmp_path / "store").glob("unfinished-*")]
    table = Results.load(tmp_path / "results" / "demo-cut").table
    expected = results.table[results.table["metric"].isin(quick) & (results.table["domain"] != "spectrogram")]
    pd.testing.assert_frame_equal(table, expected.reset_index(drop=True))
