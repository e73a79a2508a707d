"""Noise for every budget: the control of each attack, whether the suite lists it or not."""

from __future__ import annotations

from collections.abc import Iterable

from advser.attacks.controls import Noise
from advser.models.terms import Domain
from advser.plan.cells import Configuration
from advser.suite.schema import AttackEntry
from advser.threat.budget import Budget
from advser.threat.model import Delivery


def missing_noise(rows: Iterable[Configuration]) -> list[AttackEntry]:
    """Return noise, as loud as the budget allows, for each budget of an attack that has no noise in the suite.

    Within an L∞ budget the noise is ±ε of random sign, the energy of one FGSM step: no attack within it is louder. With
    a budget relative to the clip it has the budget's SNR; rounding leaves less where the noise is below half a 16-bit
    step per sample. An attack without a budget gets no noise.
    """
    wanted: dict[tuple[Domain, Budget], dict[Delivery, None]] = {}
    present: set[tuple[Domain, Budget, Delivery]] = set()
    for row in rows:
        budget = row.budget
        if budget is None or not budget.epsilon:
            continue
        if isinstance(row.attack, Noise) and (budget.norm != "linf" or row.attack.kind == "sign"):
            present |= {(row.domain, budget, delivery) for delivery in row.deliveries}
        elif not row.blind:
            wanted.setdefault((row.domain, budget), {}).update(dict.fromkeys(row.deliveries))
    missing = {
        (domain, budget): [delivery for delivery in deliveries if (domain, budget, delivery) not in present]
        for (domain, budget), deliveries in wanted.items()
    }
    return [
        AttackEntry(
            name="noise",
            params={"epsilon": budget.epsilon, "norm": budget.norm},
            domain=[domain],
            delivery=deliveries,
        )
        for (domain, budget), deliveries in missing.items()
        if deliveries
    ]
