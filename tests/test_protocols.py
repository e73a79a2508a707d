"""Split protocols: who trains, validates and tests, and what is refused."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advser.corpora.protocols import Fold, assert_disjoint, folds, speaker_independent
from advser.errors import InputError

PAIRS = (("a", "v"), ("b", "w"), ("c", "x"), ("d", "y"), ("e", "z"))


def corpus(speakers, classes=3, repeats=2):
    rows = [
        {"speaker": who, "gender": "m" if who < "n" else "f", "target": target}
        for _ in range(repeats)
        for who in speakers
        for target in range(classes)
    ]
    return pd.DataFrame(rows)


def speakers_tested(frame, fold):
    return set(frame["speaker"].iloc[list(fold.test)])


def test_pairs_of_the_corpus_are_tested_in_their_order():
    frame = corpus("abcdevwxyz")
    made = folds("5pair", frame, PAIRS)
    assert [fold.name for fold in made] == ["fold1", "fold2", "fold3", "fold4", "fold5"]
    assert [speakers_tested(frame, fold) for fold in made] == [set(pair) for pair in PAIRS]


def test_pairs_are_dealt_to_fewer_folds():
    frame = corpus("abcdevwxyz")
    assert [speakers_tested(frame, fold) for fold in folds("3pair", frame, PAIRS)] == [
        set("avdy"),
        set("bwez"),
        set("cx"),
    ]


def test_pairs_are_made_from_genders_where_the_corpus_names_none():
    frame = corpus("cxbwav")
    assert [speakers_tested(frame, fold) for fold in folds("3pair", frame)] == [set("av"), set("bw"), set("cx")]


def test_loso_leaves_out_each_speaker():
    frame = corpus("bca")
    assert [(fold.name, speakers_tested(frame, fold)) for fold in folds("loso", frame)] == [
        (who, {who}) for who in "abc"
    ]


@given(
    st.lists(st.sampled_from("abcvwx"), min_size=1).map(lambda extra: [*"abcvwx", *extra]),
    st.sampled_from(["3pair", "loso"]),
)
def test_independent_folds_part_rows_and_speakers_and_validate_on_the_next_test(speakers, protocol):
    frame = corpus(speakers)
    made = folds(protocol, frame)
    for fold, following in zip(made, [*made[1:], made[0]], strict=True):
        assert sorted(fold.train + fold.validation + fold.test) == list(range(len(frame)))
        assert fold.validation == following.test
        who = [set(frame["speaker"].iloc[list(part)]) for part in (fold.train, fold.validation, fold.test)]
        assert sum(len(part) for part in who) == len(set().union(*who))
        assert all(who)
    assert sorted(row for fold in made for row in fold.test) == list(range(len(frame)))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(3, 30), min_size=2, max_size=5))
def test_random_is_stratified_and_seeded(seed, counts):
    frame = pd.DataFrame({"speaker": "", "gender": "", "target": [t for t, n in enumerate(counts) for _ in range(n)]})
    (fold,) = folds("random", frame, seed=seed)
    assert fold == folds("random", frame, seed=seed)[0]
    assert sorted(fold.train + fold.validation + fold.test) == list(range(len(frame)))
    for target, count in enumerate(counts):
        for part, share in ((fold.train, 0.6), (fold.validation, 0.2), (fold.test, 0.2)):
            held = sum(frame["target"].iloc[list(part)] == target)
            assert held >= 1
            assert abs(held - share * count) <= 1


def test_random_depends_on_the_seed():
    frame = corpus("abcdef", repeats=5)
    assert folds("random", frame, seed=1) != folds("random", frame, seed=2)


@pytest.mark.parametrize(
    ("protocol", "independent"), [("5pair", True), ("12pair", True), ("loso", True), ("random", False)]
)
def test_speaker_independence_is_known(protocol, independent):
    assert speaker_independent(protocol) is independent


@pytest.mark.parametrize("protocol", ["", "pair", "0pair", "-1pair", "5pairs", "LOSO", "5 pair"])
def test_unknown_protocols_are_refused_with_the_known_ones(protocol):
    with pytest.raises(InputError, match="loso, random"):
        folds(protocol, corpus("abcvwx"))


def test_a_leak_is_refused_and_named():
    with pytest.raises(InputError, match="split k leaks speaker b: in train and in test"):
        assert_disjoint(Fold("k", train=(0, 1), validation=(2,), test=(3,)), ["a", "b", "c", "b"])
    with pytest.raises(InputError, match="leaks speaker a: in validation and in test"):
        assert_disjoint(Fold("k", train=(0,), validation=(1,), test=(2,)), ["x", "a", "a"])
    assert_disjoint(Fold("k", train=(0,), validation=(1,), test=(2,)), ["x", "a", "b"])


@pytest.mark.parametrize(
    ("protocol", "frame", "pairs", "message"),
    [
        ("6pair", corpus("abcdevwxyz"), PAIRS, "5 pairs of speakers; at least 6"),
        ("2pair", corpus("abcdevwxyz"), PAIRS, "2 folds; at least 3"),
        ("3pair", corpus("abcvw"), (), "3 men, 2 women and 0 of unknown gender"),
        ("3pair", corpus("abcvwx").assign(gender=""), (), "6 of unknown gender"),
        ("3pair", corpus("abcvwxy"), PAIRS[:3], "speaker y is in no pair"),
        ("loso", corpus("ab"), (), "2 folds"),
        ("loso", corpus("abc").assign(speaker=""), (), "no speaker"),
        ("loso", corpus("abc").assign(target=lambda rows: rows["speaker"].map("abc".index)), (), "not trained"),
        ("random", corpus("a", classes=2, repeats=2), (), "2 clips; at least 3"),
    ],
)
def test_what_cannot_be_split_is_refused(protocol, frame, pairs, message):
    with pytest.raises(InputError, match=message):
        folds(protocol, frame, pairs)
