"""The table of ranks: which entries are compared, and which get no rank."""

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
from advser.scoring.ranks import EvaluatedCell, ranks
from advser.suite.schema import Suite, WorstCase

METRICS: dict[str, Metric] = {"uar": UAR(), "share": Accuracy(), "loss": Loss()}
FGSM, IFGSM = (synthetic.attack(name, "waveform", 0.001) for name in ("fgsm", "ifgsm"))
SMALL = synthetic.attack("fgsm", "waveform", 0.0005)
NOISE = synthetic.attack("noise", "waveform", 0.001, "none", access="blind")


def evaluated(
    attack: dict[str, Any], model: str, defense: str, skill: float, seed: int = 0, **keys: Any
) -> EvaluatedCell:
    source = {"source_model": model, "source_defense": defense} if attack["access"] == "white-box" else {}
    victim = {"model": model, "defense": defense}
    return synthetic.evaluated({**synthetic.BASE, **attack, **source, **victim, **keys}, skill, seed)


def cells(seed: int = 0) -> list[EvaluatedCell]:
    """Two models with two defenses each, clean, under noise and under three attacks."""
    result = []
    for model, defense, skill in (("a", "none", 0.4), ("a", "good", 0.9), ("b", "none", 0.4), ("b", "good", 0.95)):
        result.append(evaluated(synthetic.CLEAN, model, defense, 0.9, seed))
        result.append(evaluated(NOISE, model, defense, 0.85, seed))
        result += [evaluated(attack, model, defense, skill, seed) for attack in (SMALL, FGSM)]
        result.append(evaluated(IFGSM, model, defense, skill / 4, seed))
    return result


def table(evaluated_cells: list[EvaluatedCell], suite: Suite = synthetic.SUITE) -> pd.DataFrame:
    return Results(
        synthetic.results().table, no_examples(), synthetic.results().run, ranks(evaluated_cells, suite, METRICS, 3)
    ).ranks


def among(frame: pd.DataFrame, kind: str, **keys: Any) -> pd.DataFrame:
    """The rows of UAR among entries of some kind, with these keys."""
    frame = frame[(frame["among"] == kind) & (frame["metric"] == "uar")]
    for key, value in keys.items():
        frame = frame[frame[key] == value]
    return frame


@pytest.fixture(scope="module")
def all_ranks() -> pd.DataFrame:
    return table(cells())


def test_defenses_are_compared_with_one_model_and_models_with_one_defense(all_ranks: pd.DataFrame) -> None:
    of_model = among(all_ranks, "model", attack="ifgsm", model="a")
    assert of_model.set_index("defense")["rank"].to_dict() == {"none": 2, "good": 1}
    assert set(of_model["tie"]) == {1, 2}
    assert set(among(all_ranks, "defense", attack="ifgsm", defense="none")["model"]) == {"a", "b"}
    assert set(among(all_ranks, "model", attack="none")["tie"]) == {1}


def test_attacks_on_one_victim_are_compared_where_their_budget_is_the_same(all_ranks: pd.DataFrame) -> None:
    rows = among(all_ranks, "attacks", model="a", defense="good")
    assert rows.set_index("attack")["rank"].to_dict() == {"ifgsm": 1, "fgsm": 2}
    assert set(rows["epsilon"]) == {0.001}


def test_only_uar_and_accuracy_are_ranked(all_ranks: pd.DataFrame) -> None:
    assert set(all_ranks["metric"]) == {"uar", "share"}


def test_the_leaderboard_has_the_worst_case_within_each_budget(all_ranks: pd.DataFrame) -> None:
    rows = among(all_ranks, "leaderboard")
    assert rows.groupby("epsilon")["attacks"].unique().map(list).to_dict() == {0.0005: [1], 0.001: [4]}
    assert rows.loc[rows["epsilon"].isna(), "attack"].unique().tolist() == ["none"]
    worst = among(all_ranks, "leaderboard", epsilon=0.001).set_index(["model", "defense"])
    clips = [cell.clips for cell in cells() if cell.columns["model"] == "a" and cell.columns["defense"] == "good"]
    right = np.all([of_cell["prediction"] == of_cell["label"] for of_cell in clips], axis=0)
    assert worst.loc[("a", "good"), "value"] == pytest.approx(right.reshape(-1, synthetic.CLASSES).mean(0).mean())
    assert worst["rank"].min() == 1
    assert set(worst["entries"]) == {4}


def test_a_declared_worst_case_replaces_those_by_budget() -> None:
    suite = synthetic.SUITE.model_copy(
        update={"worst": [WorstCase(name="both", attacks=["fgsm", "ifgsm"], epsilon=0.001)]}
    )
    rows = among(table(cells(), suite), "leaderboard")
    assert list(dict.fromkeys(rows["attack"])) == ["none", "both"]


def test_an_entry_without_a_cell_gets_no_rank_and_the_reason() -> None:
    cut = [cell for cell in cells() if (cell.columns["model"], cell.columns["attack"]) != ("b", "ifgsm")]
    ranks_of_cut = table(cut)
    (row,) = among(ranks_of_cut, "defense", attack="ifgsm", defense="good", model="b").to_dict("records")
    assert (row["rank"], row["tie"], row["reason"]) == (0, 0, "no rank: it lacks this cell")
    assert np.isnan(row["value"])
    worst = among(ranks_of_cut, "leaderboard", epsilon=0.001).set_index(["model", "defense"])
    assert worst.loc[("b", "good"), "rank"] == 0
    assert "ifgsm" in worst.loc[("b", "good"), "reason"]
    assert "lacks fgsm" not in worst.loc[("b", "good"), "reason"]
    assert worst.loc["a", "rank"].tolist() == [2, 1]
    assert set(worst["entries"]) == {2}


@pytest.mark.parametrize(("victims", "ranked"), [(("a", "b"), 4), (("a",), 2)])
def test_an_attack_that_failed_on_every_entry_takes_no_rank(victims: tuple[str, ...], ranked: int) -> None:
    def with_failures(cell: EvaluatedCell) -> EvaluatedCell:
        if cell.columns["attack"] != "ifgsm" or cell.columns["model"] not in victims:
            return cell
        return EvaluatedCell(cell.columns, cell.clips.assign(prediction=-1, margin=np.nan))

    failed = table([with_failures(cell) for cell in cells()])
    rows = among(failed, "leaderboard", epsilon=0.001, metric="uar")
    assert (rows["rank"] > 0).sum() == ranked
    if len(victims) == 2:
        assert rows["reason"].str.fullmatch(r"without ifgsm \(.*\), which failed on every entry").all()
        alone = table([cell for cell in cells() if cell.columns["attack"] != "ifgsm"])
        expected = among(alone, "leaderboard", epsilon=0.001, metric="uar")
        assert rows["value"].tolist() == expected["value"].tolist()


def test_an_entry_without_a_figure_gets_no_rank() -> None:
    with_failure = cells()
    broken = next(index for index, cell in enumerate(with_failure) if cell.columns["attack"] == "fgsm")
    keys = with_failure[broken].columns
    clips = with_failure[broken].clips.assign(prediction=-1, margin=np.nan)
    with_failure[broken] = EvaluatedCell(keys, clips)
    where = {"attack": "fgsm", "model": keys["model"], "epsilon": keys["epsilon"]}
    row = among(table(with_failure), "model", **where).set_index("defense").loc[keys["defense"]]
    assert (row["rank"], row["reason"]) == (0, "no rank: it lacks a figure")


def test_examples_of_other_models_count_in_the_worst_case_alone() -> None:
    attack = synthetic.attack("ifgsm", "waveform", 0.001, access="transfer")
    transferred = evaluated(attack, "a", "good", 0.0, source_model="b", source_defense="none")
    with_transfer = table([*cells(), transferred])
    assert set(among(with_transfer, "model", model="a", defense="good")["access"]) == {"blind", "white-box"}
    worst = among(with_transfer, "leaderboard", epsilon=0.001, model="a", defense="good")
    assert worst["value"].tolist() == [0.0]
    assert worst["attacks"].tolist() == [5]
    assert set(among(with_transfer, "leaderboard", epsilon=0.001)["reason"]) == {""}


def test_seeds_are_pooled_and_an_entry_needs_all_of_them() -> None:
    two_seeds = [*cells(0), *cells(1)]
    pooled = table(two_seeds)
    assert set(pooled["seeds"]) == {2}
    by_seed = [among(table(cells(seed)), "model", attack="ifgsm", model="a")["value"].to_numpy() for seed in (0, 1)]
    rows = among(pooled, "model", attack="ifgsm", model="a")
    np.testing.assert_allclose(rows["value"], np.mean(by_seed, axis=0))
    np.testing.assert_allclose(rows["spread"], np.std(by_seed, axis=0, ddof=1))
    missing = ("fgsm", 1, "a")
    cut = [cell for cell in two_seeds if cell.values(("attack", "seed", "model")) != missing]
    reasons = among(table(cut), "defense", attack="fgsm", epsilon=0.001, model="a")["reason"]
    assert set(reasons) == {"no rank: it lacks seed 1"}
