"""What a check of an audit is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from advser.audit.evidence import Evidence


@dataclass(frozen=True)
class Answer:
    """What a check says of one thing that it looked at.

    Attributes:
        where: key → value of the rows that it is about: a cell's keys, or a trained model's.
        wrong: what was found, in figures; empty if nothing was.
    """

    where: Mapping[str, Any]
    wrong: str


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: ``zero-gradients``.
        meaning: of its flag, in a sentence.
        needs: what a run must have for the check to look at anything.
        answers: what it says of each thing that it looked at; nothing if there is none.
    """

    name: str
    meaning: str
    needs: str
    answers: Callable[[Evidence], Iterator[Answer]]


def by_luck(count: int, among: int, chance: float) -> float:
    """Return the probability of at least ``count`` hits ``among`` so many, each with the same ``chance``."""
    # Imported here: a run starts its jobs a quarter of a second earlier; scipy.stats takes half a second.
    from scipy.special import bdtrc

    return float(bdtrc(count - 1, among, chance))


def check(needs: str) -> Callable[[Callable[[Evidence], Iterator[Answer]]], Check]:
    """Make a check of a function: its name is the check's, the first line of its docstring what a flag means."""

    def made(function: Callable[[Evidence], Iterator[Answer]]) -> Check:
        meaning = (function.__doc__ or "").partition("\n")[0]
        return Check(function.__name__.replace("_", "-"), meaning, needs, function)

    return made
