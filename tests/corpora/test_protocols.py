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


@given(
    st.sampled_from([(75, 5, 20), (80, 10, 10), (60, 20, 20), (34, 33, 33)]), st.lists(st.integers(20, 60), min_size=2)
)
def test_random_takes_any_shares(shares, counts):
    frame = pd.DataFrame({"speaker": "", "gender": "", "target": [t for t, n in enumerate(counts) for _ in range(n)]})
    (fold,) = folds("random{}-{}-{}".format(*shares), frame, seed=7)
    assert sorted(fold.train + fold.validation + fold.test) == list(range(len(frame)))
    for target, count in enumerate(counts):
        for part, share in zip((fold.train, fold.validation, fold.test), shares, strict=True):
            held = sum(frame["target"].iloc[list(part)] == target)
            assert held >= 1
            assert abs(held - share / 100 * count) <= 1


def test_random_alone_is_60_20_20():
    frame = corpus("abcdef", repeats=5)
    assert folds("random", frame, seed=3) == folds("random60-20-20", frame, seed=3)


@pytest.mark.parametrize("protocol", ["random70-5-20", "random100-0-0", "random80-20-20", "random0-50-50"])
def test_shares_that_do_not_make_100_are_refused(protocol):
    with pytest.raises(InputError, match=f"'{protocol}': got .* allowed: each above 0, together 100"):
        speaker_independent(protocol)


@given(
    st.integers(3, 6),
    st.lists(st.integers(1, 9), min_size=6, max_size=20),
    st.lists(st.integers(1, 9), min_size=1, max_size=20),
)
def test_nfold_balances_genders_and_parts_all_speakers(count, women, men):
    clips = {f"f{number:02}": size for number, size in enumerate(women)}
    clips |= {f"m{number:02}": size for number, size in enumerate(men)}
    rows = [(who, who[0], target) for who, size in clips.items() for target in range(2) for _ in range(size)]
    frame = pd.DataFrame(rows, columns=["speaker", "gender", "target"])
    made = folds(f"{count}fold", frame)
    assert made == folds(f"{count}fold", frame, seed=9)
    assert [fold.name for fold in made] == [f"fold{number}" for number in range(1, count + 1)]
    tested = [speakers_tested(frame, fold) for fold in made]
    assert sorted(who for fold in tested for who in fold) == sorted(clips)
    for gender in "fm":
        people = [sum(who[0] == gender for who in fold) for fold in tested]
        assert max(people) - min(people) <= 1


def test_nfold_balances_clips_and_the_odd_ones_of_both_genders():
    # As uneven as CREMA-D: 43 women and 48 men.
    frame = corpus([*(f"f{number:02}" for number in range(43)), *(f"m{number:02}" for number in range(48))])
    frame["gender"] = frame["speaker"].str[0]
    assert [len(speakers_tested(frame, fold)) for fold in folds("5fold", frame)] == [19, 18, 18, 18, 18]


def test_nfold_needs_no_genders():
    frame = corpus("abcdefg").assign(gender="")
    assert [len(speakers_tested(frame, fold)) for fold in folds("3fold", frame)] == [3, 2, 2]


def official(*names, speakers="aabbcc"):
    return corpus("a", classes=2, repeats=3).assign(split=names, speaker=list(speakers))


def test_official_takes_the_splits_of_the_corpus_by_their_usual_names():
    for validation in ("validation", "valid", "val", "dev"):
        frame = official("train", "train", validation, validation, "test", "test")
        expected = [Fold("official", train=(0, 1), validation=(2, 3), test=(4, 5))]
        assert folds("official", frame) == folds("official-dependent", frame) == expected


def test_an_official_split_that_shares_speakers_or_knows_none_is_speaker_dependent():
    frame = official("train", "train", "dev", "dev", "test", "test", speakers="aabbca")
    with pytest.raises(InputError, match="leaks speaker a: in train and in test"):
        folds("official", frame)
    assert folds("official-dependent", frame)[0].test == (4, 5)
    with pytest.raises(InputError, match=r"6 clips have no speaker.*official-dependent"):
        folds("official", frame.assign(speaker=""))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([""] * 6, "6 of 6 clips have the official split '' .*empty: the corpus has none"),
        (
            ["train", "train", "dev", "dev", "test", "fold2"],
            "1 of 6 clips have the official split 'fold2' .allowed: tr",
        ),
        (["train", "train", "train", "train", "test", "test"], "no clip is in the official validation split"),
        (["train", "dev", "train", "dev", "test", "test"], "1 classes are tested but not trained"),
    ],
)
def test_an_official_split_that_is_none_is_refused(names, message):
    with pytest.raises(InputError, match=message):
        folds("official-dependent", official(*names))


@pytest.mark.parametrize(
    ("protocol", "independent"),
    [
        ("5pair", True),
        ("12pair", True),
        ("5fold", True),
        ("loso", True),
        ("official", True),
        ("official-dependent", False),
        ("random", False),
        ("random75-5-20", False),
    ],
)
def test_speaker_independence_is_known(protocol, independent):
    assert speaker_independent(protocol) is independent


@pytest.mark.parametrize(
    "protocol",
    ["", "pair", "0pair", "-1pair", "5pairs", "LOSO", "5 pair", "fold", "0fold", "random80-20", "random-", "officials"],
)
def test_unknown_protocols_are_refused_with_the_known_ones(protocol):
    with pytest.raises(InputError, match=r"known: Npair .* loso, official; speaker-dependent: random"):
        folds(protocol, corpus("abcvwx"))


@pytest.mark.parametrize("protocol", ["3pair", "3fold", "loso"])
def test_recognising_speakers_needs_a_speaker_dependent_protocol(protocol):
    frame = corpus("abcvwx")
    frame["target"] = frame["speaker"].map("abcvwx".index)
    with pytest.raises(InputError, match=f"split {protocol}: each class is one speaker.*random75-5-20"):
        folds(protocol, frame)
    assert folds("random", frame)[0].name == "random"


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
        ("random", corpus("a", classes=2, repeats=2), (), "2 clips; too few.*at least 3"),
        ("random5-90-5", corpus("a", classes=2, repeats=10), (), "10 clips; too few"),
        ("4fold", corpus("abv"), (), "3 speakers; at least 4"),
        ("2fold", corpus("abvw"), (), "2 folds; at least 3"),
        ("3fold", corpus("abv").assign(speaker=["", *"abvabvabvabvabvab"]), (), "1 clips have no speaker"),
    ],
)
def test_what_cannot_be_split_is_refused(protocol, frame, pairs, message):
    with pytest.raises(InputError, match=message):
        folds(protocol, frame, pairs)
