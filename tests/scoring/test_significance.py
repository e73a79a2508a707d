"""Ranks, tie groups and the sign-flip test, on entries whose true figures are known."""

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
    """The sums (1, S, 2) of an entry with so many correct clips of each speaker."""
    right = np.asarray(rights, np.float64)
    return np.stack([right, np.full_like(right, clips)], axis=-1)[None]


def ranked(*entries: npt.NDArray[np.float64], lowest: bool = False) -> list[Standing]:
    return standings(Accuracy(), entries, DRAWS, 0, lowest=lowest)


def p_of(metric: Metric, first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """p of the sign-flip test of two entries alone."""
    flips = sign_flips(first.shape[1], DRAWS, 0)
    return float(adjusted(swapped_differences(metric, first, second, flips)[None])[0])


rights = st.lists(st.integers(0, CLIPS), min_size=7, max_size=7)


@given(right=rights, number=st.integers(2, 5))
def test_identical_entries_tie_and_may_have_any_rank(right: list[int], number: int) -> None:
    for standing in ranked(*[accuracies(right)] * number):
        assert (standing.rank, standing.rank_low, standing.rank_high, standing.tie) == (1, 1, number, 1)
        assert (standing.difference, standing.p) == (0, 1)


@settings(max_examples=30)
@given(entries=st.lists(rights, min_size=2, max_size=5), data=st.data())
def test_the_order_of_the_entries_does_not_matter(entries: list[list[int]], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(entries))))
    given_first = ranked(*map(accuracies, entries))
    shuffled = ranked(*(accuracies(entries[index]) for index in order))
    for index, standing in zip(order, shuffled, strict=True):
        # As text, since a missing spread (NaN) differs from itself.
        assert repr(standing) == repr(given_first[index])


@given(behind=st.lists(st.integers(0, CLIPS - 8), min_size=FEWEST, max_size=9), data=st.data())
def test_an_entry_far_better_on_every_speaker_never_ties(behind: list[int], data: st.DataObject) -> None:
    ahead = [right + data.draw(st.integers(5, 8)) for right in behind]
    better, worse = ranked(accuracies(ahead), accuracies(behind))
    assert (better.tie, worse.tie) == (1, 2)
    assert (better.rank_low, better.rank_high, worse.rank_low, worse.rank_high) == (1, 1, 2, 2)
    assert worse.difference_low <= worse.difference <= worse.difference_high < 0
    strongest, _ = ranked(accuracies(behind), accuracies(ahead), lowest=True)
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
    all_standings = ranked(*map(accuracies, entries))
    assert min(standing.rank for standing in all_standings) == 1
    ties = {standing.tie for standing in all_standings}
    assert ties == set(range(1, max(ties) + 1))
    for standing in all_standings:
        assert 1 <= standing.rank_low <= standing.rank_high <= len(entries)
        assert 0 < standing.p <= 1
        assert (standing.difference == 0) == (standing.rank == 1)
    for first, second in itertools.permutations(all_standings, 2):
        assert (first.rank < second.rank) == (first.figure.value > second.figure.value)


def test_a_tie_group_has_the_entries_that_are_not_separated_from_its_head() -> None:
    rng = np.random.default_rng(0)
    means = (16.0, 16.0, 9.0, 9.0, 2.0)
    groups = ranked(*(accuracies(rng.normal(mean, 0.5, size=10).round()) for mean in means))
    assert [standing.tie for standing in groups] == [1, 1, 2, 2, 3]
    assert [(standing.rank_low, standing.rank_high) for standing in groups[2:]] == [(3, 4), (3, 4), (5, 5)]


@given(first=st.lists(st.booleans(), min_size=1, max_size=EXACT), data=st.data())
def test_with_one_clip_per_speaker_it_is_the_exact_test_of_mcnemar(first: list[bool], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.booleans(), min_size=len(first), max_size=len(first)))
    gained = sum(a and not b for a, b in zip(first, second, strict=True))
    discordant = sum(a != b for a, b in zip(first, second, strict=True))
    expected = binomtest(gained, discordant).pvalue if discordant else 1.0
    p = p_of(Accuracy(), accuracies(first, 1), accuracies(second, 1))
    assert p == pytest.approx(expected)


def uar_sums(right: npt.NDArray[np.bool_], label: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The sums (1, S, 2C) of an entry that is ``right`` (S, clips) on clips of these labels."""
    member = (label[..., None] == np.arange(CLASSES)).astype(np.float64)
    return np.concatenate([(member * right[..., None]).sum(1), member.sum(1)], axis=-1)[None]


def null(rng: np.random.Generator, speakers: int) -> list[npt.NDArray[np.float64]]:
    """Two entries that are alike; some clips, and some speakers, are hard for both."""
    label = rng.integers(CLASSES, size=(speakers, 12))
    hard = rng.uniform(0.2, 0.9, size=(speakers, 1)) + rng.normal(0, 0.1, size=(speakers, 12))
    # A shift per speaker, equally likely to favour either entry: clips of a speaker are not independent.
    shift = rng.normal(0, 0.15, size=(speakers, 1))
    return [uar_sums(rng.uniform(size=hard.shape) < hard + sign * shift, label) for sign in (1, -1)]


@pytest.mark.parametrize("speakers", [FEWEST, 10, EXACT + 2])
def test_the_test_has_its_nominal_level(speakers: int) -> None:
    rng = np.random.default_rng(speakers)
    p = np.array([p_of(UAR(), *null(rng, speakers)) for _ in range(600)])
    # At most three standard errors above the level, and not far below it where the values of p are dense.
    for level in (0.05, 0.2):
        assert (p <= level).mean() < level + 3 * np.sqrt(level * (1 - level) / len(p))
    assert (p <= 0.2).mean() > 0.12


@pytest.mark.parametrize("speakers", [FEWEST, 10])
def test_a_board_seldom_separates_any_of_many_like_entries(speakers: int) -> None:
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


def test_the_interval_of_a_rank_excludes_separated_entries() -> None:
    rng = np.random.default_rng(1)
    means = (16.0, 15.5, 9.0, 2.0, 2.2)
    all_standings = ranked(*(accuracies(rng.normal(mean, 0.7, size=8).round().clip(0, CLIPS)) for mean in means))
    for standing in all_standings:
        better = [other for other in all_standings if other.rank_high < standing.rank_low]
        assert standing.rank_low >= len(better) + 1
        assert (standing.rank_low == 1) == (standing.tie == 1)


def test_seeds_are_averaged_and_their_spread_is_reported() -> None:
    seeds = np.concatenate([accuracies([10, 12, 14]), accuracies([12, 14, 16])])
    two_seeds = pooled(Accuracy(), seeds, DRAWS, 0)
    assert two_seeds.value == pytest.approx(13 / CLIPS)
    assert two_seeds.spread == pytest.approx(np.std([12 / CLIPS, 14 / CLIPS], ddof=1))
    alone = pooled(Accuracy(), seeds[:1], DRAWS, 0)
    assert np.isnan(alone.spread)
    # The second seed differs by a constant: the interval of both is that of the first, shifted by half of it.
    assert (two_seeds.low, two_seeds.high) == pytest.approx((alone.low + 1 / CLIPS, alone.high + 1 / CLIPS))
    assert np.isnan(pooled(Accuracy(), accuracies([10]), DRAWS, 0).low)


def test_ranks_exist_although_some_draws_lack_a_class() -> None:
    label = np.array([[0, 0], [1, 1], [0, 1]])
    entries = [uar_sums(np.full((3, 2), right), label) for right in (True, False)]
    assert [standing.rank for standing in standings(UAR(), entries, DRAWS, 0)] == [1, 2]
