from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import synthetic

from advser.errors import InputError
from advser.leaderboards.boards.board import Board, Cell, Column, best_rows
from advser.leaderboards.boards.catalogue import BOARDS, attacks, defenses, models, transfer
from advser.leaderboards.boards.leaderboard import UNEQUAL
from advser.leaderboards.boards.rows import epsilon_text, rows
from advser.leaderboards.boards.sheet import panels, sheet
from advser.results.folder import Results
from advser.results.schema import no_examples
from advser.results.selection import select


@pytest.fixture(scope="module")
def results() -> Results:
    return synthetic.results()


@pytest.fixture(scope="module")
def ranked() -> Results:
    return synthetic.ranked()


def value(results: Results, metric: str = "uar", **keys: object) -> float:
    """Return the value of the only row of the table with ``keys``."""
    rows = results.table[results.table["metric"] == metric]
    for key, wanted in keys.items():
        rows = rows[rows[key] == wanted]
    assert len(rows) == 1
    return float(rows["value"].iloc[0])


def test_the_attacks_board_has_a_row_for_each_cell_without_transfer(results: Results) -> None:
    board = attacks(results)
    assert len(board.frame) == len([keys for keys in synthetic.cells() if keys["access"] != "transfer"])
    assert "access white-box but for controls" in board.facts
    assert any("control" in note for note in board.notes)
    for keys, cell in zip(board.index.to_dict("records"), board.frame["uar"], strict=True):
        expected = results.table[(results.table["metric"] == "uar")]
        for key in ("model", "defense", "attack", "params", "domain", "delivery", "labels", "access"):
            expected = expected[expected[key] == keys[key]]
        assert expected["status"].tolist() == [cell.status]
        if cell.status == "ok":
            assert expected["value"].tolist() == [cell.value]


def test_rows_are_clean_then_controls_then_attacks_by_growing_budget(results: Results) -> None:
    board = attacks(select(results, {"model": "cnn4", "defense": "none"}))
    ranks = [0 if a == "clean" else 1 if a == "noise" else 2 for a in board.frame["attack"]]
    assert ranks == sorted(ranks)
    assert ranks.count(0) == 1
    same = board.index[(board.index["attack"] == "fgsm") & (board.index["labels"] == "true")]
    assert same["epsilon"].tolist() == [0.02, 0.06, 0.1]


def test_attacks_are_named_with_the_parameters_that_differ(results: Results) -> None:
    names = set(attacks(results).frame["attack"])
    assert names == {"clean", "noise", "fgsm", "ifgsm (steps=3)", "ifgsm (steps=10)"}


def test_a_key_that_all_rows_share_is_a_fact(results: Results) -> None:
    board = attacks(select(results, {"attack": "fgsm", "model": "cnn4", "defense": "none", "labels": "true"}))
    assert {"model cnn4", "domain spectrogram", "labels true", "norm linf", "seed 0"} <= set(board.facts)
    assert [column.key for column in board.columns[:2]] == ["attack", "epsilon"]
    assert not board.sectioned


def test_a_metric_that_applies_to_no_row_is_a_note_with_its_reason(results: Results) -> None:
    board = attacks(results)
    assert "wer-change" not in board.frame
    assert any("ΔWER" in note and "no transcriber for 'xx'" in note for note in board.notes)
    assert not any("transfer" in note for note in board.notes)


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_has_the_notes_of_the_run(results: Results, name: str) -> None:
    assert set(results.notes) <= set(BOARDS[name](results).notes)


@pytest.mark.parametrize("name", ["attacks", "defenses", "models", "transfer"])
def test_each_seed_has_its_own_rows_and_sections(results: Results, name: str) -> None:
    twice = pd.concat([results.table, results.table.assign(seed=1)])
    board = BOARDS[name](Results(twice, no_examples(), results.run))
    assert len(board.frame) == 2 * len(BOARDS[name](results).frame)
    assert any("seed 0" in section for section in board.sections)
    assert any("seed 1" in section for section in board.sections)


def test_the_defenses_board_shows_each_configuration_and_marks_missing_and_failed_cells(results: Results) -> None:
    board = defenses(results)
    assert list(zip(board.index["model"], board.index["defense"], strict=True)) == synthetic.VICTIMS
    assert [cell.value for cell in board.frame["clean"]] == [
        value(results, model=model, defense=defense, attack="none") for model, defense in synthetic.VICTIMS
    ]
    missing = board.frame["spectrogram, fgsm, true labels, 0.1 z"]
    assert [cell.status for cell in missing] == ["ok", "ok", "ok", "missing"]
    failed = board.frame["spectrogram, fgsm, true labels, 0.06 z"]
    assert [cell.status for cell in failed] == ["ok", "failed", "ok", "failed"]


def test_the_best_is_marked_only_in_sections_with_all_figures() -> None:
    cells = [Cell(0.2, status="ok"), Cell(0.3, status="ok"), Cell(0.9, status="ok"), Cell(), Cell(0.7, status="ok")]
    column = Column("uar", ("UAR",), best="highest")
    board = Board(
        "b", "B", (column,), pd.DataFrame({"uar": cells}), pd.DataFrame(index=range(5)), ("x", "x", "y", "y", "z"),
        "", (), (),
    )  # fmt: skip
    assert best_rows(board, column) == {1}
    assert best_rows(board, Column("uar", ("UAR",), best="lowest")) == {0}
    assert best_rows(board, Column("uar", ("UAR",))) == frozenset()


def test_figures_within_the_interval_of_the_best_are_marked_with_it() -> None:
    cells = [Cell(value, 0.6, 0.78, status="ok") for value in (0.72, 0.70, 0.59)]
    column = Column("uar", ("UAR",), best="highest")
    board = Board(
        "b", "B", (column,), pd.DataFrame({"uar": cells}), pd.DataFrame(index=range(3)), ("",) * 3, "", (), ()
    )
    assert best_rows(board, column) == {0, 1}


def ranks_of(results: Results, among: str, **keys: object) -> pd.DataFrame:
    """Return the ranks by UAR of one kind with ``keys``."""
    ranks = results.ranks[(results.ranks["among"] == among) & (results.ranks["metric"] == "uar")]
    for key, wanted in keys.items():
        ranks = ranks[ranks[key] == wanted]
    return ranks


def test_defenses_that_tie_with_the_best_are_marked_and_ranks_are_shown(ranked: Results) -> None:
    board = defenses(ranked)
    column = next(column for column in board.columns if column.key.endswith("true labels, 0.001 FS"))
    where = {"attack": "ifgsm", "epsilon": 0.001}
    ranks = ranks_of(ranked, "model", **where).set_index(["model", "defense"])
    assert {1, 2} <= set(ranks["tie"])
    victims = list(zip(board.index["model"], board.index["defense"], strict=True))
    assert best_rows(board, column) == {row for row, victim in enumerate(victims) if ranks.loc[victim, "tie"] == 1}
    place = [shown.key for shown in board.columns].index(column.key)
    for row, victim in enumerate(victims):
        low, high = ranks.loc[victim, ["rank_low", "rank_high"]]
        assert sheet(board).body[row][place].text.endswith(f"({low})" if low == high else f"({low}–{high})")


def test_an_entry_that_lacks_a_cell_has_no_rank_and_a_footnote(ranked: Results) -> None:
    board = defenses(ranked)
    missing = board.frame["spectrogram, fgsm, true labels, 0.1 z"].tolist()[-1]
    assert (missing.status, missing.standing) == ("missing", None)
    assert missing.reason == "no rank: it lacks this cell"
    others = board.frame["spectrogram, fgsm, true labels, 0.1 z"].tolist()[:-1]
    assert all(cell.standing is not None for cell in others)


def test_attacks_with_the_same_place_and_budget_are_ranked(ranked: Results) -> None:
    board = attacks(ranked)
    column = next(column for column in board.columns if column.key == "uar")
    shown = board.index.assign(best=[row in best_rows(board, column) for row in range(len(board.index))])
    assert not shown.loc[shown["access"] == "blind", "best"].any()
    of_place = shown[(shown["epsilon"] == 0.06) & (shown["delivery"] == "features") & (shown["model"] == "cnn4")]
    best = of_place.loc[of_place["best"] & (of_place["defense"] == "none"), "attack"]
    assert set(best) == {"ifgsm"}
    assert "strongest attack" in sheet(board).best


def test_the_leaderboard_ranks_by_the_worst_case_and_shows_unranked_entries_last(ranked: Results) -> None:
    board = BOARDS["leaderboard"](ranked)
    for section in dict.fromkeys(board.sections):
        rows = [row for row, name in enumerate(board.sections) if name == section]
        ranks = [board.frame["rank"][row] for row in rows]
        numbers = [int(rank) for rank in ranks if rank != "–"]
        assert numbers == sorted(numbers)
        assert ranks == [*map(str, numbers), *["–"] * (len(ranks) - len(numbers))]
        assert board.frame["model"][rows[-2:]].tolist() == ["random", "majority"]
        for row in rows[:-2]:
            assert (ranks[rows.index(row)] == "–") == bool(board.frame["robust"][row].reason)
    unranked = ranks_of(ranked, "leaderboard", model="emodb-cnn", defense="vanilla", epsilon=0.1)
    assert unranked["reason"].item().startswith("no rank: it lacks fgsm")
    assert any("upper bound" in note for note in sheet(board).footnotes)


def test_the_leaderboard_of_results_without_ranks_has_a_note(results: Results) -> None:
    board = BOARDS["leaderboard"](results)
    assert board.frame.empty
    assert any("no ranks" in note for note in board.notes)


@pytest.mark.parametrize("name", BOARDS)
def test_chance_baselines_are_in_the_notes_of_every_board_and_on_the_leaderboard(
    results: Results, ranked: Results, name: str
) -> None:
    board = BOARDS[name](ranked)
    assert any("random UAR 0.333 [0.300, 0.400]" in note for note in board.notes)
    if name != "leaderboard":
        assert len(board.frame) == len(BOARDS[name](results).frame)


def test_figures_over_seeds_are_shown_with_their_spread(results: Results) -> None:
    twice = pd.concat([results.table, results.table.assign(seed=1)])
    pooled = results.table.drop(columns="seed").assign(spread=0.0123, seeds=2)
    both = Results(twice, no_examples(), results.run, pooled=pooled)
    board = defenses(both)
    assert len(board.frame) == len(synthetic.VICTIMS)
    assert "seed 0, 1 (mean)" in board.facts
    shown = sheet(board)
    assert shown.body[0][1].text.endswith(" ±0.012")
    assert any("standard deviation over seeds" in line for line in shown.legend)
    assert len(defenses(select(both, {"seed": "1"})).frame) == len(board.frame)
    assert "seed 1" in defenses(select(both, {"seed": "1"})).facts


def test_fewer_speakers_than_a_test_needs_are_reported(ranked: Results) -> None:
    few = replace(ranked, ranks=ranked.ranks.assign(speakers=4))
    assert any(note.startswith("With 4 speakers no test separates") for note in defenses(few).notes)
    assert not any("no test separates" in note for note in defenses(ranked).notes)


def test_the_models_board_names_the_attack_of_the_lowest_figure_of_each_place(results: Results) -> None:
    board = models(results)
    row = board.index[(board.index["model"] == "cnn4") & (board.index["defense"] == "none")].index[0]
    of_victim = results.table[
        (results.table["metric"] == "uar")
        & (results.table["model"] == "cnn4")
        & (results.table["defense"] == "none")
        & (results.table["domain"] == "waveform")
        & (results.table["attack"] != "none")
    ]
    worst = of_victim.loc[of_victim["value"].idxmin()]
    assert board.frame["lowest waveform UAR"][row].value == worst["value"]
    assert f"{worst['epsilon']:g} FS" in board.frame["lowest waveform by"][row]
    assert worst["attack"] in board.frame["lowest waveform by"][row]


def test_an_attack_with_different_access_to_its_victims_has_a_column_for_each_access(results: Results) -> None:
    table = results.table.copy()
    some = (table["attack"] == "ifgsm") & (table["model"] == "cnn4") & (table["access"] == "white-box")
    table.loc[some, "access"] = "scores"
    board = defenses(replace(results, table=table))
    titles = [column.title for column in board.columns]
    assert len({column.key for column in board.columns}) == len(titles)
    assert {"scores", "white-box"} <= {title[-1] for title in titles}


def test_a_single_model_has_a_row_for_each_defense(results: Results) -> None:
    board = models(select(results, {"model": "cnn4"}))
    assert board.frame["defense"].tolist() == ["none", "vanilla"]
    assert "model cnn4" in board.facts
    assert not board.sectioned


def test_the_lowest_of_incomplete_cells_is_called_an_upper_bound(results: Results) -> None:
    board = models(results)
    cells = {
        (model, defense): cell
        for model, defense, cell in zip(
            board.index["model"], board.index["defense"], board.frame["lowest spectrogram UAR"], strict=True
        )
    }
    assert cells["cnn4", "none"].reason == ""
    assert "upper bound" in cells["cnn4", "vanilla"].reason
    assert "upper bound" in cells["emodb-cnn", "vanilla"].reason


def test_transfer_is_a_matrix_with_the_white_box_attack_on_its_diagonal(results: Results) -> None:
    board = transfer(results)
    for position, (keys, section) in enumerate(zip(board.index.to_dict("records"), board.sections, strict=True)):
        metric = keys["metric"]
        assert results.metric(metric).title in section
        for model, defense in synthetic.VICTIMS:
            cell = board.frame[f"on {model} {defense}"][position]
            victim = {"model": model, "defense": defense, "epsilon": 0.001, "attack": "ifgsm"}
            clean = {"model": model, "defense": defense, "attack": "none"}
            source = (keys["source_model"], keys["source_defense"])
            if source == ("", ""):
                assert cell.value == value(results, **clean)
            elif source in ((model, defense), ("noise", "")):
                alone = victim | {"attack": "noise" if source[1] == "" else "ifgsm"}
                alone["access"] = "blind" if source[1] == "" else "white-box"
                if metric == "uar":
                    assert cell.value == value(results, **alone)
                else:
                    success, accuracy = value(results, "attack-success", **alone), value(results, "accuracy", **clean)
                    assert cell.value == success / accuracy
                    assert "correctly when clean" in cell.reason
            else:
                crafted = {"source_model": source[0], "source_defense": source[1]}
                assert cell.value == value(results, metric, **victim, **crafted, access="transfer")
    assert len(board.frame) == 1 + 4 + 1 + 1 + 4


def transferred(results: Results, victims: list[tuple[str, str]], **keys: object) -> pd.DataFrame:
    """Return the transferred cells of one source with other keys, as if of a different attack or source."""
    table = results.table[(results.table["access"] == "transfer") & (results.table["source_model"] == "cnn4")]
    table = table[table["source_defense"] == "none"].assign(**keys)
    return table[[victim in victims for victim in zip(table["model"], table["defense"], strict=True)]]


@pytest.mark.parametrize(
    ("defenses", "name"), [("none + none", "cnn4 + vgg16 · none"), ("none + vanilla", "cnn4 + vgg16 · none + vanilla")]
)
def test_an_ensemble_has_a_line_without_a_diagonal(results: Results, defenses: str, name: str) -> None:
    victims = [("emodb-cnn", "none"), ("emodb-cnn", "vanilla")]
    further = transferred(results, victims, source_model="cnn4 + vgg16", source_defense=defenses)
    board = transfer(Results(pd.concat([results.table, further]), no_examples(), results.run))
    lines = board.frame[board.index["source_model"] == "cnn4 + vgg16"]
    assert lines["source"].tolist() == [name, name]
    assert len(board.frame) == len(transfer(results).frame) + 2
    for (_, line), metric in zip(lines.iterrows(), ("transfer-rate", "uar"), strict=True):
        for model, defense in synthetic.VICTIMS:
            cell = line[f"on {model} {defense}"]
            judged = (model, defense) in victims
            assert cell.status == ("ok" if judged else "missing")
            if judged:
                where = {"model": model, "defense": defense, "access": "transfer"}
                assert cell.value == value(results, metric, **where, source_model="cnn4", source_defense="none")


def test_a_source_that_nothing_was_judged_on_has_a_line(results: Results) -> None:
    board = transfer(select(results, {"model": "emodb-cnn"}))
    assert {"cnn4 · none", "cnn4 · vanilla", "emodb-cnn · none"} <= set(board.frame["source"])


@pytest.mark.parametrize("source", [{"source_model": "", "source_defense": ""}, {}], ids=["several", "single"])
@pytest.mark.parametrize("part", ["", "fair"])
def test_a_worst_case_over_several_attacks_is_not_on_the_transfer_board(
    results: Results, source: dict[str, str], part: str
) -> None:
    worst = transferred(results, [("emodb-cnn", "none")], attack="worst-case", params="{}", **source)
    declared: dict[str, object] = {"worst": [{"name": "worst-case"}], "part": part}
    suite = {**results.run["suite"], "parts": {part: declared}} if part else {**results.run["suite"], **declared}
    table = pd.concat([results.table, worst]).assign(part=part)
    board = transfer(Results(table, no_examples(), {**results.run, "suite": suite}))
    assert "worst-case" not in set(board.index["attack"])
    assert board.frame["source"].tolist() == transfer(results).frame["source"].tolist()


def test_boards_without_rows(results: Results) -> None:
    assert transfer(select(results, {"access": "blind"})).frame.empty


@pytest.mark.parametrize("params", ["[1]", "not JSON"])
def test_params_must_be_a_mapping(results: Results, params: str) -> None:
    clean = select(results, {"attack": "none"})
    broken = Results(clean.table.assign(params=params), no_examples(), results.run)
    with pytest.raises(InputError, match=r"params of none: got .*, expected a JSON mapping"):
        rows(broken)


def test_a_metric_of_unknown_title_is_shown_under_its_name(results: Results) -> None:
    run = {key: entry for key, entry in results.run.items() if key != "metrics"}
    titles = {column.title for column in attacks(Results(results.table, no_examples(), run)).columns}
    assert ("pesq",) in titles


def test_panels_repeat_the_texts_and_have_every_column() -> None:
    assert panels([10, 4, 4, 4, 4], texts=1, limit=22, gap=2) == [[0, 1, 2], [0, 3, 4]]
    assert panels([10, 40], texts=1, limit=22, gap=2) == [[0, 1]]
    assert panels([10], texts=1, limit=5, gap=2) == [[0]]


def test_a_negative_zero_has_no_sign() -> None:
    cells = [Cell(-0.0001, status="ok"), Cell(-0.25, status="ok"), Cell(0.0, status="ok")]
    column = Column("d", ("d",), decimals=2)
    board = Board("b", "B", (column,), pd.DataFrame({"d": cells}), pd.DataFrame(index=range(3)), ("",) * 3, "", (), ())
    assert [row[0].text for row in sheet(board).body] == ["0.00", "−0.25", "0.00"]


@pytest.mark.parametrize(
    ("epsilon", "unit", "text"),
    [
        (None, "", ""),
        (0.06, "z", "0.06 z"),
        (0.001, "full-scale", "0.001 FS"),
        (0.01, "clip", "0.01 of the clip (40 dB)"),
        (0.0, "clip", "0 of the clip"),
    ],
)
def test_a_budget_is_shown_with_its_unit(epsilon: float | None, unit: str, text: str) -> None:
    assert epsilon_text(epsilon, unit) == text


def flagged(results: Results) -> Results:
    """Return the same results with a flag on one trained model."""
    where = {"part": "", "seed": 0, "model": "cnn4", "defense": "none"}
    audit = {
        "checks": {"first-thing": "The first.", "second-thing": "The second."},
        "flags": [{"check": "second-thing", "where": where, "detail": "3 of 4"}],
    }
    return replace(results, run={**results.run, "audit": audit})


def test_on_the_leaderboard_a_flag_of_an_attack_is_in_its_place_alone(ranked: Results) -> None:
    row = ranked.table[(ranked.table["attack"] == "fgsm") & (ranked.table["domain"] == "spectrogram")].iloc[0]
    where = {key: row[key] for key in ("model", "defense", "attack", "domain", "delivery", "epsilon")}
    flag = {"check": "weak", "where": where, "detail": "weak"}
    audit = {"checks": {"weak": "Weak."}, "flags": [flag]}
    board = BOARDS["leaderboard"](replace(ranked, run={**ranked.run, "audit": audit}))
    index = board.index.assign(flags=board.frame["flags"].to_numpy())
    with_flag = index[index["flags"] == "A"]
    assert len(with_flag)
    assert {*with_flag["domain"]} == {"spectrogram"}
    assert {*with_flag["delivery"]} == {where["delivery"]}
    assert (with_flag["epsilon"] >= where["epsilon"]).all()


def test_unequal_numbers_of_attacks_are_reported(ranked: Results) -> None:
    fewer = ranked.ranks.assign(attacks=ranked.ranks["attacks"].where(ranked.ranks["model"] != "cnn4", 0))
    noted = [UNEQUAL in BOARDS["leaderboard"](replace(ranked, ranks=ranks)).notes for ranks in (ranked.ranks, fewer)]
    assert noted == [False, True]


@pytest.mark.parametrize("name", ["attacks", "defenses", "models", "leaderboard"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_flag_is_on_the_lines_of_its_model_alone(results: Results, ranked: Results, name: str, seeds: int) -> None:
    with_flag = flagged(ranked)
    if seeds == 2:
        pooled = results.table.drop(columns="seed").assign(spread=0.0123, seeds=2)
        with_flag = replace(with_flag, table=pd.concat([results.table, results.table.assign(seed=1)]), pooled=pooled)
    board = BOARDS[name](with_flag)
    index = board.index.assign(flags=board.frame["flags"].to_numpy())
    culprit = (index["model"] == "cnn4") & (index["defense"] == "none")
    assert set(index[culprit]["flags"]) == {"B"}
    assert set(index[~culprit]["flags"]) == {""}
    assert "Flag B: the second." in board.notes
    assert not any("the first" in note for note in board.notes)


def test_the_audit_board_shows_each_flag_with_its_detail_and_model(results: Results) -> None:
    board = BOARDS["audit"](flagged(results))
    assert board.frame.values.tolist() == [["B", "second thing", "cnn4, defense none", "3 of 4"]]
    assert any("not audited" in note for note in BOARDS["audit"](results).notes)


def test_the_audit_board_shows_skipped_checks_and_flags_of_the_whole_run(results: Results) -> None:
    names = ("first-thing", "second-thing", "third-thing")
    audit = {
        "checks": {name: f"The {name.partition('-')[0]}." for name in names},
        "needs": dict.fromkeys(names, "two of a kind"),
        "looked_at": {"first-thing": 1, "second-thing": 0, "third-thing": 4},
        "flags": [{"check": "first-thing", "where": {}, "detail": "the check itself failed"}],
    }
    board = BOARDS["audit"](replace(results, run={**results.run, "audit": audit}))
    assert board.frame.values.tolist() == [["A", "first thing", "the whole run", "the check itself failed"]]
    assert "1 further check raised no flag." in board.notes
    assert "Check skipped, second thing: this run has no case of it; it needs two of a kind." in board.notes
