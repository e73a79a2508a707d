"""Split protocols: the clips that train, validate and test in each fold.

Of several folds, each validates on the test clips of the next fold (cyclically), never on its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from advser.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

PAIRS = re.compile(r"([1-9]\d*)pair")
FOLDS = re.compile(r"([1-9]\d*)fold")
RANDOM = re.compile(r"random(?:(\d+)-(\d+)-(\d+))?")
PROTOCOLS = (
    "Npair (such as 5pair), Nfold (such as 5fold), loso, official; speaker-dependent: random, "
    "randomTRAIN-VALIDATION-TEST in per cent (such as random75-5-20), official-dependent"
)
"""All protocols, for error messages."""

SHARES = (60, 20, 20)
"""Per cent of each class that train, validate and test under ``random``."""

SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
"""Name of an official split → part of the fold."""


@dataclass(frozen=True)
class Fold:
    """One split: ascending row numbers of the clips that train, validate and test."""

    name: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def is_speaker_independent(protocol: str) -> bool:
    """Return whether a protocol tests only speakers that it neither trains nor validates on.

    Raises:
        InputError: if the protocol does not exist, or its shares are not whole per cents with the sum 100.
    """
    if _shares(protocol) or protocol == "official-dependent":
        return False
    if protocol in ("loso", "official") or PAIRS.fullmatch(protocol) or FOLDS.fullmatch(protocol):
        return True
    raise InputError(f"protocol: got '{protocol}', expected {PROTOCOLS}")


def folds(
    protocol: str,
    frame: pd.DataFrame,
    speaker_pairs: Sequence[Sequence[str]] = (),
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> list[Fold]:
    """Return the folds of a corpus under a protocol.

    Speaker-independent protocols, verified by `check_disjoint`:

    - ``Npair``: N folds of groups of speakers, named ``fold1``, ``fold2``, …
    - ``Nfold``: N folds of whole speakers, named likewise, balanced in women, men and clips (`_balanced_folds`); for
      corpora with different numbers of men and women.
    - ``loso``: leave one speaker out; each fold has its speaker's name.
    - ``official``: one fold ``official``, the corpus's own split.

    Speaker-dependent protocols:

    - ``randomTRAIN-VALIDATION-TEST``: one fold ``random`` with these per cents of each class; ``random`` is
      ``random60-20-20``.
    - ``official-dependent``: as ``official``, for a split that shares speakers or a corpus without speakers.

    Args:
        protocol: name of a protocol.
        frame: rows as `advser.corpora.decode.decode` returns them (``speaker``, ``gender``, ``target``, and ``split``
            for the official protocols).
        speaker_pairs: the groups of ``Npair``; if empty, one man and one woman each, in sorted order. Fold i modulo N
            tests group i.
        seed: seed of the random protocols; the others are deterministic.
        classes: names of the classes, for messages; by default their numbers.

    Raises:
        InputError: if the protocol does not exist, or cannot split the corpus. Reasons: too few speakers or clips,
            unknown speakers or genders, no official split, a test class without training clips, classes that are
            speakers.
    """
    independent = is_speaker_independent(protocol)
    classes = classes or [str(target) for target in range(frame["target"].max() + 1)]
    if shares := _shares(protocol):
        return [_random_fold(protocol, frame, shares, seed, classes)]
    speakers = frame["speaker"].tolist()
    if independent:
        _check_splittable(protocol, frame)
    if protocol.startswith("official"):
        result = [_official_fold(protocol, frame)]
    else:
        result = _rotated_folds(protocol, _test_speakers(protocol, frame, speaker_pairs), speakers)
    for fold in result:
        if independent:
            check_disjoint(fold, speakers)
        _check_trained(protocol, fold, frame["target"].to_numpy(), classes)
    return result


def check_disjoint(fold: Fold, speakers: Sequence[str]) -> None:
    """Raise InputError, naming the speaker, if two parts of a fold share a speaker.

    Args:
        fold: the split.
        speakers: the speaker of each row.
    """
    parts = {name: {speakers[row] for row in getattr(fold, name)} for name in ("train", "validation", "test")}
    for part, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
        for speaker in sorted(parts[part] & parts[other]):
            raise InputError(
                f"split {fold.name}: got speaker {speaker} in {part} and in {other}, expected each speaker in one part"
            )


def _shares(protocol: str) -> tuple[int, int, int] | None:
    """Return the per cents that train, validate and test under a random protocol; None for any other."""
    match = RANDOM.fullmatch(protocol)
    if match is None:
        return None
    if protocol == "random":
        return SHARES
    train, validation, test = (int(share) for share in match.groups())
    if train + validation + test != 100 or not (train and validation and test):
        raise InputError(
            f"protocol '{protocol}': got {train} + {validation} + {test} per cent to train, validate and test, "
            "expected each above 0, together 100"
        )
    return train, validation, test


def _check_splittable(protocol: str, frame: pd.DataFrame) -> None:
    speakerless = int((frame["speaker"] == "").sum())
    if speakerless:
        raise InputError(
            f"split {protocol}: got {speakerless} clips without a speaker, expected a speaker-dependent protocol "
            f"(of {PROTOCOLS})"
        )
    if (frame.groupby("target")["speaker"].nunique() == 1).all():
        raise InputError(
            f"split {protocol}: got one speaker per class, expected for the task 'speaker' a speaker-dependent "
            "protocol: random, randomTRAIN-VALIDATION-TEST (such as random75-5-20) or official-dependent"
        )


def _test_speakers(protocol: str, frame: pd.DataFrame, speaker_pairs: Sequence[Sequence[str]]) -> dict[str, set[str]]:
    """Return fold name → its test speakers."""
    if protocol == "loso":
        return {speaker: {speaker} for speaker in sorted(set(frame["speaker"]))}
    if match := FOLDS.fullmatch(protocol):
        return _balanced_folds(protocol, frame, int(match[1]))
    return _paired_folds(protocol, frame, speaker_pairs)


def _official_fold(protocol: str, frame: pd.DataFrame) -> Fold:
    splits = frame["split"].tolist()
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        names = ", ".join(f"'{name}'" for name in unknown)
        raise InputError(
            f"split {protocol}: got {sum(name in unknown for name in splits)} of {len(splits)} clips with the official "
            f"split {names}, expected {', '.join(SPLITS)} (empty: the corpus has no official split)"
        )
    parts = [SPLITS[name] for name in splits]
    rows = {part: tuple(row for row, name in enumerate(parts) if name == part) for part in SPLITS.values()}
    empty = [part for part in rows if not rows[part]]
    if empty:
        raise InputError(
            f"split {protocol}: got no clip in the official {' or '.join(empty)} split, expected some in each"
        )
    return Fold("official", **rows)


def _rotated_folds(protocol: str, tested: dict[str, set[str]], speakers: Sequence[str]) -> list[Fold]:
    """Return folds that validate on the test speakers of the next fold; ``tested``: fold name → test speakers."""
    if len(tested) < 3:
        raise InputError(f"split {protocol}: got {len(tested)} folds, expected at least 3 to train, validate and test")
    names = list(tested)
    rotated = []
    for name, following in zip(names, [*names[1:], names[0]], strict=True):
        test, validation = tested[name], tested[following]
        rotated.append(
            Fold(
                name,
                train=tuple(row for row, speaker in enumerate(speakers) if speaker not in test | validation),
                validation=tuple(row for row, speaker in enumerate(speakers) if speaker in validation),
                test=tuple(row for row, speaker in enumerate(speakers) if speaker in test),
            )
        )
    return rotated


def _balanced_folds(protocol: str, frame: pd.DataFrame, count: int) -> dict[str, set[str]]:
    """Return fold name → test speakers, balanced in genders and clips.

    Speakers are assigned one gender after the other, in descending order of their clips. Each is assigned to the fold
    with the fewest speakers of that gender, among these with the fewest clips, among these to the first.
    """
    clips = frame["speaker"].value_counts()
    genders = frame.groupby("speaker")["gender"].first()
    if len(clips) < count:
        raise InputError(f"split {protocol}: got {len(clips)} speakers, expected at least {count}")
    groups: list[set[str]] = [set() for _ in range(count)]
    people: Counter[tuple[int, str]] = Counter()
    sizes = [0] * count
    for speaker in sorted(clips.index, key=lambda name: (genders[name], -clips[name], name)):
        gender = genders[speaker]
        fold = min(range(count), key=lambda number: (people[number, gender], sizes[number]))
        groups[fold].add(speaker)
        people[fold, gender] += 1
        sizes[fold] += int(clips[speaker])
    return {f"fold{number}": group for number, group in enumerate(groups, 1)}


def _paired_folds(protocol: str, frame: pd.DataFrame, speaker_pairs: Sequence[Sequence[str]]) -> dict[str, set[str]]:
    """Return fold name → test speakers, each fold with whole groups of speakers."""
    match = PAIRS.fullmatch(protocol)
    assert match is not None
    count = int(match[1])
    present = set(frame["speaker"])
    groups = [set(pair) & present for pair in speaker_pairs or _mixed_pairs(protocol, count, frame)]
    groups = [group for group in groups if group]
    ungrouped = present.difference(*groups)
    if ungrouped:
        raise InputError(
            f"split {protocol}: got speaker {', '.join(sorted(ungrouped))} in no pair, expected every speaker in a pair"
        )
    if len(groups) < count:
        raise InputError(f"split {protocol}: got {len(groups)} pairs of speakers, expected at least {count}")
    return {f"fold{fold + 1}": set().union(*groups[fold::count]) for fold in range(count)}


def _mixed_pairs(protocol: str, count: int, frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return pairs of one man and one woman, in sorted order."""
    people = sorted(set(zip(frame["gender"], frame["speaker"], strict=True)))
    women = [speaker for gender, speaker in people if gender == "f"]
    men = [speaker for gender, speaker in people if gender == "m"]
    if len(women) != len(men) or len(women) + len(men) != len(people):
        others = len(people) - len(men) - len(women)
        raise InputError(
            f"split {protocol}: got {len(men)} men, {len(women)} women and {others} speakers of unknown gender, "
            f"expected as many men as women ({count}fold and loso need no genders)"
        )
    return list(zip(men, women, strict=True))


def _random_fold(
    protocol: str, frame: pd.DataFrame, shares: tuple[int, int, int], seed: int, classes: Sequence[str]
) -> Fold:
    """Return a fold with ``shares`` (per cent that train, validate and test) of each class, at least one clip each."""
    generator = np.random.default_rng(seed)
    targets = frame["target"].to_numpy()
    train: list[int] = []
    validation: list[int] = []
    test: list[int] = []
    for target in np.unique(targets):
        rows = generator.permutation(np.flatnonzero(targets == target)).tolist()
        tested = max(round(shares[2] / 100 * len(rows)), 1)
        validated = tested + max(round(shares[1] / 100 * len(rows)), 1)
        if validated >= len(rows):
            raise InputError(
                f"split {protocol}: got {len(rows)} clips of class '{classes[target]}', expected enough to train, "
                f"validate and test with {shares[0]}, {shares[1]} and {shares[2]} per cent of them (at least 3)"
            )
        test += rows[:tested]
        validation += rows[tested:validated]
        train += rows[validated:]
    return Fold("random", tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(test)))


def _check_trained(
    protocol: str, fold: Fold, targets: np.ndarray[tuple[int], np.dtype[np.int64]], classes: Sequence[str]
) -> None:
    untrained = set(targets[list(fold.test)].tolist()) - set(targets[list(fold.train)].tolist())
    if untrained:
        names = ", ".join(classes[target] for target in sorted(untrained))
        raise InputError(f"split {protocol}, {fold.name}: got test classes without training clips: {names}")
