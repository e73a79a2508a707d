"""Noise for every budget: what an attack must be held against, whether the suite lists it or not."""

from __future__ import annotations

from collections.abc import Iterable

from advser.attacks.base import Attack
from advser.attacks.controls import Noise
from advser.models.terms import Domain
from advser.plan.cells import Configuration
from advser.suite.schema import AttackEntry
from advser.threat.budget import Budget
from advser.threat.model import Delivery


def missing_noise(rows: Iterable[Configuration]) -> list[AttackEntry]:
    """Return noise, as loud as the budget allows, for each budget that an attack has and no noise of the suite.

    Within an L∞ budget that is ±ε of random sign, which has the energy of one step of FGSM: no attack within it is
    louder. Relative to the clip it has the budget's SNR; of budgets so small that the noise is below half a 16-bit step
    a sample, rounding leaves less. An attack without a budget has none at which noise could be as loud.
    """
    wanted: dict[tuple[Domain, Budget], dict[Delivery, None]] = {}
    there: set[tuple[Domain, Budget, Delivery]] = set()
    for row in rows:
        budget = Attack.budget(row.attack, row.domain)
        if budget is None or not budget.epsilon:
            continue
        if isinstance(row.attack, Noise) and (budget.norm != "linf" or row.attack.kind == "sign"):
            there |= {(row.domain, budget, delivery) for delivery in row.deliveries}
        elif not row.blind:
            wanted.setdefault((row.domain, budget), {}).update(dict.fromkeys(row.deliveries))
    missing = {
        (domain, budget): [delivery for delivery in deliveries if (domain, budget, delivery) not in there]
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
