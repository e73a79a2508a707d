"""The table of ranks: who is compared with whom, and who gets no rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from advser.metrics.base import Metric
from advser.metrics.recognition import UAR, Accuracy, Loss
from advser.results.folder import Results
from advser.results.schema import no_examples
from advser.scoring.ranks import Judged, ranks
from advser.suite.schema import Suite, WorstCase

METRICS: dict[str, Metric] = {"uar": UAR(), "share": Accuracy(), "loss": Loss()}
FGSM, IFGSM = (synthetic.attack(name, "waveform", 0.001) for name in ("fgsm", "ifgsm"))
SMALL = synthetic.attack("fgsm", "waveform", 0.0005)
NOISE = synthetic.attack("noise", "waveform", 0.001, "none", access="blind")


def judged(attack: dict[str, Any], model: str, defense: str, skill: float, seed: int = 0, **keys: Any) -> Judged:
    source = {"source_model": model, "source_defense": defense} if attack["access"] == "white-box" else {}
    victim = {"model": model, "defense": defense}
    return synthetic.judged({**synthetic.BASE, **attack, **source, **victim, **keys}, skill, seed)


def cells(seed: int = 0) -> list[Judged]:
    """Two models with two defenses each, clean, under noise and under three attacks."""
    found = []
    for model, defense, skill in (("a", "none", 0.4), ("a", "good", 0.9), ("b", "none", 0.4), ("b", "good", 0.95)):
        found.append(judged(synthetic.CLEAN, model, defense, 0.9, seed))
        found.append(judged(NOISE, model, defense, 0.85, seed))
        found += [judged(attack, model, defense, skill, seed) for attack in (SMALL, FGSM)]
        found.append(judged(IFGSM, model, defense, skill / 4, seed))
    return found


def table(found: list[Judged], suite: Suite = synthetic.SUITE) -> pd.DataFrame:
    return Results(
        synthetic.results().table, no_examples(), synthetic.results().run, ranks(found, suite, METRICS, 3)
    ).ranks


def among(frame: pd.DataFrame, kind: str, **keys: Any) -> pd.DataFrame:
    """The rows by UAR of one kind that have these keys."""
    frame = frame[(frame["among"] == kind) & (frame["metric"] == "uar")]
    for key, value in keys.items():
        frame = frame[frame[key] == value]
    return frame


@pytest.fixture(scope="module")
def made() -> pd.DataFrame:
    return table(cells())


def test_defenses_are_compared_with_one_model_and_models_with_one_defense(made: pd.DataFrame) -> None:
    here = {"attack": "ifgsm"}
    assert among(made, "model", **here, model="a").set_index("defense")["rank"].to_dict() == {"none": 2, "good": 1}
    assert set(among(made, "model", **here, model="a")["tie"]) == {1, 2}
    assert set(among(made, "defense", **here, defense="none")["model"]) == {"a", "b"}
    assert set(among(made, "model", attack="none")["tie"]) == {1}


def test_attacks_on_one_victim_are_compared_where_their_budget_is_the_same(made: pd.DataFrame) -> None:
    found = among(made, "attacks", model="a", defense="good")
    assert found.set_index("attack")["rank"].to_dict() == {"ifgsm": 1, "fgsm": 2}
    assert set(found["epsilon"]) == {0.001}


def test_only_uar_and_accuracy_are_ranked(made: pd.DataFrame) -> None:
    assert set(made["metric"]) == {"uar", "share"}


def test_the_leaderboard_has_the_worst_of_what_fits_each_budget(made: pd.DataFrame) -> None:
    found = among(made, "leaderboard")
    assert found.groupby("epsilon")["attacks"].unique().map(list).to_dict() == {0.0005: [1], 0.001: [4]}
    assert found.loc[found["epsilon"].isna(), "attack"].unique().tolist() == ["none"]
    worst = among(made, "leaderboard", epsilon=0.001).set_index(["model", "defense"])
    clips = [one.clips for one in cells() if one.columns["model"] == "a" and one.columns["defense"] == "good"]
    right = np.all([one["prediction"] == one["label"] for one in clips], axis=0)
    assert worst.loc[("a", "good"), "value"] == pytest.approx(right.reshape(-1, synthetic.CLASSES).mean(0).mean())
    assert worst["rank"].min() == 1
    assert set(worst["entries"]) == {4}


def test_a_declared_worst_case_takes_the_place_of_those_by_budget() -> None:
    suite = synthetic.SUITE.model_copy(
        update={"worst": [WorstCase(name="both", attacks=["fgsm", "ifgsm"], epsilon=0.001)]}
    )
    found = among(table(cells(), suite), "leaderboard")
    assert list(dict.fromkeys(found["attack"])) == ["none", "both"]


def test_what_lacks_a_cell_gets_no_rank_and_the_reason() -> None:
    cut = [one for one in cells() if (one.columns["model"], one.columns["attack"]) != ("b", "ifgsm")]
    found = table(cut)
    (row,) = among(found, "defense", attack="ifgsm", defense="good", model="b").to_dict("records")
    assert (row["rank"], row["tie"], row["reason"]) == (0, 0, "no rank: it lacks this cell")
    assert np.isnan(row["value"])
    worst = among(found, "leaderboard", epsilon=0.001).set_index(["model", "defense"])
    assert worst.loc[("b", "good"), "rank"] == 0
    assert "ifgsm" in worst.loc[("b", "good"), "reason"]
    assert "lacks fgsm" not in worst.loc[("b", "good"), "reason"]
    assert worst.loc["a", "rank"].tolist() == [2, 1]
    assert set(worst["entries"]) == {2}


def test_what_failed_gets_no_rank() -> None:
    found = cells()
    broken = next(place for place, one in enumerate(found) if one.columns["attack"] == "fgsm")
    clips = found[broken].clips.assign(prediction=-1, margin=np.nan)
    found[broken] = Judged(found[broken].columns, clips)
    keys = found[broken].columns
    where = {"attack": "fgsm", "model": keys["model"], "epsilon": keys["epsilon"]}
    row = among(table(found), "model", **where).set_index("defense").loc[keys["defense"]]
    assert (row["rank"], row["reason"]) == (0, "no rank: it lacks a figure")


def test_examples_of_other_models_count_in_the_worst_case_and_nowhere_else() -> None:
    transferred = synthetic.attack("ifgsm", "waveform", 0.001, access="transfer")
    handed_on = judged(transferred, "a", "good", 0.0, source_model="b", source_defense="none")
    found = table([*cells(), handed_on])
    assert set(among(found, "model", model="a", defense="good")["access"]) == {"blind", "white-box"}
    worst = among(found, "leaderboard", epsilon=0.001, model="a", defense="good")
    assert worst["value"].tolist() == [0.0]
    assert worst["attacks"].tolist() == [5]
    assert set(among(found, "leaderboard", epsilon=0.001)["reason"]) == {""}


def test_seeds_are_taken_together_and_must_all_be_there() -> None:
    both = [*cells(0), *cells(1)]
    found = table(both)
    assert set(found["seeds"]) == {2}
    apart = [among(table(cells(seed)), "model", attack="ifgsm", model="a")["value"].to_numpy() for seed in (0, 1)]
    together = among(found, "model", attack="ifgsm", model="a")
    np.testing.assert_allclose(together["value"], np.mean(apart, axis=0))
    np.testing.assert_allclose(together["spread"], np.std(apart, axis=0, ddof=1))
    cut = [
        one for one in both if (one.columns["attack"], one.columns["seed"], one.columns["model"]) != ("fgsm", 1, "a")
    ]
    reasons = among(table(cut), "defense", attack="fgsm", epsilon=0.001, model="a")["reason"]
    assert set(reasons) == {"no rank: it lacks seed 1"}
