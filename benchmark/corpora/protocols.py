"""Split protocols: which clips train, validate and test in each fold.

Where there are several folds, each validates on the clips that the next one tests (cyclically), never on its own.
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
KNOWN = (
    "Npair (such as 5pair), Nfold (such as 5fold), loso, official; speaker-dependent: random, "
    "randomTRAIN-VALIDATION-TEST in per cent (such as random75-5-20), official-dependent"
)

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
"""Name of an official split → the part of the fold that it is."""


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
        InputError: if there is no such protocol, or its shares are no whole per cents that add to 100.
    """
    if _shares(protocol) or protocol == "official-dependent":
        return False
    if protocol in ("loso", "official") or PAIRS.fullmatch(protocol) or FOLDS.fullmatch(protocol):
        return True
    raise InputError(f"unknown protocol '{protocol}' (known: {KNOWN})")


def folds(protocol: str, frame: pd.DataFrame, speaker_pairs: Sequence[Sequence[str]] = (), seed: int = 0) -> list[Fold]:
    """Split a corpus.

    Speaker-independent protocols, which is asserted:

    - ``Npair``: N folds of groups of speakers, named ``fold1``, ``fold2``, …
    - ``Nfold``: N folds of whole speakers, named likewise, as even in women, men and clips as dealing them out makes
      them; for corpora whose men and women are uneven in number.
    - ``loso``: leave one speaker out, folds named as the speakers.
    - ``official``: one fold ``official``, the corpus's own split.

    Speaker-dependent ones:

    - ``randomTRAIN-VALIDATION-TEST``: one fold ``random`` with these per cents of each class; ``random`` is
      ``random60-20-20``.
    - ``official-dependent``: as ``official``, where the corpus's own split shares speakers or knows none.

    Args:
        protocol: one of these.
        frame: rows as `advser.corpora.decode.decode` returns them (``speaker``, ``gender``, ``target``, and ``split``
            for the official ones).
        speaker_pairs: the groups of ``Npair``; if empty, one man and one woman each, in sorted order. Group i is
            tested in fold i modulo N.
        seed: of the random ones; the others have no chance in them.

    Raises:
        InputError: if there is no such protocol, or the corpus cannot be split by it (too few speakers or clips,
            unknown speakers or genders, no official split, a tested class that is not trained, classes that are
            speakers).
    """
    independent = speaker_independent(protocol)
    if shares := _shares(protocol):
        return [_random(protocol, frame, shares, seed)]
    speakers = frame["speaker"].tolist()
    if independent:
        _assert_splittable(protocol, frame)
    if protocol.startswith("official"):
        made = [_official(protocol, frame)]
    else:
        made = _rotated(protocol, _tested(protocol, frame, speaker_pairs), speakers)
    for fold in made:
        if independent:
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
                f"split {fold.name} leaks speaker {speaker}: in {one} and in {other}; expected in one only"
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


def _assert_splittable(protocol: str, frame: pd.DataFrame) -> None:
    unknown = int((frame["speaker"] == "").sum())
    if unknown:
        raise InputError(
            f"split {protocol}: {unknown} clips have no speaker; only a speaker-dependent protocol can split them "
            f"(known: {KNOWN})"
        )
    if (frame.groupby("target")["speaker"].nunique() == 1).all():
        raise InputError(
            f"split {protocol}: each class is one speaker, and a speaker who is tested is not trained; the task "
            "'speaker' needs a speaker-dependent protocol: random, randomTRAIN-VALIDATION-TEST (such as "
            "random75-5-20) or official-dependent"
        )


def _tested(protocol: str, frame: pd.DataFrame, speaker_pairs: Sequence[Sequence[str]]) -> dict[str, set[str]]:
    """Return fold name → the speakers that it tests."""
    if protocol == "loso":
        return {speaker: {speaker} for speaker in sorted(set(frame["speaker"]))}
    if match := FOLDS.fullmatch(protocol):
        return _spread(protocol, frame, int(match[1]))
    return _dealt(protocol, frame, speaker_pairs)


def _official(protocol: str, frame: pd.DataFrame) -> Fold:
    found = frame["split"].tolist()
    unknown = sorted(set(found) - set(SPLITS))
    if unknown:
        names = ", ".join(f"'{name}'" for name in unknown)
        raise InputError(
            f"split {protocol}: {sum(name in unknown for name in found)} of {len(found)} clips have the official split "
            f"{names} (expected {', '.join(SPLITS)}; empty: the corpus has none)"
        )
    parts = [SPLITS[name] for name in found]
    rows = {part: tuple(row for row, name in enumerate(parts) if name == part) for part in SPLITS.values()}
    empty = [part for part in rows if not rows[part]]
    if empty:
        raise InputError(f"split {protocol}: no clip is in the official {' or '.join(empty)} split; each needs some")
    return Fold("official", **rows)


def _rotated(protocol: str, tested: dict[str, set[str]], speakers: Sequence[str]) -> list[Fold]:
    if len(tested) < 3:
        raise InputError(f"split {protocol}: {len(tested)} folds; at least 3 are needed to train, validate and test")
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


def _spread(protocol: str, frame: pd.DataFrame, count: int) -> dict[str, set[str]]:
    """Deal speakers to folds, one gender after the other, those with the most clips first.

    Each goes to the fold that has the fewest speakers of that gender so far, of these to the one with the fewest
    clips, of these to the first.
    """
    clips = frame["speaker"].value_counts()
    genders = frame.groupby("speaker")["gender"].first()
    if len(clips) < count:
        raise InputError(f"split {protocol}: {len(clips)} speakers; at least {count} are needed")
    made: list[set[str]] = [set() for _ in range(count)]
    people: Counter[tuple[int, str]] = Counter()
    sizes = [0] * count
    for who in sorted(clips.index, key=lambda who: (genders[who], -clips[who], who)):
        gender = genders[who]
        fold = min(range(count), key=lambda number: (people[number, gender], sizes[number]))
        made[fold].add(who)
        people[fold, gender] += 1
        sizes[fold] += int(clips[who])
    return {f"fold{number}": speakers for number, speakers in enumerate(made, 1)}


def _dealt(protocol: str, frame: pd.DataFrame, speaker_pairs: Sequence[Sequence[str]]) -> dict[str, set[str]]:
    match = PAIRS.fullmatch(protocol)
    assert match is not None
    count = int(match[1])
    present = set(frame["speaker"])
    groups = [set(pair) & present for pair in speaker_pairs or _couples(protocol, count, frame)]
    groups = [group for group in groups if group]
    ungrouped = present.difference(*groups)
    if ungrouped:
        raise InputError(f"split {protocol}: speaker {', '.join(sorted(ungrouped))} is in no pair of the corpus")
    if len(groups) < count:
        raise InputError(f"split {protocol}: {len(groups)} pairs of speakers; at least {count} are needed")
    return {f"fold{fold + 1}": set().union(*groups[fold::count]) for fold in range(count)}


def _couples(protocol: str, count: int, frame: pd.DataFrame) -> list[tuple[str, str]]:
    people = sorted(set(zip(frame["gender"], frame["speaker"], strict=True)))
    women = [speaker for gender, speaker in people if gender == "f"]
    men = [speaker for gender, speaker in people if gender == "m"]
    if len(women) != len(men) or len(women) + len(men) != len(people):
        others = len(people) - len(men) - len(women)
        raise InputError(
            f"split {protocol}: {len(men)} men, {len(women)} women and {others} of unknown gender; "
            f"one man and one woman make a pair ({count}fold and loso take any)"
        )
    return list(zip(men, women, strict=True))


def _random(protocol: str, frame: pd.DataFrame, shares: tuple[int, int, int], seed: int) -> Fold:
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
                f"split {protocol}: class number {target} has {len(rows)} clips; too few to train, validate and test "
                f"with {shares[0]}, {shares[1]} and {shares[2]} per cent of them (at least 3 are needed)"
            )
        test += rows[:tested]
        validation += rows[tested:validated]
        train += rows[validated:]
    return Fold("random", tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(test)))


def _assert_trained(protocol: str, fold: Fold, targets: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    untrained = set(targets[list(fold.test)].tolist()) - set(targets[list(fold.train)].tolist())
    if untrained:
        raise InputError(f"split {protocol}, {fold.name}: {len(untrained)} classes are tested but not trained")
