"""Scoring of a real run: figures agree with the examples, and a failed job fails the metrics that need it."""

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
from advser.execution.jobs.worker import execute
from advser.metrics.base import Array, ClipMetric, Metric, Need
from advser.metrics.transcribers.base import Transcriber
from advser.plan.cells import Cell, Corpus, Plan, Speech
from advser.plan.jobs import prepare_job
from advser.plan.planner import make_plan
from advser.plugins.parameters import parameter
from advser.plugins.registries import METRICS, TRANSCRIBERS
from advser.results.folder import Results
from advser.results.terms import CHANCE_BASELINES
from advser.scoring.score import Scored, Scorer
from advser.stages.job import Outcome
from advser.stages.judge import LOGITS
from advser.stages.prepare import load_prepared
from advser.store.artefacts import Store
from advser.suite.schema import Suite, WorstCase


class Raises(Metric):
    """A faulty metric, by its statistics or its figure."""

    title: ClassVar[str] = "Raises"
    higher_is_better: ClassVar[bool] = True
    where: str = parameter("statistics", about="where the fault is")

    def statistics(self, examples: pd.DataFrame, classes: int) -> Array:
        if self.where == "statistics":
            raise ValueError("two\nlines")
        if self.where == "exit":
            raise SystemExit(0)
        return np.ones((1 if self.where == "shape" else len(examples), 2))

    def combine(self, sums: Array) -> Array:
        raise ZeroDivisionError("one line")


class Length(ClipMetric):
    """Number of samples times a factor; short clips cannot be measured. It does not declare that it needs sound."""

    title: ClassVar[str] = "Length"
    higher_is_better: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset()
    column: ClassVar[str] = "length"
    factor: float = parameter(1.0, about="factor of the length")
    shortest: int = parameter(0, unit="samples", about="length of the shortest clip that is measured")

    def measure(self, clean: Any, judged: Any, rate: int) -> float:
        if len(judged) < self.shortest:
            raise MeasurementError("too short")
        return len(judged) * self.factor


class Constant(Transcriber):
    """Transcribes every clip as the same word."""

    def unavailable(self, language: str) -> str | None:
        return None

    def transcribe(self, clips: Iterable[Any], language: str, sentences: Sequence[str]) -> Iterator[str]:
        return iter(["what" for _ in clips])


SHORTEST = 30_000
SUITE = {
    "name": "small",
    "noise": False,
    "audit": False,
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
        {"name": "raises", "label": "raises-exit", "params": {"where": "exit"}},
        {"name": "length", "label": "length-long", "params": {"shortest": SHORTEST}},
        {"name": "length", "label": "length-none", "params": {"shortest": 10**9}},
        {"name": "length", "label": "length-double", "params": {"factor": 2.0}},
    ],
    "bootstrap": 20,
}


@dataclass(frozen=True)
class Run:
    """A run with all its artefacts."""

    plan: Plan
    speech: Speech
    store: Store
    table: pd.DataFrame
    examples: pd.DataFrame
    scored: Scored

    def clean(self, model: str) -> Cell:
        return self._only({"model": model, "attack": "none"})

    def cell(self, model: str, source: str, domain: str = "waveform") -> Cell:
        return self._only({"model": model, "source_model": source, "domain": domain})

    def _only(self, keys: dict[str, str]) -> Cell:
        (cell,) = [cell for cell in self.plan.cells if keys.items() <= cell.columns.items()]
        return cell


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    suite = Suite.model_validate(SUITE)
    store = Store(tmp_path_factory.mktemp("store"))
    speech = Speech(Constant(), "constant", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS._decorated, "raises", Raises)
        patch.setitem(METRICS._decorated, "length", Length)
        patch.setitem(TRANSCRIBERS._decorated, "constant", Constant)
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


def test_the_tables_make_a_results_folder(run: Run, tmp_path: Path) -> None:
    Results(run.table, run.examples, {"notes": [], "failures": []}).save(tmp_path)
    loaded = Results.load(tmp_path)
    baselines = loaded.table["model"].isin(CHANCE_BASELINES)
    assert (~baselines).sum() == len(run.plan.cells) * len(run.plan.suite.metrics)
    assert baselines.sum() == len(CHANCE_BASELINES) * 2
    assert {"length-long", "length-double", "snr"} <= set(loaded.examples.columns)


@pytest.mark.parametrize(("victim", "source"), [("tiny", "other"), ("other", "tiny")])
def test_the_transfer_rate_follows_from_the_logits(run: Run, victim: str, source: str) -> None:
    cell = run.cell(victim, source)
    (fold,) = cell.folds
    prepared = load_prepared(run.store.get(fold.prepared))
    label = prepared.targets[list(prepared.folds["fold1"].test)]

    def read(key: str | None) -> Any:
        return load_file(run.store.get(str(key)).path(LOGITS))["logits"].argmax(1).numpy()

    qualifies = (read(fold.source_predicted) != label) & (read(fold.clean_predicted) == label)
    misled = qualifies & (read(fold.predicted) != label)
    row = figures(run.table, cell).loc["transfer-rate"]
    assert 0 < qualifies.sum() < len(label)
    assert (row["n"], row["n_failed"]) == (qualifies.sum(), 0)
    assert row["value"] == pytest.approx(misled.sum() / qualifies.sum())


def test_the_diagonal_of_the_transfer_matrix_is_the_white_box_cell(run: Run) -> None:
    for victim, other in (("tiny", "other"), ("other", "tiny")):
        own, transferred = run.cell(victim, victim), run.cell(victim, other)
        assert (own.columns["access"], transferred.columns["access"]) == ("white-box", "transfer")
        # The transferred examples are those of the source's own white-box cell.
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
    clips = np.arange(len(logits))
    own = logits[clips, examples["label"]]
    others = logits.copy()
    others[clips, examples["label"]] = -np.inf
    np.testing.assert_allclose(examples["margin"], own - others.max(1), atol=1e-5)
    np.testing.assert_allclose(examples["loss"], np.log(np.exp(logits).sum(1)) - own, atol=1e-5)
    assert ((examples["margin"] > 0) == (examples["prediction"] == examples["label"])).all()


@pytest.mark.parametrize(
    ("source", "domain"), [("guarded", "waveform"), ("guarded", "spectrogram"), ("tiny", "waveform")]
)
def test_the_logits_of_a_detector_are_scored(run: Run, source: str, domain: str) -> None:
    cell = run.cell("guarded", source, domain)
    (fold,) = cell.folds
    outputs, clean = (load_file(run.store.get(key).path(LOGITS)) for key in (fold.predicted, fold.clean_predicted))
    examples = rows(run.examples, cell)
    np.testing.assert_array_equal(examples["detection"], outputs["detections"])
    np.testing.assert_array_equal(examples["clean_detection"], clean["detections"])
    assert not outputs["detections"].equal(clean["detections"])
    clips = len(examples)
    scores = np.concatenate([examples["clean_detection"], examples["detection"]])
    by_metric = figures(run.table, cell)
    assert by_metric.loc["detector-auc", "value"] == pytest.approx(roc_auc_score([0] * clips + [1] * clips, scores))
    assert by_metric.loc["detector-eer", "status"] == "ok"
    assert by_metric.loc["detector-auc", ["n", "n_failed"]].tolist() == [clips, 0]


def test_detection_is_not_applicable_without_a_detector_or_an_attack(run: Run) -> None:
    table = run.table[run.table["metric"].isin(["detector-auc", "detector-eer"])]
    states = table.set_index(["model", "attack"])[["status", "reason"]]
    assert set(map(tuple, states.xs("none", level="attack").to_numpy())) == {("not-applicable", "clean row")}
    for victim in ("tiny", "other"):
        reasons = set(map(tuple, states.loc[[(victim, "fgsm")]].to_numpy()))
        assert reasons == {("not-applicable", "the victim has no detector")}
        assert run.examples.loc[run.examples["model"] == victim, ["detection", "clean_detection"]].isna().all(axis=None)
    assert set(states.loc[("guarded", "fgsm"), "status"]) == {"ok"}


def test_a_faulty_metric_fails_its_own_rows_alone(run: Run) -> None:
    for cell in run.plan.cells:
        by_metric = figures(run.table, cell)
        assert by_metric.loc["raises-statistics", "reason"] == "ValueError: two lines"
        assert by_metric.loc["raises-exit", "reason"] == "SystemExit: 0"
        assert by_metric.loc["raises-figure", "reason"] == "ZeroDivisionError: one line"
        assert by_metric.loc["raises-shape", "reason"].startswith("ContractError: statistics returned the shape (1, 2)")
        assert set(by_metric[by_metric["status"] == "failed"].index) - {"length-none"} == {
            "raises-statistics",
            "raises-figure",
            "raises-shape",
            "raises-exit",
        }


def test_two_entries_of_one_clip_metric_have_separate_columns(run: Run) -> None:
    cell = run.cell("tiny", "tiny")
    (fold,) = cell.folds
    prepared = load_prepared(run.store.get(fold.prepared))
    lengths = prepared.clips.lengths[list(prepared.folds["fold1"].test)]
    measured = lengths >= SHORTEST
    assert 0 < measured.sum() < len(lengths)
    examples, by_metric = rows(run.examples, cell), figures(run.table, cell)
    np.testing.assert_array_equal(examples["length-double"], 2.0 * lengths)
    np.testing.assert_array_equal(examples["length-long"], np.where(measured, lengths, np.nan))
    assert by_metric.loc["length-double", "value"] == pytest.approx(2 * lengths.mean())
    assert by_metric.loc["length-long", "value"] == pytest.approx(lengths[measured].mean())
    failed = int((~measured).sum())
    assert by_metric.loc["length-long", ["n", "n_failed"]].tolist() == [measured.sum(), failed]
    assert by_metric.loc["length-long", "reason"] == f"{failed} clips failed, most often: too short"
    assert by_metric.loc["length-none", "status"] == "failed"
    assert by_metric.loc["length-none", "reason"] == f"{len(lengths)} clips failed, most often: too short"


def test_a_clip_metric_needs_sound_whatever_it_declares(run: Run) -> None:
    by_metric = figures(run.table, run.cell("tiny", "tiny", "spectrogram"))
    for title in ("snr", "wer", "length-long", "length-double"):
        state = by_metric.loc[title, ["status", "reason"]].tolist()
        assert state == ["not-applicable", "features are no sound"]
    assert by_metric.loc["uar", "status"] == "ok"


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
def test_a_failed_job_fails_the_metrics_that_need_it(
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
    unaffected = before.index[(before["status"] == "ok") & ~before.index.isin(failed)]
    pd.testing.assert_frame_equal(after.loc[unaffected], before.loc[unaffected])


def test_a_missing_artefact_fails_the_metrics_that_need_it(run: Run, tmp_path: Path) -> None:
    cell = run.cell("tiny", "other")
    store = Store(tmp_path / "store")
    shutil.copytree(run.store.root, store.root)
    shutil.rmtree(store.folder(cell.folds[0].predicted))
    table = Scorer(run.plan, store, {}, run.speech).score().table
    by_metric = figures(table, cell)
    assert set(by_metric.loc[["uar", "accuracy"], "status"]) == {"failed"}
    assert set(by_metric.loc[["uar", "accuracy"], "reason"]) == {"fold fold1: its artefact is not in the store"}
    assert by_metric.loc["snr", "status"] == "ok"


def test_a_clip_that_a_metric_does_not_apply_to_counts_neither_as_measured_nor_as_failed(
    run: Run, tmp_path: Path
) -> None:
    cell = run.cell("tiny", "tiny")
    store = Store(tmp_path / "store")
    shutil.copytree(run.store.root, store.root)
    path = store.get(cell.folds[0].measured["snr"]).path("values.json")
    values = json.loads(path.read_text())
    nothing = {"value": None, "reason": "nothing was perturbed", "counts": False}
    path.write_text(json.dumps([nothing, *values[1:]]))
    row = figures(Scorer(run.plan, store, {}, run.speech).score().table, cell).loc["snr"]
    others = [clip["value"] for clip in values[1:]]
    assert row["value"] == pytest.approx(np.mean(others))
    assert (row["status"], row["n"], row["n_failed"], row["reason"]) == ("ok", len(others), 0, "")
    path.write_text(json.dumps([nothing] * len(values)))
    row = figures(Scorer(run.plan, store, {}, run.speech).score().table, cell).loc["snr"]
    assert (row["status"], row["reason"]) == ("not-applicable", "nothing was perturbed")


def worst(run: Run, store: Store, plan: Plan | None = None) -> pd.DataFrame:
    """The figures of the worst of all waveform attacks on the victim ``tiny``."""
    plan = plan or run.plan
    suite = plan.suite.model_copy(update={"worst": [WorstCase()]})
    table = Scorer(replace(plan, suite=suite), store, {}, run.speech).score().table
    return table[(table["attack"] == "worst-case") & (table["model"] == "tiny")].set_index("metric")


def test_failed_clips_are_reported_for_the_worst_case_too(run: Run) -> None:
    worst_case, single = worst(run, run.store), figures(run.table, run.cell("tiny", "tiny"))
    for title in ("length-long", "length-none"):
        for key in ("n_failed", "status"):
            assert worst_case.loc[title, key] == single.loc[title, key]
    several = "worst of 3 and of no attack, clip by clip"
    assert worst_case.loc["length-long", "reason"] == f"{several}; {single.loc['length-long', 'reason']}"
    assert worst_case.loc["length-none", "reason"] == single.loc["length-none", "reason"]
    assert worst_case.loc["length-double", ["n_failed", "reason"]].tolist() == [0, several]
    assert worst_case.loc["length-long", "value"] == pytest.approx(single.loc["length-long", "value"])


def test_failed_clips_of_the_worst_case_are_those_of_each_clips_worst_attack(run: Run, tmp_path: Path) -> None:
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
    row = worst(run, store).loc["snr"]
    # An untouched clip has no SNR, which is no failure.
    assert (row["n_failed"], row["n"]) == ((chosen == 0).sum(), ((chosen != 0) & ~untouched).sum())
    assert row["reason"].endswith(f"; {(chosen == 0).sum()} clips failed, most often: broken")
    path.write_text(json.dumps([broken | {"counts": False}] * len(chosen)))
    row = worst(run, store).loc["snr"]
    assert (row["n_failed"], row["n"]) == (0, ((chosen != 0) & ~untouched).sum())


def test_without_a_transcriber_word_error_rates_do_not_apply(run: Run) -> None:
    speech = Speech(None, "none", "the suite asks for no transcriber")
    table = Scorer(run.plan, run.store, {}, speech).score().table
    error_rates = table[table["metric"].isin(["wer", "wer-change"]) & (table["delivery"] == "audio")]
    assert set(error_rates["status"]) == {"not-applicable"}
    assert {"the suite asks for no transcriber", "clean row"} >= set(error_rates["reason"])


def test_the_chance_baselines_follow_from_the_labels(run: Run) -> None:
    prepared = load_prepared(run.store.get(run.plan.cells[0].folds[0].prepared))
    fold, classes = prepared.folds["fold1"], len(prepared.classes)
    most_frequent = np.bincount(prepared.targets[list(fold.train)]).argmax()
    baselines = run.table[run.table["model"].isin(CHANCE_BASELINES)].set_index(["model", "metric"])
    assert baselines.loc[("random", "uar"), "value"] == pytest.approx(1 / classes)
    assert baselines.loc[("majority", "uar"), "value"] == pytest.approx(1 / classes)
    assert baselines.loc[("random", "accuracy"), "value"] == pytest.approx(1 / classes)
    share = (prepared.targets[list(fold.test)] == most_frequent).mean()
    assert baselines.loc[("majority", "accuracy"), "value"] == pytest.approx(share)
    low, high = baselines.loc[("random", "uar"), ["ci_low", "ci_high"]]
    assert low < 1 / classes < high
    assert not run.scored.ranks["model"].isin(CHANCE_BASELINES).any()
    assert run.scored.pooled.empty


def test_figures_over_seeds_are_means_or_have_the_reason_of_a_missing_seed(tmp_path: Path) -> None:
    changes = {"seeds": [0, 1], "models": ["tiny"], "defenses": ["none"], "metrics": ["uar", "snr", "wer"]}
    suite = Suite.model_validate({**SUITE, **changes, "attacks": SUITE["attacks"][:1]})  # type: ignore[index]
    store, speech = Store(tmp_path), Speech(None, "none", "the suite asks for no transcriber")
    preparation = prepare_job(suite, 0, None)
    assert execute(preparation, store.root, [], "cpu").status == "ok"
    corpus = Corpus(dict.fromkeys((0, 1), preparation.key), ("fold1",), "en")
    plan = make_plan(suite, corpus, speech, {}, "cpu")
    assert {execute(job, store.root, [], "cpu").status for job in plan.jobs.values()} == {"ok"}
    scored = Scorer(plan, store, {}, speech).score()
    results = Results(scored.table, scored.examples, {"notes": [], "failures": []}, scored.ranks, scored.pooled)
    assert len(results.pooled) == len(results.table) / 2
    keys = ["model", "attack", "metric"]
    by_seed = results.table.groupby(keys, sort=False)
    pooled = results.pooled.set_index(keys)
    np.testing.assert_allclose(pooled["value"], by_seed["value"].mean().loc[pooled.index])
    ok = pooled["status"] == "ok"
    np.testing.assert_allclose(pooled.loc[ok, "spread"], by_seed["value"].std().loc[pooled.index[ok]], atol=1e-12)
    assert set(pooled["seeds"]) == {2}
    assert (pooled.loc[ok, "ci_low"] <= pooled.loc[ok, "ci_high"]).all()
    assert set(pooled.loc[~ok, "reason"]) >= {"the suite asks for no transcriber", "clean row"}
    assert pooled.loc[("random", "none", "uar"), "value"] == pytest.approx(1 / 6, abs=0.1)
    assert set(results.ranks["seeds"]) == {2}
