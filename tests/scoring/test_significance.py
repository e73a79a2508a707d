"""Ranks, tie groups and the sign-flip test: what they say of entries of which the truth is known."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from advser.metrics.base import Metric
from advser.metrics.recognition import UAR, Accuracy
from advser.results.schema import FEWEST
from advser.scoring.significance import EXACT, Standing, adjusted, pooled, sign_flips, standings, swapped_differences

DRAWS = 200
CLIPS = 20
CLASSES = 4


def accuracies(rights: npt.ArrayLike, clips: int = CLIPS) -> npt.NDArray[np.float64]:
    """The sums (1, S, 2) of an entry that reads so many of each speaker's clips rightly."""
    right = np.asarray(rights, np.float64)
    return np.stack([right, np.full_like(right, clips)], axis=-1)[None]


def ranked(*entries: npt.NDArray[np.float64], lowest: bool = False) -> list[Standing]:
    return standings(Accuracy(), entries, DRAWS, 0, lowest=lowest)


def p_of(metric: Metric, one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """p of the sign-flip test of two entries alone."""
    flips = sign_flips(one.shape[1], DRAWS, 0)
    return float(adjusted(swapped_differences(metric, one, other, flips)[None])[0])


rights = st.lists(st.integers(0, CLIPS), min_size=7, max_size=7)


@given(one=rights, number=st.integers(2, 5))
def test_identical_entries_tie_and_may_have_any_rank(one: list[int], number: int) -> None:
    for standing in ranked(*[accuracies(one)] * number):
        assert (standing.rank, standing.rank_low, standing.rank_high, standing.tie) == (1, 1, number, 1)
        assert (standing.difference, standing.p) == (0, 1)


@settings(max_examples=30)
@given(entries=st.lists(rights, min_size=2, max_size=5), data=st.data())
def test_the_order_of_the_entries_does_not_matter(entries: list[list[int]], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(entries))))
    given_first = ranked(*map(accuracies, entries))
    shuffled = ranked(*(accuracies(entries[place]) for place in order))
    for place, standing in zip(order, shuffled, strict=True):
        # As text, for a spread that is not there (NaN) differs from itself.
        assert repr(standing) == repr(given_first[place])


@given(one=st.lists(st.integers(0, CLIPS - 8), min_size=FEWEST, max_size=9), data=st.data())
def test_what_is_better_by_far_with_every_speaker_never_ties(one: list[int], data: st.DataObject) -> None:
    ahead = [right + data.draw(st.integers(5, 8)) for right in one]
    better, worse = ranked(accuracies(ahead), accuracies(one))
    assert (better.tie, worse.tie) == (1, 2)
    assert (better.rank_low, better.rank_high, worse.rank_low, worse.rank_high) == (1, 1, 2, 2)
    assert worse.difference_low <= worse.difference <= worse.difference_high < 0
    strongest, _ = ranked(accuracies(one), accuracies(ahead), lowest=True)
    assert (strongest.rank, strongest.tie) == (1, 1)


@pytest.mark.parametrize("speakers", range(1, FEWEST))
def test_few_speakers_separate_nothing(speakers: int) -> None:
    best, other = ranked(accuracies([CLIPS] * speakers), accuracies([0] * speakers))
    assert best.tie == other.tie == 1
    assert other.p == 2 / 2**speakers > 0.05
    assert (best.rank_low, best.rank_high) == (other.rank_low, other.rank_high) == (1, 2)


@settings(max_examples=50)
@given(entries=st.lists(rights, min_size=1, max_size=6))
def test_standings_agree_with_each_other(entries: list[list[int]]) -> None:
    found = ranked(*map(accuracies, entries))
    assert min(standing.rank for standing in found) == 1
    assert {standing.tie for standing in found} == set(range(1, max(standing.tie for standing in found) + 1))
    for standing in found:
        assert 1 <= standing.rank_low <= standing.rank_high <= len(entries)
        assert 0 < standing.p <= 1
        assert (standing.difference == 0) == (standing.rank == 1)
    for one, other in itertools.permutations(found, 2):
        assert (one.rank < other.rank) == (one.figure.value > other.figure.value)


def test_a_group_is_what_its_head_is_not_separated_from() -> None:
    rng = np.random.default_rng(0)
    means = (16.0, 16.0, 9.0, 9.0, 2.0)
    found = ranked(*(accuracies(rng.normal(mean, 0.5, size=10).round()) for mean in means))
    assert [standing.tie for standing in found] == [1, 1, 2, 2, 3]
    assert [(standing.rank_low, standing.rank_high) for standing in found[2:]] == [(3, 4), (3, 4), (5, 5)]


@given(one=st.lists(st.booleans(), min_size=1, max_size=EXACT), data=st.data())
def test_with_a_clip_a_speaker_it_is_the_exact_test_of_mcnemar(one: list[bool], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.booleans(), min_size=len(one), max_size=len(one)))
    gained = sum(a and not b for a, b in zip(one, other, strict=True))
    discordant = sum(a != b for a, b in zip(one, other, strict=True))
    expected = binomtest(gained, discordant).pvalue if discordant else 1.0
    p = p_of(Accuracy(), accuracies(one, 1), accuracies(other, 1))
    assert p == pytest.approx(expected)


def uar_sums(right: npt.NDArray[np.bool_], label: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The sums (1, S, 2C) of an entry that reads some clips (S, clips) of these labels rightly."""
    member = (label[..., None] == np.arange(CLASSES)).astype(np.float64)
    return np.concatenate([(member * right[..., None]).sum(1), member.sum(1)], axis=-1)[None]


def null(rng: np.random.Generator, speakers: int) -> list[npt.NDArray[np.float64]]:
    """Two entries that are alike, on clips some of which, and some of whose speakers, are hard for both."""
    label = rng.integers(CLASSES, size=(speakers, 12))
    hard = rng.uniform(0.2, 0.9, size=(speakers, 1)) + rng.normal(0, 0.1, size=(speakers, 12))
    # A shift with the speaker that is as likely to favour the one as the other: clips are not independent.
    shift = rng.normal(0, 0.15, size=(speakers, 1))
    return [uar_sums(rng.uniform(size=hard.shape) < hard + sign * shift, label) for sign in (1, -1)]


@pytest.mark.parametrize("speakers", [FEWEST, 10, EXACT + 2])
def test_the_test_has_the_level_that_it_states(speakers: int) -> None:
    rng = np.random.default_rng(speakers)
    p = np.array([p_of(UAR(), *null(rng, speakers)) for _ in range(600)])
    # Three standard errors above the level, and not far below where the possible values of p are dense.
    for level in (0.05, 0.2):
        assert (p <= level).mean() < level + 3 * np.sqrt(level * (1 - level) / len(p))
    assert (p <= 0.2).mean() > 0.12


@pytest.mark.parametrize("speakers", [FEWEST, 10])
def test_of_many_like_entries_a_board_seldom_separates_any(speakers: int) -> None:
    rng = np.random.default_rng(speakers)
    boards = 100
    separated = 0
    for _ in range(boards):
        entries = [entry for _ in range(6) for entry in null(rng, speakers)]
        separated += max(standing.tie for standing in standings(UAR(), entries, DRAWS, 0)) > 1
    assert binomtest(separated, boards, 0.05, alternative="greater").pvalue > 0.001


def test_adjusted_p_are_those_of_the_step_down_procedure() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(4, 50))
    differences[:, 0] = (3.5, -0.1, 1.5, -2.0)
    sizes = np.abs(differences)
    expected, least = {}, 0.0
    left = [0, 3, 2, 1]
    while left:
        least = max(least, float((sizes[left].max(axis=0) >= sizes[left[0], 0]).mean()))
        expected[left.pop(0)] = least
    assert adjusted(differences) == pytest.approx([expected[pair] for pair in range(4)])


def test_a_rank_reaches_as_far_as_nothing_is_separated() -> None:
    rng = np.random.default_rng(1)
    means = (16.0, 15.5, 9.0, 2.0, 2.2)
    found = ranked(*(accuracies(rng.normal(mean, 0.7, size=8).round().clip(0, CLIPS)) for mean in means))
    for one in found:
        better = [other for other in found if other.rank_high < one.rank_low]
        assert one.rank_low >= len(better) + 1
        assert (one.rank_low == 1) == (one.tie == 1)


def test_seeds_are_averaged_and_their_spread_is_told() -> None:
    seeds = np.concatenate([accuracies([10, 12, 14]), accuracies([12, 14, 16])])
    found = pooled(Accuracy(), seeds, DRAWS, 0)
    assert found.value == pytest.approx(13 / CLIPS)
    assert found.spread == pytest.approx(np.std([12 / CLIPS, 14 / CLIPS], ddof=1))
    alone = pooled(Accuracy(), seeds[:1], DRAWS, 0)
    assert np.isnan(alone.spread)
    # The second seed differs by a constant, so that its interval is that of the first, moved by half of it.
    assert (found.low, found.high) == pytest.approx((alone.low + 1 / CLIPS, alone.high + 1 / CLIPS))
    assert np.isnan(pooled(Accuracy(), accuracies([10]), DRAWS, 0).low)


def test_a_class_that_a_draw_lacks_undoes_no_rank() -> None:
    label = np.array([[0, 0], [1, 1], [0, 1]])
    entries = [uar_sums(np.full((3, 2), right), label) for right in (True, False)]
    assert [standing.rank for standing in standings(UAR(), entries, DRAWS, 0)] == [1, 2]
