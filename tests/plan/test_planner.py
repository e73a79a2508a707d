"""The planner turns a suite into cells and jobs, without gaps or duplicates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from torch import Tensor
from toys import Waveform

from advser.attacks.base import Attack
from advser.attacks.controls import Noise
from advser.attacks.reference import AttackReference
from advser.errors import InputError
from advser.metrics.base import ClipMetric
from advser.metrics.transcribers.sphinx import PocketSphinx
from advser.plan.added_plugins import with_added_plugins
from advser.plan.cells import Corpus, Plan, Speech
from advser.plan.jobs import prepare_job
from advser.plan.planner import NothingSelectedError, make_plan
from advser.plan.worst_case import columns_of, members
from advser.plugins.fingerprint import code_fingerprint
from advser.plugins.parameters import parameter
from advser.plugins.registries import ATTACKS, DEFENSES, METRICS, MODELS
from advser.stages.fingerprints import fingerprints
from advser.stages.specs import CraftSpec
from advser.suite.schema import Suite, WorstCase

FGSM = {"name": "fgsm", "params": {"epsilon": 0.06}}
NOISE = {"name": "noise", "params": {"epsilon": 0.001}}
VANILLA = {"name": "vanilla", "params": {"attack": FGSM}}
IN_FEATURES = {"domain": ["spectrogram"], "delivery": ["features"]}


class Decisions(Noise):
    """An attack that reads decisions only."""

    access: ClassVar[Any] = "decisions"


class Shift(Attack):
    """An attack without a budget."""

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
        return -x


class Silent(Shift):
    """An attack with a parameter that it does not declare as its budget."""

    eps: float = parameter(0.0005, about="size of the change")


class Nested(Attack):
    """An attack that runs an inner attack."""

    inner: AttackReference = parameter(about="inner attack")

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
        return self.inner.build().perturb(target, x, labels, generator)


class NotInstalled(Waveform):
    """A model that needs a missing package and fetches an encoder."""

    packages: ClassVar[tuple[str, ...]] = ("not-there",)

    @classmethod
    def fingerprint(cls, params: Mapping[str, Any]) -> str:
        raise AssertionError("fetched an encoder")


class Overwrites(ClipMetric):
    """A metric whose column already exists in the examples table."""

    title: ClassVar[str] = "Overwrites"
    higher_is_better: ClassVar[bool] = True
    column: ClassVar[str] = "loss"

    def measure(self, clean: Any, judged: Any, rate: int) -> float:
        return 0.0


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """Register the toys for one module only: other tests run over every registered plugin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS._decorated, "raw", Waveform)
        for name, attack in {"decisions": Decisions, "shift": Shift, "nested": Nested, "silent": Silent}.items():
            patch.setitem(ATTACKS._decorated, name, attack)
        patch.setitem(METRICS._decorated, "overwrites", Overwrites)
        yield


def suite(**changes: Any) -> Suite:
    data = {
        "name": "small",
        "corpus": "demo",
        "protocol": "3pair",
        "models": ["tiny"],
        "defenses": ["none"],
        "metrics": ["uar", "snr"],
        "transcriber": "none",
        "noise": False,
        "training": {"iterations": 5, "precision": "fp32"},
    }
    return Suite.model_validate(data | changes)


def plan(declared: Suite | None = None, only: Mapping[str, str] | None = None, /, **changes: Any) -> Plan:
    """Return the plan of a small suite on a corpus of three folds."""
    declared = declared or suite(**changes)
    keys = {seed: prepare_job(declared, seed, None).key for seed in declared.seeds}
    corpus = Corpus(keys, ("fold1", "fold2", "fold3"), "en")
    return make_plan(declared, corpus, Speech(None, "none", "not requested"), only or {}, "cpu")


def stages(planned: Plan) -> Counter[str]:
    return Counter(job.stage for job in planned.jobs.values())


def keys_of(planned: Plan, *keys: str) -> set[str]:
    """Return the key columns of all cells, or only ``keys``."""
    return {
        json.dumps({key: value for key, value in cell.columns.items() if not keys or key in keys})
        for cell in planned.cells
    }


def places(planned: Plan, *keys: str) -> list[tuple[Any, ...]]:
    """Return the columns ``keys`` of the attacked cells."""
    return [tuple(cell.columns[key] for key in keys) for cell in planned.cells if cell.columns["attack"] != "none"]


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
    planned = plan(models=models, defenses=["none", in_sound], attacks=[{**FGSM, "surrogates": groups}], folds=["fold1"])
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


ATTACKED = {
    "models": ["tiny", "cnn4"],
    "defenses": ["none", VANILLA],
    "attacks": [NOISE, {**FGSM, "domain": ["waveform"], "transfer": True}],
    "seeds": [0, 1],
    "folds": ["fold1", "fold2"],
}


@pytest.mark.parametrize(
    ("only", "cells"),
    [
        ({}, 2 * 4 * (1 + 1 + 4)),
        ({"seed": "1"}, 4 * 6),
        ({"model": "tiny"}, 2 * 2 * 6),
        ({"defense": "van*"}, 2 * 2 * 6),
        ({"attack": "noise"}, 2 * 4 * 2),
        ({"attack": "none"}, 2 * 4),
        ({"access": "transfer"}, 2 * 4 * (1 + 3)),
        ({"source_model": "tiny", "access": "transfer", "model": "cnn4"}, 2 * 2 * (1 + 2)),
        ({"source_defense": "vanilla"}, 2 * 4 * (1 + 2)),
        ({"domain": "spectrogram", "attack": "none"}, None),
        ({"fold": "fold2"}, 2 * 4 * 6),
        ({"seed": "7"}, None),
        ({"attack": "fgms"}, None),
        ({"model": "tiny", "defense": "similarity"}, None),
        ({"fold": "fold9"}, None),
    ],
    ids=str,
)
def test_only_selects_cells_and_keeps_their_clean_reference(only: dict[str, str], cells: int | None) -> None:
    if cells is None:
        with pytest.raises(InputError, match=r"^--only .*=.*: no (cell|such fold)"):
            plan(suite(**ATTACKED), only)
        return
    planned = plan(suite(**ATTACKED), only)
    assert len(planned.cells) == cells
    assert keys_of(planned) <= keys_of(plan(suite(**ATTACKED)))
    clean = replace(planned, cells=tuple(cell for cell in planned.cells if cell.columns["attack"] == "none"))
    assert keys_of(clean, "seed", "model", "defense") == keys_of(planned, "seed", "model", "defense")


def test_a_victim_that_is_left_out_is_still_a_source() -> None:
    planned = plan(suite(**ATTACKED), {"defense": "vanilla", "model": "tiny", "seed": "0"})
    sources = places(planned, "source_model", "source_defense", "access")
    assert Counter(access for *_, access in sources) == {"blind": 1, "white-box": 1, "transfer": 3}
    assert ("cnn4", "none", "transfer") in sources


def test_a_fold_that_one_part_lacks_selects_nothing_of_it() -> None:
    with pytest.raises(NothingSelectedError, match=r"--only fold=random: no such fold \(folds: fold1, fold2, fold3\)"):
        plan(suite(), {"fold": "random"})


def test_a_newcomer_is_exempt_from_the_filter_of_its_own_kind() -> None:
    attacks = [NOISE, {"name": "shift"}, FGSM]
    planned = plan(suite(attacks=attacks), {"attack": "noise"})
    assert {cell.columns["attack"] for cell in planned.cells} == {"none", "noise", "shift"}
    with pytest.raises(InputError, match="no cell"):
        plan(suite(attacks=attacks), {"model": "raw"})


def test_newcomers_join_where_the_suite_says() -> None:
    waveform = {"domain": "waveform", "epsilon": 0.001}
    spectrogram = {"domain": "spectrogram", "epsilon": 0.06, "delivery": "features", "labels": ["predicted"]}
    joined = with_added_plugins(suite(newcomers=[waveform, {**waveform, "epsilon": 0.01}, spectrogram], attacks=[FGSM]))
    assert [entry.title for entry in joined.models] == ["tiny", "raw"]
    assert [entry.title for entry in joined.metrics] == ["uar", "snr", "overwrites"]
    rows = [(entry.name, entry.domain[0], entry.labels[0], entry.params) for entry in joined.attacks[1:]]
    assert rows == [
        ("decisions", "waveform", "true", {"epsilon": 0.001}),
        ("decisions", "waveform", "true", {"epsilon": 0.01}),
        ("decisions", "spectrogram", "predicted", {"epsilon": 0.06}),
        # Without a budget, the two places in the waveform are one.
        ("shift", "waveform", "true", {}),
        ("shift", "spectrogram", "predicted", {}),
        ("nested", "waveform", "true", {}),
        ("nested", "spectrogram", "predicted", {}),
        ("silent", "waveform", "true", {}),
        ("silent", "spectrogram", "predicted", {}),
    ]


def test_newcomers_that_have_no_place_are_refused() -> None:
    with pytest.raises(InputError, match=r"suite 'small' has no 'newcomers' for attack 'decisions'"):
        with_added_plugins(suite())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": [FGSM, FGSM]}, r"attacks: got fgsm .*0.06.* waveform audio true twice"),
        ({"attacks": [{**FGSM, "params": {"epsilon": [0.06, 0.06]}}]}, "fgsm .*twice"),
        ({"attacks": [{**FGSM, "labels": ["true", "true"]}]}, "fgsm .*twice"),
        ({"attacks": [{**FGSM, "domain": ["waveform", "waveform"]}]}, "fgsm .*twice"),
        ({"attacks": [{**FGSM, "domain": ["spectrogram"], "delivery": ["audio", "audio"]}]}, "fgsm .*twice"),
        ({"attacks": [{**FGSM, "params": {"epsilon": []}}]}, r"attack 'fgsm': epsilon: got \[\]"),
        ({"attacks": [{"name": "decisions", "params": {"epsilon": 1}, "labels": ["soft"]}]}, "labels: got soft"),
        ({"attacks": [{**FGSM, "name": "fgms"}]}, "unknown attack 'fgms'; did you mean 'fgsm'"),
        (
            {"attacks": [{"name": "external", "params": {"folder": "x"}, "labels": ["true", "predicted"]}]},
            "attack 'external': labels: got true, predicted, expected true for examples from files",
        ),
        ({"folds": ["fold4"]}, "folds: got 'fold4', expected fold1, fold2, fold3"),
        ({"metrics": ["uar", "overwrites"]}, "metric 'overwrites': got the name or column 'loss'"),
        ({"metrics": [{"name": "snr", "label": "margin"}]}, "metric 'margin': got the name or column 'margin'"),
        ({"models": [{"name": "tiny", "training": {"epochs": 1}}]}, r"models.tiny.training: unknown key 'epochs'"),
    ],
)
def test_a_suite_that_cannot_be_planned_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        plan(**changes)
    assert "\n" not in str(caught.value)


def test_one_attack_may_be_listed_twice_under_two_labels_and_is_crafted_once() -> None:
    planned = plan(attacks=[FGSM, {**FGSM, "label": "again"}])
    assert [cell.columns["attack"] for cell in planned.cells] == ["none", "fgsm", "again"]
    assert planned.cells[1].folds == planned.cells[2].folds


def test_a_run_of_some_folds_scores_only_these() -> None:
    planned = plan(folds=["fold3", "fold1"])
    assert [fold.fold for fold in planned.cells[0].folds] == ["fold3", "fold1"]


BASE = {"defenses": ["none", VANILLA], "attacks": [{**FGSM, "domain": ["waveform"]}]}


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"name": "renamed", "title": "Another", "about": "More."}, {"train", "craft", "predict", "measure"}),
        ({"models": [{"name": "tiny", "label": "small"}]}, {"train", "craft", "predict", "measure"}),
        ({"attacks": [{**FGSM, "label": "ours"}]}, {"train", "craft", "predict", "measure"}),
        ({"metrics": ["uar", {"name": "snr", "label": "ratio"}]}, {"train", "craft", "predict", "measure"}),
        ({"bootstrap": 7}, {"train", "craft", "predict", "measure"}),
        ({"attacks": [{**FGSM, "params": {"epsilon": 0.01}}]}, {"train"}),
        ({"attacks": [{**FGSM, "labels": ["predicted"]}]}, {"train"}),
        ({"batch_size": 7}, {"train"}),
        # One step along the gradient is to be along it exactly; only attacks of many steps are as strong without.
        ({"attack_precision": "bf16"}, {"train", "craft", "predict", "measure"}),
        ({"models": [{"name": "tiny", "params": {"frames": 64}}]}, set()),
        ({"training": {"iterations": 6, "precision": "fp32"}}, set()),
        ({"seeds": [1]}, set()),
        ({"protocol": "6pair"}, set()),
        ({"folds": ["fold2"]}, set()),
    ],
    # Not by themselves: the order of a set differs between processes.
    ids=lambda value: json.dumps(value, default=sorted),
)
def test_keys_change_when_results_would_and_not_with_names(changes: dict[str, Any], same: set[str]) -> None:
    one_fold = {**BASE, "folds": ["fold1"]}
    before, after = plan(**one_fold).jobs, plan(**{**one_fold, **changes}).jobs
    for stage in ("train", "craft", "predict", "measure"):
        keys = [{key for key, job in jobs.items() if job.stage == stage} for jobs in (before, after)]
        assert (keys[0] == keys[1]) == (stage in same), stage
        if stage == "train" and stage not in same:
            assert not keys[0] & keys[1]


@pytest.mark.parametrize(
    ("wanted", "attack", "native", "precision"),
    [
        ("auto", "ifgsm", True, "bf16"),
        ("auto", "ifgsm", False, "fp32"),
        ("auto", "fgsm", True, "fp32"),
        ("bf16", "ifgsm", False, "bf16"),
        ("bf16", "fgsm", True, "fp32"),
        ("fp32", "ifgsm", True, "fp32"),
    ],
)
def test_gradients_are_in_bfloat16_where_the_suite_the_attack_and_the_processor_allow_it(
    wanted: str, attack: str, native: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advser.models.precision.computes_in_bf16", lambda device: native)
    planned = plan(attack_precision=wanted, attacks=[{**FGSM, "name": attack}], folds=["fold1"])
    rows = {job.spec.attack.name: job.spec.precision for job in planned.jobs.values() if job.stage == "craft"}
    assert rows == {"none": "fp32", attack: precision}


def test_the_code_of_every_attack_involved_is_in_the_key() -> None:
    nested = {"name": "nested", "params": {"inner": {"name": "nested", "params": {"inner": FGSM}}}}
    defenses = [{"name": "vanilla", "params": {"attack": nested}}]
    planned = plan(defenses=defenses, attacks=[{**nested, "domain": ["waveform"]}], folds=["fold1"])
    (train,) = [job for job in planned.jobs.values() if job.stage == "train"]
    craft = next(job for job in planned.jobs.values() if job.stage == "craft" and job.spec.attack.name == "nested")
    for job in (train, craft):
        assert job.code["attacks:fgsm"] == code_fingerprint("advser.attacks.gradient_sign")
        assert "attacks:nested" in job.code


def examined(planned: Plan) -> Counter[tuple[str, str]]:
    """Count the examine jobs by attack and metric."""
    titles = {key: cell.columns["attack"] for cell in planned.cells for key in cell.folds[0].examined.values()}
    return Counter((titles[key], job.spec.metric.name) for key, job in planned.jobs.items() if job.stage == "examine")


def test_a_victim_is_examined_only_where_the_metric_has_a_meaning() -> None:
    planned = plan(attacks=[{**FGSM}], metrics=["uar", "snr", "alignment", "gradient-mass"], folds=["fold1"])
    assert examined(planned) == {("none", "gradient-mass"): 1, ("fgsm", "alignment"): 1}
    assert stages(planned)["measure"] == 1


def test_the_packages_of_every_plugin_involved_are_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, name, package in (
        (ATTACKS, "nested", "jinja2"),
        (ATTACKS, "fgsm", "typer"),
        (ATTACKS, "generator", "pooch"),
        (DEFENSES, "vanilla", "rich"),
        (METRICS, "alignment", "pyyaml"),
    ):
        monkeypatch.setattr(kind.get(name), "packages", (package,))
    nested = {"name": "nested", "params": {"inner": FGSM}, "domain": ["waveform"]}
    generator = {"name": "generator", "params": {"epsilon": 0.01}}
    planned = plan(defenses=[VANILLA], attacks=[nested, generator], metrics=["uar", "alignment"], folds=["fold1"])
    rows: dict[str, set[str]] = {}
    for job in planned.jobs.values():
        packages = {name.removeprefix("package:") for name in job.code if name.startswith("package:")}
        attack = f" {job.spec.attack.name}" if isinstance(job.spec, CraftSpec) else ""
        rows.setdefault(job.stage + attack, set()).update(packages)
    assert {"jinja2", "typer"} <= rows["craft nested"]
    assert "pooch" in rows["learn generator"] & rows["craft generator"]
    assert {"rich", "typer"} <= rows["train"]
    assert "pyyaml" in rows["examine"]
    assert not {"jinja2", "typer", "pooch", "rich", "pyyaml"} & (rows["craft none"] | rows["predict"])


def test_attacks_declare_the_packages_that_affect_their_results() -> None:
    for name, package in {"art": "adversarial-robustness-toolbox", "chain-rule": "scipy"}.items():
        assert ATTACKS.get(name).packages == (package,)
    assert ATTACKS.get("hopskipjump").packages == ATTACKS.get("art").packages


def test_a_missing_package_is_reported_with_its_extra_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MODELS._decorated, "not-installed", NotInstalled)
    listed = ["not-there-at-all>=1; extra == 'other'", 'not-there[all]>=2.6; extra == "encoders"']
    monkeypatch.setattr("advser.plugins.extras.requires", lambda _: listed)
    with pytest.raises(InputError, match=r"^model 'not-installed': not-there is not installed; .* '\.\[encoders\]' "):
        plan(models=["not-installed"])
    monkeypatch.setattr("advser.plugins.extras.requires", lambda _: [])
    with pytest.raises(InputError, match=r"pip install 'not-there'$"):
        plan(models=["not-installed"])
