"""Selected cells, added plugins and refused suites."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from planning import (
    FGSM,
    NOISE,
    VANILLA,
    keys_of,
    places,
    plan,
    suite,
)
from toys import Waveform

from advser.errors import InputError
from advser.plan.added_plugins import with_added_plugins
from advser.plan.planner import NothingSelectedError
from advser.plugins.registries import MODELS

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
    assert [entry.title for entry in joined.metrics] == ["uar", "snr", "overwrites", "titled"]
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
        ({"metrics": ["titled"]}, "metric 'titled': got the title 'uar' of another metric"),
        ({"metrics": [{"name": "accuracy", "label": "uar"}]}, "metric 'accuracy': got the label 'uar', the name of"),
        (
            {"models": [{"name": "tiny", "label": "cnn4"}]},
            "model 'tiny': got the label 'cnn4', the name of another model",
        ),
        ({"attacks": [{**FGSM, "label": "pgd"}]}, "attack 'fgsm': got the label 'pgd', the name of another attack"),
        (
            {"defenses": [{"name": "vanilla", "label": "madry"}]},
            "defense 'vanilla': got the label 'madry', the name of",
        ),
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


class Machine(Waveform):
    """A model without gradients."""

    differentiable: ClassVar[bool] = False


@pytest.mark.parametrize("defense", ["low-pass", "quantisation", "mixup", "smoothing"])
def test_a_model_without_gradients_takes_defenses_that_do_not_train(
    defense: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS._decorated, "machine", Machine)
    entry = {"name": defense, "params": {"sigma": 0.01}} if defense == "smoothing" else defense
    declared = suite(models=["machine", "tiny"], defenses=["none", entry], attacks=[{**FGSM, "transfer": True}])
    if defense in ("mixup", "smoothing"):
        with pytest.raises(InputError, match="expected none or one at test time"):
            plan(declared)
    else:
        sources = {model for (model, attack) in places(plan(declared), "source_model", "attack")}
        assert sources == {"tiny"}


def test_a_defense_that_no_model_uses_is_checked() -> None:
    with pytest.raises(InputError, match="defense 'low-pass'"):
        plan(
            suite(
                models=[{"name": "tiny", "defenses": ["none"]}],
                defenses=["none", {"name": "low-pass", "params": {"x": 1}}],
            )
        )
