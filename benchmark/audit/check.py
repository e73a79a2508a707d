"""A check of the audit, and its verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from advser.audit.evidence import Evidence

CLIPS: Final = 3
"""Fewest affected clips for a flag."""

PROBED: Final = "a probed model (audit: true)"
GRADIENT: Final = "a probed model (audit: true) with a gradient, which beats the majority class"


@dataclass(frozen=True)
class Verdict:
    """Result of a check for one cell or one trained model.

    Attributes:
        where: key → value of the rows concerned: a cell's keys, or a trained model's.
        wrong: the problem, in figures; empty if there is none.
    """

    where: Mapping[str, Any]
    wrong: str


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: for example ``zero-gradients``.
        meaning: what a flag of this check means, in a sentence.
        needs: what a run must contain for the check to apply.
        verdicts: yields a verdict for each cell or trained model that the check applies to.
    """

    name: str
    meaning: str
    needs: str
    verdicts: Callable[[Evidence], Iterator[Verdict]]


def check(needs: str) -> Callable[[Callable[[Evidence], Iterator[Verdict]]], Check]:
    """Return a decorator that turns a function into a `Check`.

    The function's name becomes the check's name; the first line of its docstring becomes the meaning of a flag.
    """

    def decorate(function: Callable[[Evidence], Iterator[Verdict]]) -> Check:
        meaning = (function.__doc__ or "").partition("\n")[0]
        return Check(function.__name__.replace("_", "-"), meaning, needs, function)

    return decorate
