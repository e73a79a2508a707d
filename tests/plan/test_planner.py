"""The planner turns a suite into cells and jobs, without gaps or duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from planning import (
    FGSM,
    IN_FEATURES,
    NOISE,
    VANILLA,
    keys_of,
    places,
    plan,
    stages,
    suite,
)
from pydantic import field_validator

from advser.attacks import gradient_sign
from advser.errors import InputError
from advser.metrics.transcribers.sphinx import PocketSphinx
from advser.plan.cells import Corpus, Speech
from advser.plan.jobs import prepare_job
from advser.plan.planner import NothingSelectedError, make_plan
from advser.plan.worst_case import columns_of, members
from advser.plugins.registries import ATTACKS
from advser.stages.fingerprints import fingerprints
from advser.suite.schema import WorstCase


def test_every_victim_is_attacked_by_every_attack_and_no_job_is_planned_twice() -> None:
    attacks = [
        {**FGSM, **IN_FEATURES, "params": {"epsilon": [0.02, 0.06]}, "labels": ["true", "predicted"]},
        {**NOISE},
    ]
    planned = plan(models=["tiny", "cnn4"], defenses=["none", VANILLA], attacks=attacks)
    assert len(planned.cells) == 4 * (1 + 4 + 1)
    assert all(len(cell.folds) == 3 for cell in planned.cells)
    # Per fold: clean and noise are crafted once for all; FGSM once a victim, ε and kind of labels.
    assert stages(planned) == {
        "train": 3 * 4,
        "craft": 3 * (1 + 1 + 4 * 4),
        "predict": 3 * 4 * (1 + 4 + 1),
        # The audit probes each victim on its first fold.
        "probe": 4,
        # SNR has no meaning on the clean cell.
        "measure": 3 * 1,
    }
    assert len(keys_of(planned)) == len(planned.cells)


def test_jobs_come_after_their_inputs() -> None:
    attacks = [{**FGSM, "domain": ["waveform"], "transfer": True}]
    planned = plan(models=["tiny", "cnn4"], attacks=attacks, seeds=[0, 1], metrics=["uar", "snr", "pesq"])
    written = {prepare_job(suite(), seed, None).key for seed in (0, 1)}
    for key, job in planned.jobs.items():
        assert key == job.key
        assert set(job.inputs.values()) <= written, f"{job.title} reads an artefact that no earlier job writes"
        written.add(key)
    named = {key for cell in planned.cells for fold in cell.folds for key in (fold.crafted, fold.predicted)}
    assert named <= set(planned.jobs)


def test_blind_sound_and_clean_predictions_are_shared() -> None:
    planned = plan(models=["tiny", "cnn4"], attacks=[NOISE, {**FGSM, "domain": ["waveform"]}])
    by_attack: dict[str, set[str]] = {}
    clean: dict[str, set[str]] = {}
    for cell in planned.cells:
        by_attack.setdefault(cell.columns["attack"], set()).add(cell.folds[0].crafted)
        clean.setdefault(cell.columns["model"], set()).add(cell.folds[0].clean_predicted)
        if cell.columns["attack"] == "none":
            assert cell.folds[0].predicted == cell.folds[0].clean_predicted
    assert {attack: len(keys) for attack, keys in by_attack.items()} == {"none": 1, "noise": 1, "fgsm": 2}
    assert all(len(keys) == 1 for keys in clean.values())


def test_clean_sound_is_crafted_measured_and_transcribed_once_for_all_models_and_seeds() -> None:
    declared = suite(models=["tiny", "cnn4"], attacks=[NOISE], seeds=[0, 1], metrics=["uar", "pesq", "wer"])
    corpus = Corpus({seed: prepare_job(declared, seed, None).key for seed in declared.seeds}, ("fold1", "fold2"), "en")
    jobs = make_plan(declared, corpus, Speech(PocketSphinx(), "pocketsphinx", "", "model"), {}, "cpu").jobs
    clean = {key for key, job in jobs.items() if job.stage == "craft" and job.spec.attack.name == "none"}
    assert len(clean) == len(corpus.folds)
    for stage, of_noise in {"transcribe": 4, "measure": 4}.items():
        read = [job.inputs["crafted"] for job in jobs.values() if job.stage == stage]
        assert sorted(key for key in read if key in clean) == sorted(clean)
        assert len(read) == len(clean) + of_noise


def test_a_further_attack_adds_only_its_own_cells() -> None:
    base = plan(models=["tiny", "cnn4"], attacks=[NOISE], metrics=["uar", "pesq"])
    more = plan(models=["tiny", "cnn4"], attacks=[NOISE, {**FGSM, "domain": ["waveform"]}], metrics=["uar", "pesq"])
    new = Counter(job.stage for key, job in more.jobs.items() if key not in base.jobs)
    assert set(base.jobs) < set(more.jobs)
    assert new == {"craft": 3 * 2, "predict": 3 * 2, "measure": 3 * 2}


@pytest.mark.parametrize("count", [1, 7])
def test_each_fingerprint_is_computed_once_for_any_number_of_jobs(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[tuple[str, ...]] = Counter()

    def counting(stage: str, uses: Sequence[str]) -> dict[str, str]:
        calls[stage, *uses] += 1
        return fingerprints(stage, uses)

    monkeypatch.setattr("advser.plan.jobs.fingerprints", counting)
    plan(attacks=[{**NOISE, "params": {"epsilon": [0.001 * (1 + number) for number in range(count)]}}])
    calls.pop(("prepare", "corpora:demo"))
    assert len(calls) > 3
    assert set(calls.values()) == {1}


def test_transfer_goes_from_every_source_to_every_victim() -> None:
    attacks = [{**FGSM, "domain": ["waveform"], "transfer": True}, {**NOISE, "transfer": True}]
    planned = plan(models=["tiny", "cnn4"], defenses=["none", VANILLA], attacks=attacks)
    victims = {(model, defense) for model in ("tiny", "cnn4") for defense in ("none", "vanilla")}
    rows = [
        (cell.columns["model"], cell.columns["defense"], cell.columns["source_model"], cell.columns["source_defense"])
        for cell in planned.cells
        if cell.columns["attack"] == "fgsm"
    ]
    assert sorted(rows) == sorted((*victim, *source) for victim in victims for source in victims)
    for cell in planned.cells:
        own = all(cell.columns[key] == cell.columns[f"source_{key}"] for key in ("model", "defense"))
        if cell.columns["attack"] == "fgsm":
            assert cell.columns["access"] == ("white-box" if own else "transfer")
            assert (cell.folds[0].source_predicted is None) == own
    assert {cell.columns["source_model"] for cell in planned.cells if cell.columns["attack"] == "noise"} == {""}
    assert stages(planned)["craft"] == 3 * (1 + 1 + 4), "each source crafts once for all victims"


def test_features_are_transferred_between_equal_front_ends_only() -> None:
    planned = plan(
        models=["tiny", "cnn4"], defenses=["none", VANILLA], attacks=[{**FGSM, **IN_FEATURES, "transfer": True}]
    )
    rows = places(planned, "model", "source_model")
    assert len(rows) == 2 * 4
    assert all(victim == source for victim, source in rows)


def test_a_model_without_a_spectrogram_is_a_victim_of_spectrogram_attacks_but_no_source() -> None:
    both = {"domain": ["spectrogram"], "delivery": ["features", "audio"], "transfer": True}
    planned = plan(models=["tiny", "raw"], attacks=[FGSM | both, NOISE | both])
    assert sorted(places(planned, "attack", "delivery", "model", "source_model")) == [
        ("fgsm", "audio", "raw", "tiny"),
        ("fgsm", "audio", "tiny", "tiny"),
        ("fgsm", "features", "tiny", "tiny"),
        ("noise", "audio", "tiny", ""),
        ("noise", "features", "tiny", ""),
    ]
    sources = [job.title for job in planned.jobs.values() if job.stage == "craft" and " on raw" in job.title]
    assert sources == []


@pytest.mark.parametrize(("steps", "active"), [(60, "the last 10 of 60"), (40, "none of 40"), (100, "")])
def test_a_defense_active_in_few_steps_is_reported(steps: int, active: str) -> None:
    late = {"name": "vanilla", "params": {"attack": {"name": "fgsm", "params": {"epsilon": 0.06}}, "warmup": 50}}
    notes = plan(training={"iterations": steps}, defenses=["none", late]).notes
    assert [*notes] == ([f"Defense 'vanilla' acts in {active} training steps (warmup 50)."] if active else [])


CHAIN_RULE = {"name": "chain-rule", "params": {"steps": 1}}


def test_an_attack_that_needs_a_spectrogram_is_crafted_on_models_that_have_one_alone() -> None:
    surrogates = [["tiny"], ["raw"], ["tiny", "cnn4"]]
    planned = plan(models=["tiny", "cnn4", "raw"], attacks=[{**CHAIN_RULE, "transfer": True, "surrogates": surrogates}])
    rows = sorted(places(planned, "model", "source_model"))
    assert rows == [(model, source) for model in ("cnn4", "raw", "tiny") for source in ("cnn4", "tiny")]


@pytest.mark.parametrize(
    ("attack", "needs"),
    [
        (CHAIN_RULE, r"waveform domain: .*\(models: raw\), expected a model with a spectrogram and gradients"),
        ({**FGSM, **IN_FEATURES}, "spectrogram domain: .*with a spectrogram and gradients"),
        ({**NOISE, **IN_FEATURES}, "spectrogram domain: .*with a spectrogram$"),
    ],
    ids=["needs one", "perturbs one", "blind"],
)
def test_an_attack_without_a_model_for_it_is_left_out_and_reported_or_refused_if_alone(
    attack: dict[str, Any], needs: str
) -> None:
    with pytest.raises(InputError, match=f"^attack '{attack['name']}' in the {needs}") as caught:
        plan(models=["raw"], attacks=[attack])
    assert not isinstance(caught.value, NothingSelectedError)
    assert "\n" not in str(caught.value)
    noted = plan(models=["raw"], attacks=[NOISE, attack])
    assert noted.notes == (f"Left out: {caught.value}.",)

    assert set(places(noted, "attack", "domain")) == {("noise", "waveform")}
    # The attack has a model here, whether or not that model is selected.
    assert len(plan(suite(models=["tiny", "raw"], attacks=[NOISE, attack]), {"model": "raw"}).cells) == 2


def test_a_source_that_is_named_twice_is_one_source() -> None:
    surrogates = [["tiny"], ["cnn4"], ["tiny"], ["tiny", "cnn4"]]
    planned = plan(models=["tiny", "cnn4", "raw"], attacks=[{**FGSM, "transfer": True, "surrogates": surrogates}])
    rows = Counter(places(planned, "model", "source_model"))
    singles = {(victim, source): 1 for victim in ("tiny", "cnn4", "raw") for source in ("tiny", "cnn4", "raw")}
    assert rows == singles | {("raw", "tiny + cnn4"): 1}
    alone = plan(models=["tiny", "cnn4"], attacks=[{**FGSM, "surrogates": [["tiny"]]}])
    assert places(alone, "model", "source_model") == [("tiny", "tiny"), ("cnn4", "cnn4"), ("cnn4", "tiny")]


def test_the_defenses_of_an_ensemble_are_listed_one_by_one() -> None:
    groups = [["tiny", "cnn4/vanilla", "vgg16"], ["tiny", "cnn4", "vgg16/vanilla"]]
    models = ["tiny", "cnn4", "vgg16", "raw"]
    in_sound = {"name": "vanilla", "params": {"attack": FGSM, "domain": "waveform"}}
    planned = plan(
        models=models, defenses=["none", in_sound], attacks=[{**FGSM, "surrogates": groups}], folds=["fold1"]
    )
    rows = {defense for model, defense in places(planned, "source_model", "source_defense") if "+" in model}
    assert rows == {"none + vanilla + none", "none + none + vanilla"}
    assert len(keys_of(planned)) == len(planned.cells)


def test_a_budget_relative_to_the_clip_has_its_own_unit_and_no_place_in_spectrograms() -> None:
    attack = {"name": "pgd", "params": {"norm": "relative-l2", "epsilon": [0.01, 0.03]}}
    planned = plan(attacks=[attack, {**attack, "label": "other"}, FGSM])
    rows = places(planned, "attack", "norm", "epsilon", "epsilon_unit")
    assert ("pgd", "relative-l2", 0.01, "clip") in rows
    declared = WorstCase(name="worst", norm="relative-l2", epsilon=0.01)
    (together,) = members(planned.cells, declared)
    assert [cell.columns["attack"] for cell in together] == ["pgd", "other", "none"]
    assert columns_of(together, declared)["epsilon_unit"] == "clip"
    message = "attack 'pgd': norm: got 'relative-l2', expected linf or l2 in the domain spectrogram"
    with pytest.raises(InputError, match=message):
        plan(attacks=[{**attack, **IN_FEATURES}])


def test_every_budget_has_its_noise() -> None:
    relative = {"name": "pgd", "params": {"norm": "relative-l2", "epsilon": 0.01}}
    attacks = [{**FGSM, "params": {"epsilon": [0.001, 0.002]}}, {**FGSM, **IN_FEATURES}, relative, NOISE]
    planned = plan(attacks=attacks, noise=True)
    noise = [cell.columns for cell in planned.cells if cell.columns["attack"] == "noise"]
    assert {(one["domain"], one["delivery"], one["norm"], one["epsilon"]) for one in noise} == {
        ("waveform", "audio", "linf", 0.001),
        ("waveform", "audio", "linf", 0.002),
        ("waveform", "audio", "relative-l2", 0.01),
        ("spectrogram", "features", "linf", 0.06),
    }
    assert len(noise) == 4 * len({(cell.columns["model"], cell.columns["defense"]) for cell in planned.cells})
    assert not [cell for cell in plan(attacks=[FGSM]).cells if cell.columns["attack"] == "noise"]


def test_a_row_has_the_budget_that_the_harness_holds_its_attack_to() -> None:
    (row,) = [cell.columns for cell in plan(attacks=["silent"], noise=True).cells if cell.columns["attack"] == "silent"]
    assert (row["norm"], row["epsilon"], row["epsilon_unit"]) == ("", None, "")


def test_the_attacks_of_an_ensemble_decide_its_key() -> None:
    planned = plan(attacks=[{"name": "ensemble", "params": {"epsilon": [0.001, 0.002]}}])
    crafted = [job for job in planned.jobs.values() if job.stage == "craft" and "ensemble" in job.title]
    assert len(crafted) == 2 * 3
    assert {f"attacks:{name}" for name in ("ensemble", "apgd", "apgd-targeted", "square")} <= set(crafted[0].code)
    assert places(planned, "epsilon", "norm") == [(0.001, "linf"), (0.002, "linf")]


def test_cells_with_equal_columns_are_refused_before_anything_runs() -> None:
    models = [{"name": "tiny", "label": label} for label in ("a", "b", "a + b", "victim")]
    defenses = [{"name": "none", "label": label} for label in ("none", "none + none")]
    with pytest.raises(InputError, match=r"^cells: got '.*' and '.*' on a / none") as caught:
        plan(
            models=models, defenses=defenses, attacks=[{**FGSM, "transfer": True, "surrogates": [["a/none", "b/none"]]}]
        )
    assert "\n" not in str(caught.value)
    for source in ("on a + b / none + none'", "on a / none + b / none'"):
        assert source in str(caught.value)


def test_duplicate_worst_cases_are_refused_before_anything_runs() -> None:
    worst = [{"name": "worst", "epsilon": epsilon} for epsilon in (0.06, 0.1)]
    with pytest.raises(InputError, match=r"^cells: got 'worst case worst' and 'worst case worst' on tiny / none"):
        plan(attacks=[FGSM], worst=worst)
    assert len(plan(attacks=[FGSM], worst=worst[:1]).cells) == 2


def test_training_on_a_spectrogram_needs_a_model_that_has_one() -> None:
    with pytest.raises(
        InputError, match=r"defense 'vanilla': domain: got 'spectrogram', expected 'waveform' with model 'raw'"
    ):
        plan(models=["tiny", "raw"], defenses=[VANILLA])
    in_sound = {"name": "vanilla", "params": {"attack": FGSM, "domain": "waveform"}}
    assert len(plan(models=["raw"], defenses=["none", in_sound]).cells) == 2
    assert len(plan(models=["tiny", {"name": "raw", "defenses": ["none"]}], defenses=["none", VANILLA]).cells) == 3


def test_an_attack_that_declares_neither_a_budget_nor_its_absence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ATTACKS.get("shift"), "unbounded", False)
    with pytest.raises(
        InputError, match=r"attack 'shift': budget: got none, expected 'epsilon: float = budget\(\)', or"
    ):
        plan(attacks=["shift"])


def test_an_attack_that_changes_its_budget_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Growing(gradient_sign.FGSM):
        """FGSM with ten times the budget."""

        @field_validator("epsilon")
        @classmethod
        def larger(cls, epsilon: float) -> float:
            return 10 * epsilon

    monkeypatch.setitem(ATTACKS._decorated, "growing", Growing)
    with pytest.raises(InputError, match=r"attack 'growing': epsilon: got 0.02 for 0.002, expected no change of it"):
        plan(attacks=[{"name": "growing", "params": {"epsilon": 0.002}, "domain": ["waveform"]}])
