"""The audit of a run: sanity checks for figures that look better, or attacks that look stronger, than they are.

The harness refuses violations of budgets, padding, finiteness and random-number use: those cells fail and need no flag.
The record separates checks that a run gives nothing to apply to from checks without a flag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from advser.audit.attack_checks import OF_ATTACKS
from advser.audit.check import Check, Verdict
from advser.audit.cost_checks import OF_COSTS
from advser.audit.evidence import Evidence
from advser.audit.masked_gradient_checks import OF_GRADIENTS
from advser.audit.model_checks import OF_MODELS

CHECKS: Final[tuple[Check, ...]] = (*OF_ATTACKS, *OF_GRADIENTS, *OF_MODELS, *OF_COSTS)
"""All checks, in the order of the boards."""


@dataclass(frozen=True)
class Flag:
    """One problem that a check reports.

    Attributes:
        check: name of the check.
        where: key → value of the flagged rows: a cell's keys, or a trained model's.
        detail: the problem, in figures.
    """

    check: str
    where: Mapping[str, Any]
    detail: str


@dataclass(frozen=True)
class Audit:
    """Result of all checks.

    Attributes:
        verdicts: check → its verdict for each cell or trained model that it applies to; empty if there is none.
    """

    verdicts: Mapping[str, Sequence[Verdict]]

    @property
    def flags(self) -> list[Flag]:
        """The problems that the checks report."""
        return [
            Flag(name, dict(verdict.where), verdict.wrong)
            for name, verdicts in self.verdicts.items()
            for verdict in verdicts
            if verdict.wrong
        ]

    @property
    def record(self) -> dict[str, Any]:
        """The entry of ``run.json``: meaning, needs and number of verdicts of each check, and the flags."""
        return {
            "checks": {check.name: check.meaning for check in CHECKS},
            "needs": {check.name: check.needs for check in CHECKS},
            "looked_at": {name: len(verdicts) for name, verdicts in self.verdicts.items()},
            "flags": [asdict(flag) for flag in self.flags],
        }


def audit(evidence: Evidence) -> Audit:
    """Return the result of all checks; a check that raises flags every row, so that no hours of work are lost."""
    return Audit({check.name: _verdicts(check, evidence) for check in CHECKS})


def _verdicts(check: Check, evidence: Evidence) -> list[Verdict]:
    try:
        return list(check.verdicts(evidence))
    except Exception as error:
        return [Verdict({}, f"the check itself failed: {type(error).__name__}: {' '.join(str(error).split())}")]
