"""Bootstrap over speakers: figures, intervals, failed clips."""

from __future__ import annotations

import jiwer
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score

from advser.errors import ContractError
from advser.metrics.normalisation import normalise
from advser.metrics.recognition import UAR, Accuracy
from advser.metrics.transcription import CER, WER, count_errors
from advser.scoring.bootstrap import Interval, bootstrap, speaker_draws

CLASSES = 4
clips = st.lists(
    st.tuples(st.sampled_from("abcde"), st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)),
    min_size=1,
    max_size=40,
)
phrases = st.lists(st.sampled_from(["der", "lappen", "liegt", "auf", "dem"]), min_size=1, max_size=6).map(" ".join)


def table(rows: list[tuple[str, int, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["speaker", "label", "prediction"])


def figure(metric: UAR | Accuracy, examples: pd.DataFrame, draws: int = 200, seed: int = 0) -> Interval:
    statistics = metric.statistics(examples, CLASSES)
    return bootstrap(metric, statistics, examples["speaker"].to_numpy(), draws, seed)


@pytest.mark.parametrize("metric", [UAR(), Accuracy()], ids=["uar", "accuracy"])
@given(rows=clips)
def test_interval_is_ordered_within_range_and_value_is_that_of_all_clips(metric, rows):
    examples = table(rows)
    interval = figure(metric, examples)
    assert interval.value == pytest.approx(float(metric.combine(metric.statistics(examples, CLASSES).sum(0))))
    assert (interval.n, interval.n_failed) == (len(rows), 0)
    if len({speaker for speaker, _, _ in rows}) < 2:
        assert np.isnan(interval.low)
        assert np.isnan(interval.high)
    else:
        assert 0 <= interval.low <= interval.high <= 1


@given(rows=clips, data=st.data())
def test_order_of_clips_does_not_matter(rows, data):
    shuffled = data.draw(st.permutations(rows))
    first, second = figure(UAR(), table(rows)), figure(UAR(), table(shuffled))
    assert np.array_equal([first.value, first.low, first.high], [second.value, second.low, second.high], equal_nan=True)


@given(rows=clips)
def test_agrees_with_scikit_learn(rows):
    # A further speaker misclassifies each class once, so that both define all recalls.
    rows = rows + [("z", label, (label + 1) % CLASSES) for label in range(CLASSES)]
    examples = table(rows)
    label, prediction = examples["label"], examples["prediction"]
    expected = recall_score(label, prediction, labels=range(CLASSES), average="macro")
    assert figure(UAR(), examples).value == pytest.approx(expected)
    assert figure(Accuracy(), examples).value == pytest.approx(accuracy_score(label, prediction))


def test_uar_leaves_out_an_absent_class():
    examples = table([("a", 0, 0), ("b", 1, 0)])
    assert figure(UAR(), examples).value == pytest.approx(0.5)


@settings(max_examples=30)
@given(references=st.lists(phrases, min_size=1, max_size=8), data=st.data())
def test_error_rates_agree_with_jiwer_over_the_corpus(references, data):
    transcripts = [data.draw(st.one_of(phrases, st.just(""))) for _ in references]
    examples = pd.DataFrame([vars(count_errors(*pair, "de")) for pair in zip(references, transcripts, strict=True)])
    speakers = np.arange(len(references))
    word = bootstrap(WER(), WER().statistics(examples, 0), speakers, 10, 0)
    char = bootstrap(CER(), CER().statistics(examples, 0), speakers, 10, 0)
    assert word.value == pytest.approx(jiwer.wer(references, transcripts))
    assert char.value == pytest.approx(jiwer.cer(references, [normalise(text, "de") for text in transcripts]))


def test_equals_a_bootstrap_written_as_a_loop():
    random = np.random.default_rng(7)
    examples = table(
        [("abcdef"[random.integers(6)], random.integers(CLASSES), random.integers(CLASSES)) for _ in range(150)]
    )
    names = sorted(examples["speaker"].unique())
    figures = []
    for counts in speaker_draws(len(names), 300, seed=3):
        assert counts.sum() == len(names)
        drawn = pd.concat(
            [
                examples[examples["speaker"] == name]
                for name, n in zip(names, counts, strict=True)
                for _ in range(int(n))
            ]
        )
        present = [drawn[drawn["label"] == label] for label in sorted(drawn["label"].unique())]
        figures.append(np.mean([(clips["label"] == clips["prediction"]).mean() for clips in present]))
    interval = figure(UAR(), examples, draws=300, seed=3)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(figures, [0.025, 0.975])))


def test_the_interval_depends_on_the_seed_alone():
    random = np.random.default_rng(1)
    examples = table([("abcdefgh"[i % 8], random.integers(CLASSES), random.integers(CLASSES)) for i in range(80)])
    assert figure(UAR(), examples, seed=5) == figure(UAR(), examples, seed=5)
    assert figure(UAR(), examples, seed=5) != figure(UAR(), examples, seed=6)


def test_failed_clips_are_counted_and_change_no_figure():
    rows = [("a", 0, 0), ("a", 1, 0), ("b", 1, 1), ("c", 2, 2)]
    measured = figure(UAR(), table(rows))
    partly = figure(UAR(), table([*rows, ("d", 3, -1)]))
    assert (partly.n, partly.n_failed) == (4, 1)
    assert (partly.value, partly.low, partly.high) == (measured.value, measured.low, measured.high)


def test_nothing_measured_has_no_value():
    interval = figure(UAR(), table([("a", 0, -1), ("b", 1, -1)]))
    assert (interval.n, interval.n_failed) == (0, 2)
    assert np.isnan([interval.value, interval.low, interval.high]).all()


def test_interval_covers_speakers_that_differ():
    # Half of the speakers are always right, half always wrong: a bootstrap over clips would be far too narrow.
    rows = [(speaker, 0, 0 if speaker in "ace" else 1) for speaker in "abcdef" for _ in range(100)]
    interval = figure(Accuracy(), table(rows), draws=2000)
    assert interval.value == pytest.approx(0.5)
    assert interval.low < 0.25
    assert interval.high > 0.75


def test_clips_that_do_not_count_are_not_among_the_n_of_a_ratio():
    # Misled, robust, not counted, failed.
    statistics = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [np.nan, np.nan]])
    interval = bootstrap(Accuracy(), statistics, np.array(list("abcd")), 50, 0)
    assert (interval.value, interval.n, interval.n_failed) == (0.5, 2, 1)
    empty = bootstrap(Accuracy(), statistics[2:3], np.array(["c"]), 50, 0)
    assert np.isnan(empty.value)
    assert (empty.n, empty.n_failed) == (0, 0)


class ScalarFigure(Accuracy):
    """Returns a single figure for all draws."""

    def combine(self, sums):
        return np.asarray(0.5)


def test_combine_must_return_a_figure_for_each_draw():
    with pytest.raises(ContractError, match=r"combine returned the shape \(\), expected \(20,\)"):
        bootstrap(ScalarFigure(), np.ones((2, 2)), np.array(["a", "b"]), 20, 0)
