"""Split protocols: training, validation and test clips, and refused corpora."""

from itertools import product

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advser.corpora.protocols import Fold, check_disjoint, folds, is_speaker_independent
from advser.errors import InputError

PAIRS = (("a", "v"), ("b", "w"), ("c", "x"), ("d", "y"), ("e", "z"))


def corpus(speakers, classes=3, repeats=2):
    rows = [
        {"speaker": speaker, "gender": "m" if speaker < "n" else "f", "target": target}
        for _, speaker, target in product(range(repeats), speakers, range(classes))
    ]
    return pd.DataFrame(rows)


def speakers_tested(frame, fold):
    return set(frame["speaker"].iloc[list(fold.test)])


def test_pairs_of_the_corpus_are_tested_in_order():
    frame = corpus("abcdevwxyz")
    splits = folds("5pair", frame, PAIRS)
    assert [fold.name for fold in splits] == ["fold1", "fold2", "fold3", "fold4", "fold5"]
    assert [speakers_tested(frame, fold) for fold in splits] == [set(pair) for pair in PAIRS]


def test_pairs_are_distributed_to_fewer_folds():
    frame = corpus("abcdevwxyz")
    assert [speakers_tested(frame, fold) for fold in folds("3pair", frame, PAIRS)] == [
        set("avdy"),
        set("bwez"),
        set("cx"),
    ]


def test_without_pairs_of_the_corpus_one_man_and_one_woman_are_a_pair():
    frame = corpus("cxbwav")
    assert [speakers_tested(frame, fold) for fold in folds("3pair", frame)] == [set("av"), set("bw"), set("cx")]


def test_loso_leaves_out_each_speaker():
    frame = corpus("bca")
    assert [(fold.name, speakers_tested(frame, fold)) for fold in folds("loso", frame)] == [
        (speaker, {speaker}) for speaker in "abc"
    ]


@given(
    st.lists(st.sampled_from("abcvwx"), min_size=1).map(lambda extra: [*"abcvwx", *extra]),
    st.sampled_from(["3pair", "loso"]),
)
def test_independent_folds_separate_speakers_and_validate_on_the_next_test_clips(speakers, protocol):
    frame = corpus(speakers)
    splits = folds(protocol, frame)
    for fold, following in zip(splits, [*splits[1:], splits[0]], strict=True):
        assert sorted(fold.train + fold.validation + fold.test) == list(range(len(frame)))
        assert fold.validation == following.test
        parts = [set(frame["speaker"].iloc[list(part)]) for part in (fold.train, fold.validation, fold.test)]
        assert sum(len(part) for part in parts) == len(set().union(*parts))
        assert all(parts)
    assert sorted(row for fold in splits for row in fold.test) == list(range(len(frame)))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(3, 30), min_size=2, max_size=5))
def test_random_is_stratified_and_seeded(seed, counts):
    frame = pd.DataFrame({"speaker": "", "gender": "", "target": [t for t, n in enumerate(counts) for _ in range(n)]})
    (fold,) = folds("random", frame, seed=seed)
    assert fold == folds("random", frame, seed=seed)[0]
    assert sorted(fold.train + fold.validation + fold.test) == list(range(len(frame)))
    for target, count in enumerate(counts):
        for part, share in ((fold.train, 0.6), (fold.validation, 0.2), (fold.test, 0.2)):
            count_in_part = sum(frame["target"].iloc[list(part)] == target)
            assert count_in_part >= 1
            assert abs(count_in_part - share * count) <= 1


def test_a_class_of_too_few_clips_is_named():
    frame = pd.DataFrame({"speaker": "", "gender": "", "target": [0] * 5 + [1] * 2})
    with pytest.raises(InputError, match="got 2 clips of class 'sadness', expected enough"):
        folds("random", frame, classes=("anger", "sadness"))
    with pytest.raises(InputError, match="got 2 clips of class '1', expected enough"):
        folds("random", frame)


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
            count_in_part = sum(frame["target"].iloc[list(part)] == target)
            assert count_in_part >= 1
            assert abs(count_in_part - share / 100 * count) <= 1


def test_random_alone_is_60_20_20():
    frame = corpus("abcdef", repeats=5)
    assert folds("random", frame, seed=3) == folds("random60-20-20", frame, seed=3)


@pytest.mark.parametrize("protocol", ["random70-5-20", "random100-0-0", "random80-20-20", "random0-50-50"])
def test_shares_without_the_sum_100_are_refused(protocol):
    with pytest.raises(InputError, match=f"'{protocol}': got .*, expected each above 0, together 100"):
        is_speaker_independent(protocol)


@given(
    st.integers(3, 6),
    st.lists(st.integers(1, 9), min_size=6, max_size=20),
    st.lists(st.integers(1, 9), min_size=1, max_size=20),
)
def test_nfold_balances_genders_and_tests_each_speaker_once(count, women, men):
    clips = {f"f{number:02}": size for number, size in enumerate(women)}
    clips |= {f"m{number:02}": size for number, size in enumerate(men)}
    rows = [(speaker, speaker[0], target) for speaker, size in clips.items() for target in [0] * size + [1] * size]
    frame = pd.DataFrame(rows, columns=["speaker", "gender", "target"])
    splits = folds(f"{count}fold", frame)
    assert splits == folds(f"{count}fold", frame, seed=9)
    assert [fold.name for fold in splits] == [f"fold{number}" for number in range(1, count + 1)]
    tested = [speakers_tested(frame, fold) for fold in splits]
    assert sorted(speaker for fold in tested for speaker in fold) == sorted(clips)
    for gender in "fm":
        people = [sum(speaker[0] == gender for speaker in fold) for fold in tested]
        assert max(people) - min(people) <= 1


def test_nfold_balances_clips_and_the_surplus_speakers_of_each_gender():
    # As uneven as CREMA-D: 43 women and 48 men.
    frame = corpus([*(f"f{number:02}" for number in range(43)), *(f"m{number:02}" for number in range(48))])
    frame["gender"] = frame["speaker"].str[0]
    assert [len(speakers_tested(frame, fold)) for fold in folds("5fold", frame)] == [19, 18, 18, 18, 18]


def test_nfold_needs_no_genders():
    frame = corpus("abcdefg").assign(gender="")
    assert [len(speakers_tested(frame, fold)) for fold in folds("3fold", frame)] == [3, 2, 2]


def official(*names, speakers="aabbcc"):
    return corpus("a", classes=2, repeats=3).assign(split=names, speaker=list(speakers))


def test_official_reads_the_usual_names_of_splits():
    for validation in ("validation", "valid", "val", "dev"):
        frame = official("train", "train", validation, validation, "test", "test")
        expected = [Fold("official", train=(0, 1), validation=(2, 3), test=(4, 5))]
        assert folds("official", frame) == folds("official-dependent", frame) == expected


def test_an_official_split_with_shared_or_unknown_speakers_is_speaker_dependent():
    frame = official("train", "train", "dev", "dev", "test", "test", speakers="aabbca")
    with pytest.raises(InputError, match="got speaker a in train and in test"):
        folds("official", frame)
    assert folds("official-dependent", frame)[0].test == (4, 5)
    with pytest.raises(InputError, match=r"got 6 clips without a speaker.*official-dependent"):
        folds("official", frame.assign(speaker=""))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([""] * 6, "got 6 of 6 clips with the official split '', .*empty: the corpus has no official split"),
        (
            ["train", "train", "dev", "dev", "test", "fold2"],
            "got 1 of 6 clips with the official split 'fold2', expected tr",
        ),
        (["train", "train", "train", "train", "test", "test"], "got no clip in the official validation split"),
        (["train", "dev", "train", "dev", "test", "test"], "got test classes without training clips: "),
    ],
)
def test_an_unusable_official_split_is_refused(names, message):
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
def test_speaker_independence(protocol, independent):
    assert is_speaker_independent(protocol) is independent


@pytest.mark.parametrize(
    "protocol",
    ["", "pair", "0pair", "-1pair", "5pairs", "LOSO", "5 pair", "fold", "0fold", "random80-20", "random-", "officials"],
)
def test_unknown_protocols_are_refused_with_a_list_of_protocols(protocol):
    with pytest.raises(InputError, match=r"expected Npair .* loso, official; speaker-dependent: random"):
        folds(protocol, corpus("abcvwx"))


@pytest.mark.parametrize("protocol", ["3pair", "3fold", "loso"])
def test_recognising_speakers_needs_a_speaker_dependent_protocol(protocol):
    frame = corpus("abcvwx")
    frame["target"] = frame["speaker"].map("abcvwx".index)
    with pytest.raises(InputError, match=f"split {protocol}: got one speaker per class.*random75-5-20"):
        folds(protocol, frame)
    assert folds("random", frame)[0].name == "random"


def test_a_speaker_in_two_parts_is_refused_by_name():
    with pytest.raises(InputError, match="split k: got speaker b in train and in test"):
        check_disjoint(Fold("k", train=(0, 1), validation=(2,), test=(3,)), ["a", "b", "c", "b"])
    with pytest.raises(InputError, match="got speaker a in validation and in test"):
        check_disjoint(Fold("k", train=(0,), validation=(1,), test=(2,)), ["x", "a", "a"])
    check_disjoint(Fold("k", train=(0,), validation=(1,), test=(2,)), ["x", "a", "b"])


@pytest.mark.parametrize(
    ("protocol", "frame", "pairs", "message"),
    [
        ("6pair", corpus("abcdevwxyz"), PAIRS, "got 5 pairs of speakers, expected at least 6"),
        ("2pair", corpus("abcdevwxyz"), PAIRS, "got 2 folds, expected at least 3"),
        ("3pair", corpus("abcvw"), (), "3 men, 2 women and 0 speakers of unknown gender"),
        ("3pair", corpus("abcvwx").assign(gender=""), (), "6 speakers of unknown gender"),
        ("3pair", corpus("abcvwxy"), PAIRS[:3], "got speaker y in no pair"),
        ("loso", corpus("ab"), (), "2 folds"),
        ("loso", corpus("abc").assign(speaker=""), (), "without a speaker"),
        (
            "loso",
            corpus("abc").assign(target=lambda rows: rows["speaker"].map("abc".index)),
            (),
            "got one speaker per class",
        ),
        ("random", corpus("a", classes=2, repeats=2), (), "got 2 clips.*at least 3"),
        ("random5-90-5", corpus("a", classes=2, repeats=10), (), "got 10 clips"),
        ("4fold", corpus("abv"), (), "got 3 speakers, expected at least 4"),
        ("2fold", corpus("abvw"), (), "got 2 folds, expected at least 3"),
        ("3fold", corpus("abv").assign(speaker=["", *"abvabvabvabvabvab"]), (), "got 1 clips without a speaker"),
    ],
)
def test_a_corpus_that_the_protocol_cannot_split_is_refused(protocol, frame, pairs, message):
    with pytest.raises(InputError, match=message):
        folds(protocol, frame, pairs)
