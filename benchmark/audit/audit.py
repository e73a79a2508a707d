"""Sanity checks of a run: what makes its numbers look better, or its attacks stronger, than they are.

What the harness refuses outright (budgets, padding, finiteness, global generators) needs no flag: such a cell has
failed. A check that a run gives nothing to look at is told apart from one that found nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from advser.audit.attack_checks import OF_ATTACKS
from advser.audit.check import Answer, Check
from advser.audit.evidence import Evidence
from advser.audit.model_checks import OF_MODELS

CHECKS: Final[tuple[Check, ...]] = (*OF_ATTACKS, *OF_MODELS)
"""All checks, in the order in which boards name them."""


@dataclass(frozen=True)
class Flag:
    """One finding.

    Attributes:
        check: name of the check.
        where: key → value of the rows that it stands on: a cell's keys, or a trained model's.
        detail: what was found, in figures.
    """

    check: str
    where: Mapping[str, Any]
    detail: str


@dataclass(frozen=True)
class Audit:
    """What all checks came to.

    Attributes:
        answers: check → what it says of each cell or trained model that it looked at; none: the run gives it nothing
            to look at.
    """

    answers: Mapping[str, Sequence[Answer]]

    @property
    def flags(self) -> list[Flag]:
        """What was found."""
        return [
            Flag(name, dict(answer.where), answer.wrong)
            for name, given in self.answers.items()
            for answer in given
            if answer.wrong
        ]

    @property
    def record(self) -> dict[str, Any]:
        """What ``run.json`` keeps: the checks with what they mean and need, how much they looked at, and the flags."""
        return {
            "checks": {check.name: check.meaning for check in CHECKS},
            "needs": {check.name: check.needs for check in CHECKS},
            "looked_at": {name: len(given) for name, given in self.answers.items()},
            "flags": [asdict(flag) for flag in self.flags],
        }


def audit(found: Evidence) -> Audit:
    """Make all checks. One that fails is a flag on every row: hours of work must not be lost to it."""
    return Audit({check.name: _answers(check, found) for check in CHECKS})


def _answers(check: Check, found: Evidence) -> list[Answer]:
    try:
        return list(check.answers(found))
    except Exception as error:
        return [Answer({}, f"the check itself failed: {type(error).__name__}: {' '.join(str(error).split())}")]
