"""The checks of the audit: each flags its own culprit, and nothing in honest runs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from places import DEMO

from advser.audit.audit import CHECKS, Flag, audit
from advser.audit.evidence import VICTIM, Cell, Evidence, cells_of
from advser.plan.cells import AttackFacts
from advser.plugins.parameters import build, plain
from advser.plugins.registries import ATTACKS
from advser.plugins.roles import Role
from advser.results.schema import KEYS

CLIPS = 100
NAMES = [check.name for check in CHECKS]
HONEST: dict[str, Any] = {
    "clips": 12,
    "disagreement": 0.0,
    "company": 1e-6,
    "companions": 1e-6,
    "probabilities": False,
    "changed": [],
    "foreign_statistics": 0.0,
    "without_gradient": 0.0,
    "derivative_error": 0.01,
    "false": 1,
    "adaptive_without_gradient": 0.0,
    "adaptive_false": 1,
    "unexplained_change": 0.02,
    "test_clips": 100,
    "inaudible": {"less volume": (3, 1), "noise": (0, 0), "cut": (1, 2)},
    "advantage_of_scores": -5,
    "standing_huge": 0.0,
    "standing": 0.5,
    "standing_doubled": 0.42,
}
"""The answers of an honest model."""


def cell(attack: str, error: float, **keys: Any) -> Cell:
    """A synthetic cell whose first clips, a share of ``error``, are misled; all are correct when clean."""
    params = keys.pop("params", {})
    usual = {
        **dict.fromkeys(KEYS, ""), "attack": attack, "seed": 0, "model": "cnn4", "defense": "none",
        "domain": "waveform", "delivery": "audio", "labels": "true", "access": "white-box", "norm": "linf",
        "epsilon": 0.001,
    }  # fmt: skip
    steps = params.get("steps", 20 if "attacks" in params else 1)
    return Cell(
        {**usual, **keys},
        params,
        misled=np.arange(CLIPS) < round(error * CLIPS),
        correct=np.ones(CLIPS, bool),
        iterative=steps > 1,
        steps=steps,
        roles={"epsilon": "budget", "steps": "steps", "alpha": "step-size"},
        control=attack == "noise",
        external=attack == "external",
    )


NOISE = cell("noise", 0.1, access="blind", labels="none")
FGSM = cell("fgsm", 0.6)
IFGSM = cell("ifgsm", 0.8, params={"steps": 10})
DEFENDED = cell("ifgsm", 0.4, defense="vanilla", params={"steps": 10})
FAITHFUL = [
    cell("none", 0.0, access="blind", labels="none", epsilon=None),
    NOISE,
    FGSM,
    IFGSM,
    cell("ifgsm", 0.82, params={"steps": 20}),
    cell("ifgsm", 0.95, params={"steps": 10}, epsilon=0.002),
    cell("ifgsm", 0.7, params={"steps": 10}, labels="predicted"),
    cell("ifgsm", 0.3, params={"steps": 10}, access="transfer", source_model="vgg16", source_defense="none"),
    cell("unbounded", 0.3, params={"steps": 1}, epsilon=None),
    cell("unbounded", 0.9, params={"steps": 10}, epsilon=None),
    DEFENDED,
    cell("ifgsm", 0.1, params={"steps": 10}, epsilon=0.0001),
    cell("ifgsm", 0.1, params={"steps": 10}, epsilon=0.0001, defense="vanilla"),
    cell("fgsm", 0.7, model="vgg16", defense="detector"),
    cell("ifgsm", 0.9, model="vgg16", defense="detector", params={"steps": 10, "objective": "adaptive"}),
    cell("square", 0.25, access="scores"),
    # Blind attacks other than controls, and examples from files, take part in no comparison.
    cell("universal", 0.9, access="blind", labels="none"),
    cell("external", 0.95, access="decisions"),
    cell("external", 0.0, access="decisions", params={"folder": "other"}),
]
"""The cells of an honest run."""


PLAIN = {"part": "", "seed": 0, "model": "cnn4", "defense": "none"}
"""The keys of the trained model that is probed."""


def evidence(*cells: Cell, **answers: Any) -> Evidence:
    """An honest run in which some cells are added or replaced, and some answers of the model replaced."""
    honest = [
        cell
        for cell in FAITHFUL
        if not any(cell.has_same_keys(other) and cell.has_same_params(other) for other in cells)
    ]
    return Evidence([*honest, *cells], [(PLAIN, HONEST | answers)], {"": 7}, frozenset({("", "detector")}))


def flags_of(*cells: Cell, **answers: Any) -> list[Flag]:
    """The flags of that run."""
    return audit(evidence(*cells, **answers)).flags


def test_every_check_applies_to_an_honest_run_and_flags_nothing() -> None:
    audited = audit(evidence())
    assert audited.flags == []
    assert [name for name, verdicts in audited.verdicts.items() if not verdicts] == []


def test_the_record_separates_checks_that_do_not_apply() -> None:
    alone = audit(Evidence([cell("none", 0.0, access="blind", labels="none", epsilon=None), IFGSM]))
    assert alone.flags == []
    assert {name for name, cases in alone.record["looked_at"].items() if cases} == {"only-proxy-labels"}
    assert alone.record["needs"].keys() == {*NAMES}


def test_a_model_that_could_not_be_probed_is_flagged() -> None:
    flags = audit(replace(evidence(), unprobed=[(PLAIN, "RuntimeError: out of words")])).flags
    assert flags == [Flag("could-not-be-probed", PLAIN, "RuntimeError: out of words")]


CELL_CULPRITS = {
    "iterative-attack-weaker-than-single-step": [cell("lazy", 0.3, params={"steps": 10})],
    "smaller-budget-stronger": [cell("fgsm", 0.4, epsilon=0.002)],
    "transfer-beats-white-box": [
        cell("ifgsm", 0.95, params={"steps": 10}, access="transfer", source_model="vgg16", source_defense="none")
    ],
    "queries-beat-white-box": [cell("square", 0.97, access="scores")],
    "noise-beats-attack": [cell("noise", 0.9, access="blind", labels="none", epsilon=0.0009)],
    "proxy-labels-beat-true-labels": [cell("ifgsm", 0.95, params={"steps": 10}, labels="predicted")],
    "not-converged": [cell("ifgsm", 0.9, params={"steps": 20})],
    "undefended-model-robust": [
        cell("weak", 0.3, params={"steps": 10}, epsilon=0.01),
        cell("weak", 0.1, params={"steps": 10}, epsilon=0.01, defense="vanilla"),
    ],
    "not-attacked-adaptively": [cell("fgsm", 0.7, defense="detector", epsilon=0.003)],
    "only-proxy-labels": [cell("fgsm", 0.5, model="vgg16", labels="predicted")],
    "stronger-than-its-cost": [replace(cell("own", 0.7), passes=0)],
}
MODEL_CULPRITS: dict[str, dict[str, Any]] = {
    "zero-gradients": {"without_gradient": 0.25},
    "false-gradient": {"derivative_error": 0.9},
    "answers-depend-on-the-file": {"inaudible": {"noise": (10, 0), "cut": (1, 1)}},
    "robust-to-huge-budget": {"standing_huge": 0.75},
    "scores-beat-gradients": {"advantage_of_scores": 3},
    "more-steps-mislead-more": {"standing": 0.75, "standing_doubled": 0.25},
    "draws-at-random": {"disagreement": 0.2, "company": 0.2},
    "answers-depend-on-the-batch": {"company": 0.2},
    "probabilities-instead-of-logits": {"probabilities": True},
    "state-changes-in-evaluation": {"changed": ["body.1.running_mean"]},
    "statistics-from-other-clips": {"foreign_statistics": 0.1},
}


def test_every_check_has_a_culprit_and_a_meaning() -> None:
    assert {*CELL_CULPRITS, *MODEL_CULPRITS, "could-not-be-probed"} == {*NAMES}
    assert all(check.meaning.endswith(".") and check.needs for check in CHECKS)


@pytest.mark.parametrize("check", CELL_CULPRITS)
def test_a_check_of_cells_flags_its_culprit_alone(check: str) -> None:
    flags = flags_of(*CELL_CULPRITS[check])
    assert {flag.check for flag in flags} == {check}


def test_attacks_are_compared_whatever_their_parameters_are_called() -> None:
    def own(error: float, size: float, rounds: int) -> Cell:
        params = {"size": size, "rounds": rounds, "pace": size / rounds}
        named = cell("own", error, params=params, epsilon=size)
        roles: dict[str, Role] = {"size": "budget", "rounds": "steps", "pace": "step-size"}
        return replace(named, steps=rounds, iterative=True, roles=roles)

    assert [flag.check for flag in flags_of(own(0.8, 0.001, 10), own(0.4, 0.002, 10))] == ["smaller-budget-stronger"]
    assert [flag.check for flag in flags_of(own(0.8, 0.001, 10), own(0.9, 0.001, 20))] == ["not-converged"]


def test_an_attack_without_a_pass_may_be_as_strong_as_noise() -> None:
    assert flags_of(replace(cell("own", 0.1, epsilon=0.0005), passes=0)) == []
    assert flags_of(replace(cell("own", 0.7), passes=CLIPS)) == []


FURTHER_CULPRITS: list[tuple[str, dict[str, Any]]] = [
    ("zero-gradients", {"adaptive_without_gradient": 1.0}),
    ("false-gradient", {"false": 3}),
    ("false-gradient", {"adaptive_false": 3}),
    ("answers-depend-on-the-batch", {"companions": 0.2}),
]


@pytest.mark.parametrize(("check", "answers"), FURTHER_CULPRITS)
def test_a_check_of_models_flags_each_of_its_signs(check: str, answers: dict[str, Any]) -> None:
    assert [flag.check for flag in flags_of(**answers)] == [check]


def test_random_draws_do_not_hide_answers_that_depend_on_the_batch() -> None:
    flags = flags_of(disagreement=0.2, company=0.2, companions=0.2)
    assert [flag.check for flag in flags] == ["draws-at-random", "answers-depend-on-the-batch"]


@pytest.mark.parametrize("check", MODEL_CULPRITS)
def test_a_check_of_models_flags_its_culprit_alone(check: str) -> None:
    flags = flags_of(**MODEL_CULPRITS[check])
    assert [flag.check for flag in flags] == [check]
    assert {*flags[0].where} == {*VICTIM}


def test_a_gradient_of_a_part_of_the_model_is_flagged() -> None:
    (flag,) = flags_of(unexplained_change=0.7)
    assert flag.check == "false-gradient"
    assert flag.detail == "the gradient misses 70% of the effect of random changes (median)"


def ensemble(error: float, epsilon: float = 0.001) -> Cell:
    """A synthetic cell of an ensemble that ascends the defense's own loss."""
    attacks = [{"name": "apgd", "params": {"epsilon": epsilon, "steps": 20}}]
    return cell("ensemble", error, epsilon=epsilon, params={"objective": "adaptive", "attacks": attacks})


AGAINST_AN_ENSEMBLE = {
    "iterative-attack-weaker-than-single-step": [
        ensemble(0.5), cell("fgsm", 0.7, params={"objective": "adaptive"})
    ],
    "smaller-budget-stronger": [ensemble(0.85), ensemble(0.5, epsilon=0.002)],
    "transfer-beats-white-box": [
        ensemble(0.85),
        cell("mi-fgsm", 0.95, access="transfer", source_model="vgg16", source_defense="none", epsilon=0.0008),
    ],
}  # fmt: skip


@pytest.mark.parametrize("check", AGAINST_AN_ENSEMBLE)
def test_an_ensemble_is_compared_with_the_attacks_that_it_should_beat(check: str) -> None:
    flags = flags_of(*AGAINST_AN_ENSEMBLE[check])
    assert {flag.check for flag in flags} == {check}
    assert {flag.where["attack"] for flag in flags} <= {"ensemble", "ifgsm"}


def test_an_honest_ensemble_has_no_flag() -> None:
    transferred = cell("mi-fgsm", 0.9, access="transfer", source_model="vgg16", source_defense="none", epsilon=0.002)
    single = cell("fgsm", 0.6, params={"objective": "adaptive"})
    assert flags_of(ensemble(0.85), ensemble(0.95, epsilon=0.002), single, transferred) == []


def test_a_weak_iteration_does_not_hide_a_masked_gradient() -> None:
    lazy = cell("lazy", 0.3, epsilon=0.003, params={"steps": 10, "objective": "adaptive"})
    rivals = [cell("fgsm", 0.9, epsilon=0.003), cell("square", 0.9, epsilon=0.003, access="scores")]
    transferred = cell("mi-fgsm", 0.9, epsilon=0.003, access="transfer", source_model="vgg16", source_defense="none")
    flags = flags_of(lazy, *rivals, transferred)
    assert {(flag.check, flag.where["attack"]) for flag in flags} == {
        ("queries-beat-white-box", "lazy"), ("transfer-beats-white-box", "lazy")
    }  # fmt: skip


@pytest.mark.parametrize("clips", [0, 1, 2])
def test_checks_of_shares_do_not_apply_to_a_few_clips(clips: int) -> None:
    worst = {"standing_huge": 1.0, "standing": 1.0, "standing_doubled": 0.0}
    audited = audit(evidence(clips=clips, **worst))
    names = ("robust-to-huge-budget", "more-steps-mislead-more")
    assert [len(audited.verdicts[name]) for name in names] == [0, 0]


@pytest.mark.parametrize(
    ("lost", "gained", "clips", "flagged"),
    [
        (8, 0, 100, False),
        (9, 0, 100, True),
        (14, 4, 100, False),
        (20, 3, 100, True),
        (9, 0, 500, False),
        (5, 0, 5, False),
    ],
)
def test_files_are_recognised_by_a_significant_loss_of_accuracy(
    lost: int, gained: int, clips: int, flagged: bool
) -> None:
    effects = {"noise": (0, 0), "less volume": (gained, lost), "cut": (lost, gained)}
    flags = flags_of(inaudible=effects, test_clips=clips)
    assert [flag.check for flag in flags] == ["answers-depend-on-the-file"] * flagged


def test_a_check_that_raises_is_a_flag() -> None:
    (flag,) = flags_of(foreign_statistics="what?")
    assert (flag.check, dict(flag.where)) == ("statistics-from-other-clips", {})
    assert flag.detail.startswith("the check itself failed: TypeError")


CLIP = {
    "prediction": [1], "clean_prediction": [0], "label": [0], "detection": [np.nan],
    "forwards": [1.0], "backwards": [1.0],
}  # fmt: skip


def cell_of(name: str, params: dict[str, Any], **further: str) -> Cell:
    """The cell of an attack with some parameters, as the planner and the results describe it."""
    plugin = ATTACKS.get(name)
    needed = {"folder": str(DEMO)} if name == "external" else {"epsilon": 0.1}
    attack = build(plugin, {**needed, **params}, name)
    facts = AttackFacts.of(attack, {**plain(attack), **further})
    text = json.dumps(facts.params)
    keys = {**dict.fromkeys(KEYS, ""), "attack": "title", "params": text}
    (cell,) = cells_of(pd.DataFrame({**keys, **CLIP}), [], {("", "title", text): facts})
    return cell


KINDS: list[tuple[str, dict[str, Any], tuple[bool, int, bool, bool]]] = [
    ("fgsm", {}, (False, 1, False, False)),
    ("ifgsm", {"steps": 10}, (True, 10, False, False)),
    ("ifgsm", {"steps": 1}, (False, 1, False, False)),
    ("eot", {"attack": {"name": "fgsm", "params": {}}}, (False, 1, False, False)),
    ("eot", {"attack": {"name": "pgd", "params": {"steps": 20}}}, (True, 20, False, False)),
    ("ensemble", {"attacks": [{"name": "fgsm"}, {"name": "fgsm"}]}, (True, 1, False, False)),
    ("noise", {}, (True, 1, True, False)),
    ("external", {}, (True, 1, False, True)),
]


@pytest.mark.parametrize("passes", [1.0, 2.0])
def test_several_backward_passes_make_an_attack_iterative_against_its_declaration(passes: float) -> None:
    keys = {**dict.fromkeys(KEYS, ""), "attack": "title", "params": "{}", "access": "white-box"}
    examples = pd.DataFrame({**keys, **CLIP, "backwards": [passes]})
    facts = AttackFacts.of(ATTACKS.get("fgsm")(epsilon=0.1), {})
    (cell,) = cells_of(examples, [], {("", "title", "{}"): facts})
    assert cell.iterative == (passes > 1)


@pytest.mark.parametrize(("name", "params", "expected"), KINDS)
def test_the_kind_of_an_attack_follows_from_its_plugin_and_the_attacks_within(
    name: str, params: dict[str, Any], expected: tuple[bool, int, bool, bool]
) -> None:
    cell = cell_of(name, params)
    assert (cell.iterative, cell.steps, cell.control, cell.external) == expected


@pytest.mark.parametrize(("detector", "flags"), [(True, 0), (False, 1)])
def test_evasion_is_the_adaptive_objective_against_a_detector(detector: bool, flags: int) -> None:
    attacked = cell("ifgsm", 0.9, defense="detector", params={"steps": 10, "objective": "evasion"}, epsilon=0.003)
    assert len(flags_of(replace(attacked, has_detector=detector))) == flags


ASCENDING: list[tuple[str, dict[str, Any], str]] = [
    ("ifgsm", {}, "adaptive"),
    ("apgd", {"loss": "objective"}, "adaptive"),
    ("apgd", {"loss": "dlr"}, ""),
    ("apgd-targeted", {}, ""),
    ("eot", {"attack": {"name": "apgd", "params": {"loss": "dlr"}}}, ""),
    ("eot", {"attack": {"name": "pgd"}}, "adaptive"),
    ("ensemble", {}, "adaptive"),
    ("ensemble", {"attacks": [{"name": "apgd", "params": {"loss": "dlr"}}, {"name": "apgd-targeted"}]}, ""),
    ("ensemble", {"attacks": [{"name": "apgd", "params": {"loss": "dlr"}}, {"name": "pgd"}]}, "adaptive"),
]


@pytest.mark.parametrize(("name", "params", "objective"), ASCENDING)
def test_an_attack_with_its_own_loss_does_not_ascend_the_defenses(
    name: str, params: dict[str, Any], objective: str
) -> None:
    cell = cell_of(name, params, objective="adaptive")
    assert cell.objective == objective


def test_a_difference_of_a_few_clips_is_not_flagged() -> None:
    assert (
        flags_of(cell("fgsm", 0.59, epsilon=0.002), cell("ifgsm", 0.82, params={"steps": 10}, labels="predicted")) == []
    )


def test_a_model_without_gradients_is_not_flagged_for_missing_answers() -> None:
    questions = ("without_gradient", "derivative_error", "standing_huge", "standing", "standing_doubled")
    assert flags_of(**dict.fromkeys(questions)) == []
