"""Comparison of two results: true regressions are detected at the stated power, noise seldom; protocols must agree."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from commandline import advser_here
from hypothesis import given
from hypothesis import strategies as st
from one_cell import CLIPS, SUITE, results, with_answers
from scipy.stats import binomtest

from advser.errors import InputError
from advser.metrics.base import Array
from advser.metrics.recognition import UAR, Accuracy
from advser.results.folder import Results
from advser.scoring.differences import Gate
from advser.scoring.paired_test import _chernoff, corrected, detectable, power, worsening
from advser.scoring.regression import compare, gates_of
from advser.scoring.significance import EXACT, sign_flips


def pair(rng: np.random.Generator, drop: float, churn: float) -> tuple[Results, Results]:
    """Two results: a clip turns wrong with chance ``drop`` + ``churn`` / 2, and right with chance ``churn`` / 2."""
    # Clips that turn must be right, or wrong, before.
    turn = rng.choice(3, size=CLIPS, p=[1 - drop - churn, drop + churn / 2, churn / 2])
    before = np.where(turn == 1, True, np.where(turn == 2, False, rng.uniform(size=CLIPS) < 0.7))
    whole = correct()
    return with_answers(whole, before), with_answers(
        whole, np.where(turn == 1, False, np.where(turn == 2, True, before))
    )


@cache
def correct() -> Results:
    return results(np.ones(CLIPS, bool))


def test_pairs_are_results_as_they_are_read() -> None:
    right = np.arange(CLIPS) % 3 > 0
    quick, whole = with_answers(correct(), right), results(right)
    pd.testing.assert_frame_equal(quick.table, whole.table)
    pd.testing.assert_frame_equal(quick.examples, whole.examples)
    assert quick.run == whole.run


def detected(drop: float, churn: float, trials: int) -> int:
    rng = np.random.default_rng(0)
    gate = [Gate("accuracy", 0.02)]
    return sum(bool(compare(*pair(rng, drop, churn), gate).failures) for _ in range(trials))


@pytest.mark.parametrize(("drop", "churn"), [(0.03, 0.0), (0.06, 0.02), (0.1, 0.04)])
def test_a_true_regression_is_detected_at_the_stated_power(drop: float, churn: float) -> None:
    trials, stated = 40, power(CLIPS, drop, churn, 0.02, 0.05)
    assert binomtest(detected(drop, churn, trials), trials, stated).pvalue > 0.001


def test_three_points_on_107_clips_are_detected_once_in_five_times_and_always_without_a_test() -> None:
    assert power(CLIPS, 0.03, 0.0, 0.02, 0.05) == pytest.approx(0.22, abs=0.01)
    base, lost = np.ones(CLIPS, bool), np.ones(CLIPS, bool)
    lost[:3] = False
    gate = [Gate("accuracy", 0.02)]
    assert not compare(results(base), results(lost), gate).failures
    assert compare(results(base), results(lost), gate, level=1).failures
    lost[:5] = False
    assert [move.metric for move in compare(results(base), results(lost), gate).failures] == ["accuracy"]


@pytest.mark.parametrize("churn", [0.02, 0.3])
def test_noise_fails_no_more_builds_than_the_level(churn: float) -> None:
    trials = 40
    assert binomtest(detected(0.0, churn, trials), trials, 0.05, alternative="greater").pvalue > 0.001


def test_the_detectable_drop_is_the_smallest_with_a_power_of_80_percent() -> None:
    drop = detectable(CLIPS, 0.02, 0.02, 0.05)
    assert power(CLIPS, drop, 0.02, 0.02, 0.05) >= 0.8 > power(CLIPS, drop - 0.002, 0.02, 0.02, 0.05)


@given(st.lists(st.sampled_from([(0, 0), (1, 1), (1, 0), (0, 1)]), min_size=1, max_size=40))
def test_for_accuracy_it_is_mcnemars_exact_test(answers: list[tuple[int, int]]) -> None:
    new, base = (np.array([[[answer[side], 1.0] for answer in answers]]) for side in (0, 1))
    lost = sum(before > after for after, before in answers)
    turned = sum(before != after for after, before in answers)
    test = worsening(Accuracy(), new, base, higher_is_better=True)
    exact = binomtest(lost, turned, 0.5, alternative="greater").pvalue if turned else 1.0
    assert test.p == pytest.approx(exact, abs=1e-9)
    assert test.least == 0.5**turned
    assert worsening(Accuracy(), base, new, higher_is_better=False).p == pytest.approx(exact, abs=1e-9)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=EXACT))
def test_the_bound_of_a_tail_is_never_below_it_and_near_it_if_every_clip_became_worse(worse: list[float]) -> None:
    shares = np.array(worse) + 0.0
    if not (np.abs(shares) > 1e-3).all():
        return
    tail = float(np.mean((2 * sign_flips(len(shares), 0, 0) - 1) @ shares >= shares.sum() - 1e-12))
    bound = _chernoff(shares)
    assert tail <= bound * (1 + 1e-6)
    if (shares > 0).all():
        assert bound == pytest.approx(tail, rel=0.01)


def right_of(classes: int, clips: int, right: bool) -> Array:
    """Statistics of clips that are all right, or all wrong."""
    examples = pd.DataFrame({"label": np.arange(clips) % classes, "prediction": 0})
    examples["prediction"] = examples["label"] if right else (examples["label"] + 1) % classes
    return np.stack([np.asarray(UAR().statistics(examples, classes), float)])


@pytest.mark.parametrize("clips", [20, 100])
def test_p_below_the_resolution_of_swaps_is_bounded(clips: int) -> None:
    # Classes have unequal sizes, so clips move the figure by unequal amounts.
    new, base = right_of(3, clips, right=False), right_of(3, clips, right=True)
    test = worsening(UAR(), new, base, higher_is_better=True)
    assert test.p == pytest.approx(0.5**clips, rel=0.5)
    assert worsening(UAR(), base, new, higher_is_better=True).p == 1


def test_a_collapse_is_called_a_regression_among_any_number_of_gated_figures() -> None:
    new, base = (np.array([[[right, 1.0]] * 100]) for right in (0.0, 1.0))
    collapsed = worsening(Accuracy(), new, base, higher_is_better=True)
    p = corrected([collapsed.p, *[0.5] * 2000], [collapsed.least, *[1e-6] * 2000], 0.05)
    assert p[0] <= 0.05


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30)), min_size=1, max_size=30), st.floats(0.01, 0.5))
def test_p_is_corrected_for_many_tests_and_tests_that_cannot_reject_cost_nothing(tests, level: float) -> None:
    values = [max(p, 0.5**changed) for p, changed in tests]
    least = [0.5**number for _, number in tests]
    adjusted = corrected(values, least, level)
    assert all(min(1.0, p * len(values)) >= q or q == 1.0 for p, q in zip(values, adjusted, strict=True))
    assert all(q >= p for p, q in zip(values, adjusted, strict=True))
    unmoved = corrected([*values, 1.0, 1.0], [*least, 1.0, 1.0], level)
    assert unmoved == [*adjusted, 1.0, 1.0]


def test_seeds_are_pooled_and_may_differ() -> None:
    right = np.ones(CLIPS, bool)
    assert not compare(results(right), results(right, seed=1)).failures


def test_a_lost_figure_fails_its_gate_and_a_new_figure_does_not() -> None:
    whole = results(np.ones(CLIPS, bool))
    broken = whole.table.copy()
    rows = broken["metric"] == "accuracy"
    broken.loc[rows, ["value", "status", "reason"]] = [np.nan, "failed", "out of memory"]
    lost = compare(whole, replace(whole, table=broken))
    assert [(move.verdict, move.reason) for move in lost.failures] == [("lost", "out of memory")]
    assert not compare(replace(whole, table=broken), whole).failures


def test_differing_trainings_and_cuts_are_noted() -> None:
    whole = results(np.ones(CLIPS, bool))
    suite = {**SUITE, "training": {"iterations": 40}, "metrics": SUITE["metrics"][::-1]}
    cut = replace(whole, table=whole.table.iloc[:0], run={**whole.run, "suite": suite, "only": {"attack": "fgsm"}})
    notes = compare(whole, cut).notes
    assert any(re.search(r"The suites differ: .*training.iterations None → 40", note) for note in notes), notes
    lost = len(whole.table)
    assert f"The new results are cut (--only attack=fgsm): {lost} figures of the base are lost." in notes
    assert not [note for note in compare(whole, whole).notes if "suites" in note or "cut" in note]


@pytest.mark.parametrize(
    ("before", "after", "differences"),
    [
        ({"attacks": {"ifgsm": "fp32"}}, {"attacks": {"ifgsm": "bf16"}}, ["attacks.ifgsm fp32 → bf16"]),
        (
            {"training": "bf16", "attacks": {}},
            {"training": "fp32", "attacks": {"pgd": "fp32"}},
            ["training bf16 → fp32"],
        ),
        ({"attacks": {"ifgsm": "bf16", "fgsm": "fp32"}}, {"attacks": {"fgsm": "fp32"}}, []),
        ({"attacks": ["bf16", "fp32"]}, {"attacks": {"ifgsm": "bf16"}}, []),
        ({}, {"attacks": {"ifgsm": "bf16"}}, []),
    ],
)
def test_differing_precisions_are_noted_for_keys_of_both_runs(
    before: dict[str, Any], after: dict[str, Any], differences: list[str]
) -> None:
    whole = results(np.ones(CLIPS, bool))
    base, new = (replace(whole, run={**whole.run, "precision": precision}) for precision in (before, after))
    notes = [note for note in compare(base, new).notes if "precisions" in note]
    assert notes == [f"The precisions differ: {difference}." for difference in differences]


def test_without_examples_the_tolerance_alone_decides_with_a_note() -> None:
    base, new = results(np.ones(CLIPS, bool)), results(np.arange(CLIPS) > 2)
    bare = [replace(full, examples=full.examples.iloc[:0]) for full in (base, new)]
    comparison = compare(*bare, [Gate("accuracy", 0.02)])
    assert [move.verdict for move in comparison.failures] == ["regression"]
    assert "Without a test" in comparison.notes[0]
    assert not compare(*bare, [Gate("accuracy", 0.03)]).failures


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"suite": {**SUITE, "protocol": "loso"}}, "suite.protocol: got loso, expected 5pair, as in the base"),
        ({"suite": {**SUITE, "folds": ["fold1"]}}, "suite.folds: got"),
        ({"suite": {**SUITE, "seeds": [0, 1]}}, "suite.seeds: got 2, expected 1, as in the base"),
        ({"suite": {"name": "x"}}, "run.json: suite: corpus: got nothing, expected a value"),
        ({"transcribers": {"": {"name": "sphinx", "params": {}, "model": "a"}}}, "transcriber: got .*sphinx"),
    ],
)
def test_different_protocols_are_refused(run: dict[str, Any], message: str) -> None:
    right = np.ones(CLIPS, bool)
    with pytest.raises(InputError, match=message):
        compare(results(right), results(right, **run))


def test_other_clips_are_refused() -> None:
    with pytest.raises(InputError, match=r"got 99 .* expected the 107 clips of the base"):
        compare(results(np.ones(CLIPS, bool)), results(np.ones(99, bool)))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"uar": "0.02"}, "got '0.02', expected a number ≤ 0, since higher is better"),
        ({"seconds": "-1"}, "expected a number ≥ 0, since lower is better"),
        ({"uar": "much"}, "got 'much', expected a number"),
        ({"usr": "-0.1"}, "gate 'usr': got an unknown metric, expected uar, accuracy, seconds.*did you mean 'uar'"),
    ],
)
def test_a_gate_must_be_a_change_for_the_worse(texts: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gates_of(results(np.ones(CLIPS, bool)), texts)


YAML = """
name: gate
corpus: demo
protocol: 3pair
folds: [fold1]
models: [tiny]
training: {iterations: 60, batch_size: 16, learning_rate: 2e-3}
defenses: [none]
transcriber: none
noise: false
audit: false
metrics: [uar, accuracy, snr]
attacks:
  - {name: noise, params: {epsilon: 0.006, kind: gaussian}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a small suite, of the same model under another draw of noise, and of a hardly trained model."""
    place = tmp_path_factory.mktemp("compare")
    (place / "gate.yaml").write_text(YAML)
    runs = {"base": [], "again": ["--set", "batch_size=16"], "untrained": ["--set", "training.iterations=2"]}
    for out, changes in runs.items():
        done = advser_here(
            "run", "gate.yaml", "--store", "store", "--out", out, *changes, cwd=place
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return place


def test_another_draw_of_the_noise_moves_figures_and_fails_nothing(place: Path) -> None:
    # The seed of an attack's random numbers depends on the batch of a clip.
    done = advser_here("compare", "base", "again", cwd=place)
    assert done.returncode == 0, done.stdout
    assert "0 of them failed" in done.stdout
    assert " 0 moved" not in done.stdout


def test_a_model_that_became_worse_fails_in_every_format(place: Path) -> None:
    gates = ("--fail-on", "uar=-0.02", "--fail-on", "snr=-0.1")
    for name, verdict in {"terminal": "regression", "markdown": "| regression", "csv": "regression,uar"}.items():
        done = advser_here("compare", "base", "untrained", *gates, "--format", name, cwd=place)
        assert done.returncode == 1, done.stderr
        assert verdict in done.stdout
    done = advser_here("compare", "base", "untrained", *gates, "--format", "junit", cwd=place)
    assert done.returncode == 1
    suite = ElementTree.fromstring(done.stdout)
    failed = [case for case in suite if case.find("failure") is not None]
    assert int(suite.attrib["failures"]) == len(failed) >= 1
    assert int(suite.attrib["tests"]) == len(suite)
    assert all("tiny / none" in case.attrib["name"] for case in failed)


def test_github_gets_annotations_and_a_summary(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place / "summary.md"))
    done = advser_here("compare", "base", "untrained", "--fail-on", "uar=-0.02", "--format", "github", cwd=place)
    assert done.returncode == 1
    assert all(line.startswith("::error title=AdvSER regression::tiny / none, ") for line in done.stdout.splitlines())
    assert "| regression" in (place / "summary.md").read_text()


def test_unusable_input_ends_with_2_and_one_line(place: Path) -> None:
    other = json.loads((place / "base" / "run.json").read_text())
    other["suite"]["protocol"] = "loso"
    Results.load(place / "base").save(place / "other")
    (place / "other" / "run.json").write_text(json.dumps(other))
    for arguments in (("base", "nowhere"), ("base", "other"), ("base", "again", "--fail-on", "uar=1")):
        done = advser_here("compare", *arguments, cwd=place)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert "Traceback" not in done.stderr
