"""Split protocols: which clips train, validate and test in each fold.

In every fold the validation clips are those that the next fold tests (cyclically), never its own test clips.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from advser.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

PAIRS = re.compile(r"([1-9]\d*)pair")
KNOWN = "Npair (such as 5pair), loso, random"

TEST_SHARE = VALIDATION_SHARE = 0.2
"""Of the ``random`` protocol, within each class."""


@dataclass(frozen=True)
class Fold:
    """One split: row numbers, ascending, of the clips that train, validate and test."""

    name: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def speaker_independent(protocol: str) -> bool:
    """Tell whether a protocol tests only speakers that it neither trains nor validates on.

    Raises:
        InputError: if there is no such protocol.
    """
    if protocol == "random":
        return False
    if protocol == "loso" or PAIRS.fullmatch(protocol):
        return True
    raise InputError(f"unknown protocol '{protocol}' (known: {KNOWN})")


def folds(protocol: str, frame: pd.DataFrame, speaker_pairs: Sequence[Sequence[str]] = (), seed: int = 0) -> list[Fold]:
    """Split a corpus.

    Args:
        protocol: ``Npair``: N folds of groups of speakers, named ``fold1``, ``fold2``, …; ``loso``: leave one speaker
            out, folds named as the speakers; ``random``: one fold ``random``, 60 / 20 / 20 % of each class,
            speaker-dependent.
        frame: rows as `advser.corpora.decode.decode` returns them (``speaker``, ``gender``, ``target``).
        speaker_pairs: the groups of ``Npair``; if empty, one man and one woman each, in sorted order. Group i is
            tested in fold i modulo N.
        seed: of ``random``; the others have no chance in them.

    Raises:
        InputError: if there is no such protocol, or the corpus cannot be split by it (too few speakers or clips,
            unknown speakers or genders, a tested class that is not trained).
    """
    if not speaker_independent(protocol):
        return [_random(frame, seed)]
    speakers = frame["speaker"].tolist()
    if "" in speakers:
        raise InputError(f"split {protocol}: {speakers.count('')} clips have no speaker; only random can split them")
    if protocol == "loso":
        tested = {speaker: {speaker} for speaker in sorted(set(speakers))}
    else:
        tested = _dealt(protocol, frame, speaker_pairs)
    if len(tested) < 3:
        raise InputError(f"split {protocol}: {len(tested)} folds; at least 3 are needed to train, validate and test")
    made = _rotated(tested, speakers)
    for fold in made:
        assert_disjoint(fold, speakers)
        _assert_trained(protocol, fold, frame["target"].to_numpy())
    return made


def assert_disjoint(fold: Fold, speakers: Sequence[str]) -> None:
    """Check that no speaker is in two parts of a fold; ``speakers`` has one entry a row.

    Raises:
        InputError: naming the speaker that leaks.
    """
    parts = {name: {speakers[row] for row in getattr(fold, name)} for name in ("train", "validation", "test")}
    for one, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
        for speaker in sorted(parts[one] & parts[other]):
            raise InputError(
                f"split {fold.name} leaks speaker {speaker}: in {one} and in {other}; allowed: in one only"
            )


def _rotated(tested: dict[str, set[str]], speakers: Sequence[str]) -> list[Fold]:
    names = list(tested)
    made = []
    for position, name in enumerate(names):
        test, validation = tested[name], tested[names[(position + 1) % len(names)]]
        made.append(
            Fold(
                name,
                train=tuple(row for row, who in enumerate(speakers) if who not in test | validation),
                validation=tuple(row for row, who in enumerate(speakers) if who in validation),
                test=tuple(row for row, who in enumerate(speakers) if who in test),
            )
        )
    return made


def _dealt(protocol: str, frame: pd.DataFrame, speaker_pairs: Sequence[Sequence[str]]) -> dict[str, set[str]]:
    match = PAIRS.fullmatch(protocol)
    assert match is not None
    count = int(match[1])
    present = set(frame["speaker"])
    groups = [set(pair) & present for pair in speaker_pairs or _couples(protocol, frame)]
    groups = [group for group in groups if group]
    ungrouped = present.difference(*groups)
    if ungrouped:
        raise InputError(f"split {protocol}: speaker {', '.join(sorted(ungrouped))} is in no pair of the corpus")
    if len(groups) < count:
        raise InputError(f"split {protocol}: {len(groups)} pairs of speakers; at least {count} are needed")
    return {f"fold{fold + 1}": set().union(*groups[fold::count]) for fold in range(count)}


def _couples(protocol: str, frame: pd.DataFrame) -> list[tuple[str, str]]:
    people = sorted(set(zip(frame["gender"], frame["speaker"], strict=True)))
    women = [speaker for gender, speaker in people if gender == "f"]
    men = [speaker for gender, speaker in people if gender == "m"]
    if len(women) != len(men) or len(women) + len(men) != len(people):
        others = len(people) - len(men) - len(women)
        raise InputError(
            f"split {protocol}: {len(men)} men, {len(women)} women and {others} of unknown gender; "
            "one man and one woman make a pair (loso needs no genders)"
        )
    return list(zip(men, women, strict=True))


def _random(frame: pd.DataFrame, seed: int) -> Fold:
    generator = np.random.default_rng(seed)
    targets = frame["target"].to_numpy()
    train: list[int] = []
    validation: list[int] = []
    test: list[int] = []
    for target in np.unique(targets):
        rows = generator.permutation(np.flatnonzero(targets == target)).tolist()
        if len(rows) < 3:
            raise InputError(f"split random: class number {target} has {len(rows)} clips; at least 3 are needed")
        tested = max(round(TEST_SHARE * len(rows)), 1)
        validated = tested + max(round(VALIDATION_SHARE * len(rows)), 1)
        test += rows[:tested]
        validation += rows[tested:validated]
        train += rows[validated:]
    return Fold("random", tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(test)))


def _assert_trained(protocol: str, fold: Fold, targets: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    untrained = set(targets[list(fold.test)].tolist()) - set(targets[list(fold.train)].tolist())
    if untrained:
        raise InputError(
            f"split {protocol}, {fold.name}: {len(untrained)} classes are tested but not trained (a task such as "
            "speaker needs the random protocol)"
        )
