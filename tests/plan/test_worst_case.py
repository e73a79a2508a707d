"""The worst case over several attacks, clip by clip."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from advser.plan.cells import Cell
from advser.plan.worst_case import PLACE, choices, columns_of, members, taken
from advser.suite.schema import WorstCase


def cell(**changes: Any) -> Cell:
    columns = {
        **dict.fromkeys(PLACE, ""), "model": "cnn4", "attack": "fgsm", "params": "{}", "domain": "waveform",
        "delivery": "audio", "labels": "true", "access": "white-box", "norm": "linf", "epsilon": 0.001,
        "epsilon_unit": "full-scale", "source_model": "cnn4", "source_defense": "none",
    }  # fmt: skip
    return Cell({**columns, **changes}, ())


def examples(margins: list[float], attack: str) -> pd.DataFrame:
    clips = [f"clip{number}" for number in range(len(margins))]
    return pd.DataFrame({"clip": clips, "margin": margins, "attack": attack})


def test_each_clip_counts_with_the_attack_of_its_lowest_margin() -> None:
    both = [examples([0.5, -0.2, float("nan"), 0.1], "a"), examples([0.4, 0.3, -1.0, 0.1], "b")]
    result = taken(both, choices(both))
    assert result["attack"].tolist() == ["b", "a", "b", "a"]
    assert result["clip"].tolist() == ["clip0", "clip1", "clip2", "clip3"]
    assert result["margin"].tolist() == [0.4, -0.2, -1.0, 0.1]


def test_cells_of_different_clips_are_not_combined() -> None:
    with pytest.raises(ValueError, match="different clips"):
        choices([examples([0.5], "a"), examples([0.5, 0.1], "b")])


@pytest.mark.parametrize(
    ("changes", "belongs"),
    [
        ({}, True),
        ({"access": "transfer"}, True),
        ({"attack": "noise", "access": "blind"}, True),
        ({"attack": "noise", "access": "blind", "epsilon": 0.002}, False),
        ({"attack": "snr-noise", "access": "blind", "epsilon": None}, False),
        ({"domain": "spectrogram"}, False),
        ({"delivery": "features"}, False),
        ({"epsilon": 0.002}, False),
        ({"epsilon": None}, False),
        ({"norm": "l2"}, False),
    ],
)
def test_which_cells_a_worst_case_is_taken_over(changes: dict[str, Any], belongs: bool) -> None:
    always, clean = cell(attack="always"), cell(attack="none", access="blind", epsilon=None, norm="")
    (result,) = members([clean, always, cell(**changes)], WorstCase(epsilon=0.001))
    assert result == [always, *([cell(**changes)] if belongs else []), clean]


def test_a_victim_without_an_attack_has_no_worst_case() -> None:
    clean, noise = cell(attack="none", access="blind", epsilon=None), cell(attack="noise", access="blind")
    assert list(members([clean, noise], WorstCase())) == []
    assert list(members([clean, cell(epsilon=0.002)], WorstCase(epsilon=0.001))) == []


def test_attacks_can_be_named_controls_too_and_victims_stay_apart() -> None:
    noise, other = cell(attack="noise", access="blind"), cell(model="vgg16")
    clean = cell(attack="none", access="blind", epsilon=None)
    assert list(members([cell(), noise], WorstCase(attacks=["noise"]))) == [[noise]]
    assert list(members([cell(), noise, clean], WorstCase(attacks=["fgsm"]))) == [[cell(), clean]]
    assert list(members([cell(), other], WorstCase())) == [[cell()], [other]]


def test_budgets_of_two_norms_are_not_combined() -> None:
    l2, unbounded = cell(norm="l2", epsilon=3.0), cell(norm="", epsilon=None, epsilon_unit="")
    assert list(members([cell(), l2, unbounded], WorstCase())) == [[cell(), unbounded]]
    assert list(members([cell(), l2], WorstCase(norm="l2", epsilon=3.0))) == [[l2]]


def test_cells_can_be_chosen_by_their_labels() -> None:
    declared = WorstCase.model_validate({"labels": [True, "soft"]})
    true, predicted, soft = (cell(labels=labels) for labels in ("true", "predicted", "soft"))
    assert list(members([true, predicted, soft], declared)) == [[true, soft]]
    assert columns_of([predicted], WorstCase(labels=["predicted"]))["labels"] == "predicted"
    assert columns_of([predicted, soft], WorstCase())["labels"] == "soft"


def test_the_row_has_the_largest_budget_and_the_same_keys_for_any_number_of_cells() -> None:
    columns = columns_of([cell(), cell(epsilon=0.0005, labels="predicted"), cell(access="transfer")], WorstCase())
    assert columns["attack"] == "worst-case"
    assert columns["params"] == columns_of([cell()], WorstCase())["params"] == "{}"
    assert (columns["epsilon"], columns["norm"], columns["epsilon_unit"]) == (0.001, "linf", "full-scale")


def test_clean_clips_and_controls_do_not_change_the_row() -> None:
    clean = cell(
        attack="none", access="blind", labels="none", norm="", epsilon=None, source_model="", source_defense=""
    )
    noise = cell(attack="noise", access="blind", labels="none", source_model="", source_defense="")
    assert columns_of([cell(), noise, clean], WorstCase()) == columns_of([cell()], WorstCase())


def test_with_a_cell_without_a_budget_the_worst_has_none() -> None:
    columns = columns_of([cell(), cell(norm="", epsilon=None, epsilon_unit="")], WorstCase())
    assert (columns["epsilon"], columns["norm"], columns["epsilon_unit"]) == (None, "", "")


@pytest.mark.parametrize(
    ("levels", "strongest"),
    [
        (["blind", "scores"], "scores"),
        (["transfer", "decisions"], "decisions"),
        (["blind", "transfer"], "transfer"),
        (["scores", "white-box"], "white-box"),
        (["blind"], "blind"),
    ],
)
def test_the_row_has_the_access_of_the_strongest_attacker(levels: list[str], strongest: str) -> None:
    assert columns_of([cell(access=level) for level in levels], WorstCase())["access"] == strongest


def test_the_row_names_the_source_that_all_cells_have_in_common() -> None:
    source = ("source_model", "source_defense")
    own, other = cell(), cell(access="transfer", source_model="vgg16")
    assert [columns_of([own, own], WorstCase())[key] for key in source] == ["cnn4", "none"]
    assert [columns_of([other], WorstCase())[key] for key in source] == ["vgg16", "none"]
    for several in ([own, other], [other, cell(access="transfer", source_model="resnet50")]):
        assert [columns_of(several, WorstCase())[key] for key in source] == ["", ""]
