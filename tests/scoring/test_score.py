"""Scoring a real run: figures agree with the examples, and what failed is told by the metrics that rest on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from advser.errors import MeasurementError
from advser.execution.worker import execute
from advser.metrics.base import Array, ClipMetric, Metric, Need
from advser.metrics.transcribers.base import Transcriber
from advser.plan.cells import Cell, Corpus, Plan, Speech
from advser.plan.jobs import prepare_job
from advser.plan.planner import make_plan
from advser.plugins.parameters import parameter
from advser.plugins.registries import METRICS, TRANSCRIBERS
from advser.results.folder import Results
from advser.results.schema import CHANCE_BASELINES
from advser.scoring.score import Scored, Scorer
from advser.stages.job import Outcome
from advser.stages.judge import LOGITS
from advser.stages.prepare import load_prepared
from advser.store.artefacts import Store
from advser.suite.schema import Suite, WorstCase


class Raises(Metric):
    """A metric with a fault, in its statistics or in its figure."""

    title: ClassVar[str] = "Raises"
    higher_is_better: ClassVar[bool] = True
    where: str = parameter("statistics", about="where the fault is")

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        if self.where == "statistics":
            raise ValueError("two\nlines")
        return np.ones((1 if self.where == "shape" else len(examples), 2))

    def combine(self, sums: Array) -> Array:
        raise ZeroDivisionError("one line")


class Length(ClipMetric):
    """Samples of a clip times a factor; some clips cannot be measured. It does not say that it needs sound."""

    title: ClassVar[str] = "Length"
    higher_is_better: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset()
    column: ClassVar[str] = "length"
    factor: float = parameter(1.0, about="what the length is multiplied by")
    shortest: int = parameter(0, unit="samples", about="what is shorter is not measured")

    def measure(self, clean: Any, judged: Any, rate: int) -> float:
        if len(judged) < self.shortest:
            raise MeasurementError("too short")
        return len(judged) * self.factor


class Deaf(Transcriber):
    """Hears the same word in every clip."""

    def unavailable(self, language: str) -> str | None:
        return None

    def transcribe(self, clips: Iterable[Any], language: str, sentences: Sequence[str]) -> Iterator[str]:
        return iter(["what" for _ in clips])


SHORTEST = 30_000
SUITE = {
    "name": "small",
    "noise": False,
    "corpus": "demo",
    "protocol": "3pair",
    "folds": ["fold1"],
    "training": {"iterations": 5, "batch_size": 16, "learning_rate": 2e-3, "precision": "fp32"},
    "models": [
        {"name": "tiny", "defenses": ["none"]},
        {"name": "tiny", "label": "other", "training": {"iterations": 4}, "defenses": ["none"]},
        {"name": "tiny", "label": "guarded", "defenses": ["detector"]},
    ],
    "defenses": ["none", {"name": "detector", "params": {"attack": {"name": "fgsm", "params": {"epsilon": 0.06}}}}],
    "attacks": [
        {"name": "fgsm", "transfer": True, "params": {"epsilon": 0.02}},
        {"name": "fgsm", "domain": "spectrogram", "delivery": "features", "params": {"epsilon": 0.06}},
    ],
    "metrics": [
        "uar",
        "accuracy",
        "loss",
        "attack-success",
        "transfer-rate",
        "detector-auc",
        "detector-eer",
        "snr",
        "wer",
        "wer-change",
        "forwards",
        {"name": "raises", "label": "raises-statistics"},
        {"name": "raises", "label": "raises-figure", "params": {"where": "figure"}},
        {"name": "raises", "label": "raises-shape", "params": {"where": "shape"}},
        {"name": "length", "label": "length-long", "params": {"shortest": SHORTEST}},
        {"name": "length", "label": "length-none", "params": {"shortest": 10**9}},
        {"name": "length", "label": "length-double", "params": {"factor": 2.0}},
    ],
    "bootstrap": 20,
}


@dataclass(frozen=True)
class Run:
    """A run whose jobs are done."""

    plan: Plan
    speech: Speech
    store: Store
    table: pd.DataFrame
    examples: pd.DataFrame
    scored: Scored

    def clean(self, model: str) -> Cell:
        wanted = {"model": model, "attack": "none"}
        (found,) = [cell for cell in self.plan.cells if wanted.items() <= cell.columns.items()]
        return found

    def cell(self, model: str, source: str, domain: str = "waveform") -> Cell:
        wanted = {"model": model, "source_model": source, "domain": domain}
        (found,) = [cell for cell in self.plan.cells if wanted.items() <= cell.columns.items()]
        return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    suite = Suite.model_validate(SUITE)
    store = Store(tmp_path_factory.mktemp("store"))
    speech = Speech(Deaf(), "deaf", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS._decorated, "raises", Raises)
        patch.setitem(METRICS._decorated, "length", Length)
        patch.setitem(TRANSCRIBERS._decorated, "deaf", Deaf)
        preparation = prepare_job(suite, 0, None)
        assert execute(preparation, store.root, [], "cpu").status == "ok"
        prepared = load_prepared(store.get(preparation.key))
        corpus = Corpus({0: preparation.key}, tuple(prepared.folds), prepared.language)
        plan = make_plan(suite, corpus, speech, {}, "cpu")
        outcomes = [execute(job, store.root, [], "cpu") for job in plan.jobs.values()]
        assert [outcome.reason for outcome in outcomes if outcome.status != "ok"] == []
        scored = Scorer(plan, store, {}, speech).score()
        yield Run(plan, speech, store, scored.table, scored.examples, scored)


def rows(frame: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """The rows of a table that belong to a cell."""
    keys = ("attack", "model", "source_model", "domain")
    return frame[np.logical_and.reduce([frame[key] == cell.columns[key] for key in keys])]


def figures(table: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    return rows(table, cell).set_index("metric")


def test_what_is_scored_is_a_results_folder(run: Run, tmp_path: Path) -> None:
    Results(run.table, run.examples, {"notes": [], "failures": []}).save(tmp_path)
    loaded = Results.load(tmp_path)
    anchored = loaded.table["model"].isin(CHANCE_BASELINES)
    assert (~anchored).sum() == len(run.plan.cells) * len(run.plan.suite.metrics)
    assert anchored.sum() == len(CHANCE_BASELINES) * 2
    assert {"length-long", "length-double", "snr"} <= set(loaded.examples.columns)


@pytest.mark.parametrize(("victim", "source"), [("tiny", "other"), ("other", "tiny")])
def test_the_transfer_rate_is_what_the_logits_say(run: Run, victim: str, source: str) -> None:
    cell = run.cell(victim, source)
    (fold,) = cell.folds
    prepared = load_prepared(run.store.get(fold.prepared))
    label = prepared.targets[list(prepared.folds["fold1"].test)]

    def read(key: str | None) -> Any:
        return load_file(run.store.get(str(key)).path(LOGITS))["logits"].argmax(1).numpy()

    qualifies = (read(fold.source_predicted) != label) & (read(fold.clean_predicted) == label)
    fooled = qualifies & (read(fold.predicted) != label)
    found = figures(run.table, cell).loc["transfer-rate"]
    assert 0 < qualifies.sum() < len(label)
    assert (found["n"], found["n_failed"]) == (qualifies.sum(), 0)
    assert found["value"] == pytest.approx(fooled.sum() / qualifies.sum())


def test_the_diagonal_of_the_transfer_matrix_is_the_white_box_cell(run: Run) -> None:
    for victim, other in (("tiny", "other"), ("other", "tiny")):
        own, transferred = run.cell(victim, victim), run.cell(victim, other)
        assert (own.columns["access"], transferred.columns["access"]) == ("white-box", "transfer")
        # The examples that fool the source there are those of the source's own white-box cell.
        assert transferred.folds[0].crafted == run.cell(other, other).folds[0].crafted
        source = rows(run.examples, transferred)["source_prediction"].to_numpy()
        assert (source == rows(run.examples, run.cell(other, other))["prediction"].to_numpy()).all()
        assert (rows(run.examples, own)["source_prediction"] == -1).all()
        state = figures(run.table, own).loc["transfer-rate"]
        assert (state["status"], state["reason"]) == ("not-applicable", "not a transfer row")


def test_loss_and_margin_are_those_of_the_logits(run: Run) -> None:
    cell = run.cell("tiny", "tiny")
    logits = load_file(run.store.get(cell.folds[0].predicted).path(LOGITS))["logits"].double().numpy()
    examples = rows(run.examples, cell)
    everyone = np.arange(len(logits))
    own = logits[everyone, examples["label"]]
    others = logits.copy()
    others[everyone, examples["label"]] = -np.inf
    np.testing.assert_allclose(examples["margin"], own - others.max(1), atol=1e-5)
    np.testing.assert_allclose(examples["loss"], np.log(np.exp(logits).sum(1)) - own, atol=1e-5)
    assert ((examples["margin"] > 0) == (examples["prediction"] == examples["label"])).all()


@pytest.mark.parametrize(
    ("source", "domain"), [("guarded", "waveform"), ("guarded", "spectrogram"), ("tiny", "waveform")]
)
def test_what_a_detector_says_is_scored(run: Run, source: str, domain: str) -> None:
    cell = run.cell("guarded", source, domain)
    (fold,) = cell.folds
    said, clean = (load_file(run.store.get(key).path(LOGITS)) for key in (fold.predicted, fold.clean_predicted))
    examples = rows(run.examples, cell)
    np.testing.assert_array_equal(examples["detection"], said["detections"])
    np.testing.assert_array_equal(examples["clean_detection"], clean["detections"])
    assert not said["detections"].equal(clean["detections"])
    clips = len(examples)
    scores = np.concatenate([examples["clean_detection"], examples["detection"]])
    found = figures(run.table, cell)
    assert found.loc["detector-auc", "value"] == pytest.approx(roc_auc_score([0] * clips + [1] * clips, scores))
    assert found.loc["detector-eer", "status"] == "ok"
    assert found.loc["detector-auc", ["n", "n_failed"]].tolist() == [clips, 0]


def test_detection_has_no_meaning_without_a_detector_or_an_attack(run: Run) -> None:
    table = run.table[run.table["metric"].isin(["detector-auc", "detector-eer"])]
    told = table.set_index(["model", "attack"])[["status", "reason"]]
    assert set(map(tuple, told.xs("none", level="attack").to_numpy())) == {("not-applicable", "clean row")}
    for victim in ("tiny", "other"):
        reasons = set(map(tuple, told.loc[[(victim, "fgsm")]].to_numpy()))
        assert reasons == {("not-applicable", "the victim has no detector")}
        assert run.examples.loc[run.examples["model"] == victim, ["detection", "clean_detection"]].isna().all(axis=None)
    assert set(told.loc[("guarded", "fgsm"), "status"]) == {"ok"}


def test_a_metric_with_a_fault_is_a_failed_row_and_the_others_go_on(run: Run) -> None:
    for cell in run.plan.cells:
        found = figures(run.table, cell)
        assert found.loc["raises-statistics", "reason"] == "ValueError: two lines"
        assert found.loc["raises-figure", "reason"] == "ZeroDivisionError: one line"
        assert found.loc["raises-shape", "reason"].startswith("ContractError: statistics returned the shape (1, 2)")
        assert set(found[found["status"] == "failed"].index) - {"length-none"} == {
            "raises-statistics",
            "raises-figure",
            "raises-shape",
        }


def test_two_entries_of_one_clip_metric_keep_their_columns_apart(run: Run) -> None:
    cell = run.cell("tiny", "tiny")
    (fold,) = cell.folds
    prepared = load_prepared(run.store.get(fold.prepared))
    lengths = prepared.clips.lengths[list(prepared.folds["fold1"].test)]
    measured = lengths >= SHORTEST
    assert 0 < measured.sum() < len(lengths)
    examples, found = rows(run.examples, cell), figures(run.table, cell)
    np.testing.assert_array_equal(examples["length-double"], 2.0 * lengths)
    np.testing.assert_array_equal(examples["length-long"], np.where(measured, lengths, np.nan))
    assert found.loc["length-double", "value"] == pytest.approx(2 * lengths.mean())
    assert found.loc["length-long", "value"] == pytest.approx(lengths[measured].mean())
    failed = int((~measured).sum())
    assert (found.loc["length-long", "n"], found.loc["length-long", "n_failed"]) == (measured.sum(), failed)
    assert found.loc["length-long", "reason"] == f"{failed} clips failed, most often: too short"
    assert found.loc["length-none", "status"] == "failed"
    assert found.loc["length-none", "reason"] == f"{len(lengths)} clips failed, most often: too short"


def test_a_clip_metric_needs_sound_whatever_it_says(run: Run) -> None:
    found = figures(run.table, run.cell("tiny", "tiny", "spectrogram"))
    for title in ("snr", "wer", "length-long", "length-double"):
        assert (found.loc[title, "status"], found.loc[title, "reason"]) == ("not-applicable", "features are no sound")
    assert found.loc["uar", "status"] == "ok"


TRANSFERRED = {"uar", "accuracy", "loss", "attack-success", "transfer-rate", "snr", "wer", "wer-change", "forwards"}
LENGTHS = {"length-long", "length-double"}


@pytest.mark.parametrize(
    ("lost", "failed"),
    [
        (lambda fold: fold.crafted, TRANSFERRED | LENGTHS),
        (lambda fold: fold.predicted, {"uar", "accuracy", "loss", "attack-success", "transfer-rate"}),
        (lambda fold: fold.clean_predicted, {"attack-success", "transfer-rate"}),
        (lambda fold: fold.source_predicted, {"transfer-rate"}),
        (lambda fold: fold.measured["snr"], {"snr"}),
        (lambda fold: fold.transcribed, {"wer", "wer-change"}),
        (lambda fold: fold.clean_transcribed, {"wer-change"}),
    ],
    ids=["crafted", "predicted", "clean", "source", "measured", "transcribed", "clean-transcribed"],
)
def test_a_failed_job_fails_the_metrics_that_rest_on_it(
    run: Run, tmp_path: Path, lost: Callable[[Any], str], failed: set[str]
) -> None:
    cell = run.cell("tiny", "other")
    outcomes = {lost(cell.folds[0]): Outcome(lost(cell.folds[0]), "failed", "craft fgsm: broken")}
    for key, job in run.plan.jobs.items():
        if set(job.inputs.values()) & set(outcomes):
            outcomes[key] = Outcome(key, "failed", "craft fgsm: broken")
    store = Store(tmp_path / "store")
    shutil.copytree(run.store.root, store.root)
    for key in outcomes:
        shutil.rmtree(store.folder(key))
    table = Scorer(run.plan, store, outcomes, run.speech).score().table
    before, after = figures(run.table, cell), figures(table, cell)
    broken = after[(after["status"] == "failed") & (before["status"] == "ok")]
    assert set(broken.index) == failed
    assert set(broken["reason"]) == {"fold fold1: craft fgsm: broken"}
    going_on = before.index[(before["status"] == "ok") & ~before.index.isin(failed)]
    pd.testing.assert_frame_equal(after.loc[going_on], before.loc[going_on])


def test_a_missing_artefact_fails_what_rests_on_it_and_is_not_left_out(run: Run, tmp_path: Path) -> None:
    cell = run.cell("tiny", "other")
    store = Store(tmp_path / "store")
    shutil.copytree(run.store.root, store.root)
    shutil.rmtree(store.folder(cell.folds[0].predicted))
    table = Scorer(run.plan, store, {}, run.speech).score().table
    found = figures(table, cell)
    assert set(found.loc[["uar", "accuracy"], "status"]) == {"failed"}
    assert set(found.loc[["uar", "accuracy"], "reason"]) == {"fold fold1: its artefact is not in the store"}
    assert found.loc["snr", "status"] == "ok"


def test_a_clip_on_which_a_measure_has_no_meaning_counts_neither_way(run: Run, tmp_path: Path) -> None:
    cell = run.cell("tiny", "tiny")
    store = Store(tmp_path / "store")
    shutil.copytree(run.store.root, store.root)
    path = store.get(cell.folds[0].measured["snr"]).path("values.json")
    values = json.loads(path.read_text())
    nothing = {"value": None, "reason": "nothing was perturbed", "counts": False}
    path.write_text(json.dumps([nothing, *values[1:]]))
    found = figures(Scorer(run.plan, store, {}, run.speech).score().table, cell).loc["snr"]
    others = [one["value"] for one in values[1:]]
    assert found["value"] == pytest.approx(np.mean(others))
    assert (found["status"], found["n"], found["n_failed"], found["reason"]) == ("ok", len(others), 0, "")
    path.write_text(json.dumps([nothing] * len(values)))
    found = figures(Scorer(run.plan, store, {}, run.speech).score().table, cell).loc["snr"]
    assert (found["status"], found["reason"]) == ("not-applicable", "nothing was perturbed")


def worst(run: Run, store: Store, plan: Plan | None = None) -> pd.DataFrame:
    """The figures of the worst of all attacks on the sound, on the victim ``tiny``."""
    plan = plan or run.plan
    suite = plan.suite.model_copy(update={"worst": [WorstCase()]})
    table = Scorer(replace(plan, suite=suite), store, {}, run.speech).score().table
    return table[(table["attack"] == "worst-case") & (table["model"] == "tiny")].set_index("metric")


def test_clips_that_could_not_be_measured_are_told_of_the_worst_case_too(run: Run) -> None:
    found, single = worst(run, run.store), figures(run.table, run.cell("tiny", "tiny"))
    for title in ("length-long", "length-none"):
        for key in ("n_failed", "status"):
            assert found.loc[title, key] == single.loc[title, key]
    assert (
        found.loc["length-long", "reason"]
        == f"worst of 3 and of no attack, clip by clip; {single.loc['length-long', 'reason']}"
    )
    assert found.loc["length-none", "reason"] == single.loc["length-none", "reason"]
    assert found.loc["length-double", ["n_failed", "reason"]].tolist() == [
        0,
        "worst of 3 and of no attack, clip by clip",
    ]
    assert found.loc["length-long", "value"] == pytest.approx(single.loc["length-long", "value"])


def test_what_was_not_measured_is_that_of_each_clips_worst_attack(run: Run, tmp_path: Path) -> None:
    cells = [*(run.cell("tiny", source) for source in ("tiny", "other", "guarded")), run.clean("tiny")]
    margins = np.stack([rows(run.examples, cell)["margin"].to_numpy() for cell in cells])
    chosen = margins.argmin(axis=0)
    untouched = chosen == 3
    assert {0, 3} < {*chosen}, "some clips are at their worst under the first attack, some without any"
    store = Store(tmp_path / "store")
    shutil.copytree(run.store.root, store.root)
    path = store.get(cells[0].folds[0].measured["snr"]).path("values.json")
    broken = {"value": None, "reason": "broken"}
    path.write_text(json.dumps([broken] * len(chosen)))
    found = worst(run, store).loc["snr"]
    # An untouched clip has no SNR, which is no failure.
    assert (found["n_failed"], found["n"]) == ((chosen == 0).sum(), ((chosen != 0) & ~untouched).sum())
    assert found["reason"].endswith(f"; {(chosen == 0).sum()} clips failed, most often: broken")
    path.write_text(json.dumps([broken | {"counts": False}] * len(chosen)))
    found = worst(run, store).loc["snr"]
    assert (found["n_failed"], found["n"]) == (0, ((chosen != 0) & ~untouched).sum())


def test_without_a_transcriber_word_error_rates_do_not_apply(run: Run) -> None:
    speech = Speech(None, "none", "the suite asks for no transcriber")
    table = Scorer(run.plan, run.store, {}, speech).score().table
    found = table[table["metric"].isin(["wer", "wer-change"]) & (table["delivery"] == "audio")]
    assert set(found["status"]) == {"not-applicable"}
    assert {"the suite asks for no transcriber", "clean row"} >= set(found["reason"])


def test_the_anchors_are_told_from_the_labels(run: Run) -> None:
    prepared = load_prepared(run.store.get(run.plan.cells[0].folds[0].prepared))
    fold, classes = prepared.folds["fold1"], len(prepared.classes)
    commonest = np.bincount(prepared.targets[list(fold.train)]).argmax()
    anchored = run.table[run.table["model"].isin(CHANCE_BASELINES)].set_index(["model", "metric"])
    assert anchored.loc[("random", "uar"), "value"] == pytest.approx(1 / classes)
    assert anchored.loc[("majority", "uar"), "value"] == pytest.approx(1 / classes)
    assert anchored.loc[("random", "accuracy"), "value"] == pytest.approx(1 / classes)
    share = (prepared.targets[list(fold.test)] == commonest).mean()
    assert anchored.loc[("majority", "accuracy"), "value"] == pytest.approx(share)
    low, high = anchored.loc[("random", "uar"), ["ci_low", "ci_high"]]
    assert low < 1 / classes < high
    assert not run.scored.ranks["model"].isin(CHANCE_BASELINES).any()
    assert run.scored.pooled.empty


def test_figures_over_seeds_are_their_mean_and_tell_why_there_is_none(tmp_path: Path) -> None:
    changes = {"seeds": [0, 1], "models": ["tiny"], "defenses": ["none"], "metrics": ["uar", "snr", "wer"]}
    suite = Suite.model_validate({**SUITE, **changes, "attacks": SUITE["attacks"][:1]})  # type: ignore[index]
    store, speech = Store(tmp_path), Speech(None, "none", "the suite asks for no transcriber")
    preparation = prepare_job(suite, 0, None)
    assert execute(preparation, store.root, [], "cpu").status == "ok"
    corpus = Corpus(dict.fromkeys((0, 1), preparation.key), ("fold1",), "en")
    plan = make_plan(suite, corpus, speech, {}, "cpu")
    assert {execute(job, store.root, [], "cpu").status for job in plan.jobs.values()} == {"ok"}
    scored = Scorer(plan, store, {}, speech).score()
    made = Results(scored.table, scored.examples, {"notes": [], "failures": []}, scored.ranks, scored.pooled)
    assert len(made.pooled) == len(made.table) / 2
    keys = ["model", "attack", "metric"]
    alone = made.table.groupby(keys, sort=False)
    pooled = made.pooled.set_index(keys)
    np.testing.assert_allclose(pooled["value"], alone["value"].mean().loc[pooled.index])
    has = pooled["status"] == "ok"
    np.testing.assert_allclose(pooled.loc[has, "spread"], alone["value"].std().loc[pooled.index[has]], atol=1e-12)
    assert set(pooled["seeds"]) == {2}
    assert (pooled.loc[has, "ci_low"] <= pooled.loc[has, "ci_high"]).all()
    assert set(pooled.loc[~has, "reason"]) >= {"the suite asks for no transcriber", "clean row"}
    assert pooled.loc[("random", "none", "uar"), "value"] == pytest.approx(1 / 6, abs=0.1)
    assert set(made.ranks["seeds"]) == {2}
