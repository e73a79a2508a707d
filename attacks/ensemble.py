"""The worst of several attacks for each clip; each attack runs on the clips that are still robust."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import torch
from pydantic import model_validator
from torch import Tensor

from advser.attacks.auto_pgd import APGD, LOSSES, OBJECTIVE
from advser.attacks.base import Attack
from advser.attacks.best import Best
from advser.attacks.reference import AttackReference, ascends, keeps_norm, with_budget
from advser.plugins.parameters import parameter
from advser.plugins.roles import budget, budget_norm
from advser.threat.model import Norm
from advser.threat.target import Target

DEFAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"name": "apgd", "params": {"loss": "objective"}},
    {"name": "apgd", "params": {"loss": "cross-entropy"}},
    {"name": "apgd", "params": {"loss": "dlr"}},
    {"name": "apgd-targeted"},
    {"name": "square"},
)
"""The default attacks."""


class Ensemble(Attack):
    """Several attacks in turn, each on the clips that are still robust; each clip's best example is kept.

    A clip is misled once its example, projected and rounded to 16-bit PCM, is misclassified. A clip that is
    misclassified when clean stays unchanged. For a robust clip, the example of the highest margin (highest other logit
    minus the label's logit) is kept, which may be the clean clip. If the objective aims at more than misclassification,
    as ``evasion`` does, every attack runs on all clips; misclassified examples are preferred, then those of a higher
    loss.

    Defaults: ``apgd`` with the suite's objective, with cross-entropy, and with DLR (the margin below three classes),
    ``apgd-targeted`` and, in L∞, ``square``. Each uses its own defaults, and the ensemble's ``epsilon`` and ``norm``.
    If the suite's objective is also the loss of another ``apgd`` here, it is ascended once.

    The ensemble follows AutoAttack, which also contains the minimum-norm attack FAB, does not run the untargeted DLR in
    its standard form, and gives Square 5,000 queries instead of 1,000 here.
    """

    citation: ClassVar[str] = (
        "Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free "
        "attacks, ICML 2020, sec. 5"
    )

    epsilon: float = budget(unit="full-scale, z or clip", about="budget ε of all attacks")
    norm: Norm = budget_norm(about="norm of the budget of all attacks")
    attacks: tuple[AttackReference, ...] = parameter(
        (),
        about="attacks in order, without epsilon and norm; none: apgd (objective, cross-entropy, dlr), apgd-targeted, "
        "square",
    )

    @model_validator(mode="before")
    @classmethod
    def _share(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("epsilon"), (int, float)):
            return data
        norm = data.get("norm", "linf")
        listed = data.get("attacks") or [attack for attack in DEFAULTS if keeps_norm(attack["name"], norm)]
        if not isinstance(listed, (list, tuple)):
            return data
        return {**data, "attacks": tuple(with_budget(attack, data["epsilon"], norm) for attack in listed)}

    @classmethod
    def ascends(cls, params: Mapping[str, Any]) -> bool:
        """Return whether any of the attacks ascends the suite's objective."""
        return any(map(ascends, params.get("attacks") or DEFAULTS))

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return each clip's best example of all attacks.

        Raises:
            InputError: if an attack does not run in the domain.
        """
        best = Best(self, target, x, labels, target.objective)
        best.offer(torch.arange(len(x), device=x.device), x)
        attacks = [reference.build_for(target.domain) for reference in self.attacks]
        losses = [LOSSES.get(attack.loss) for attack in attacks if isinstance(attack, APGD)]
        for attack in attacks:
            rows = best.robust
            redundant = isinstance(attack, APGD) and attack.loss == OBJECTIVE and target.objective in losses
            if len(rows) and not redundant:
                best.offer(rows, attack.perturb(target.at(rows), x[rows], labels[rows], generator))
        return best.examples
