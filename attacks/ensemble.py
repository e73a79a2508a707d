"""The worst of several attacks, clip by clip, which spends its budget on the clips that still stand."""

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
from advser.plugins.parameters import budget, budget_norm, parameter
from advser.threat.model import Norm
from advser.threat.target import Target

USUAL: Final[tuple[dict[str, Any], ...]] = (
    {"name": "apgd", "params": {"loss": "objective"}},
    {"name": "apgd", "params": {"loss": "cross-entropy"}},
    {"name": "apgd", "params": {"loss": "dlr"}},
    {"name": "apgd-targeted"},
    {"name": "square"},
)
"""What is run unless the suite says otherwise."""


class Ensemble(Attack):
    """Attacks in turn, each on the clips that none before it has had misread; a clip's best example is kept.

    A clip has fallen once its example, projected and rounded to 16-bit PCM, is misread; one that is misread when clean
    stays as it is. Of a clip that never falls, the example of the highest margin is kept (highest other logit less that
    of the label), which may be the clean one. Under an objective that aims at more than misreading, as ``evasion``, no
    clip falls: all are given to every attack; misread examples come before others, and those of a higher loss first.

    By default: ``apgd`` with the suite's objective, with cross-entropy, and with DLR (below three classes that is the
    margin), ``apgd-targeted`` and, in L∞, ``square``, each with its own defaults. They have ``epsilon`` and ``norm``
    from the ensemble. Where the objective is the loss of another ``apgd`` among them, it is not ascended twice.
    AutoAttack, which this follows, has its minimum-norm attack FAB too, no run of the untargeted DLR in its standard
    form, and 5,000 queries of Square, here 1,000 unless ``attacks`` says otherwise.
    """

    citation: ClassVar[str] = (
        "Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free "
        "attacks, ICML 2020, sec. 5"
    )

    epsilon: float = budget(unit="full-scale, z or clip", about="budget ε of all attacks")
    norm: Norm = budget_norm(about="norm of the budget of all attacks")
    attacks: tuple[AttackReference, ...] = parameter(
        (),
        about="in this order, without epsilon and norm; none: apgd (objective, cross-entropy, dlr), apgd-targeted, "
        "square",
    )

    @model_validator(mode="before")
    @classmethod
    def _share(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("epsilon"), (int, float)):
            return data
        norm = data.get("norm", "linf")
        listed = data.get("attacks") or [one for one in USUAL if keeps_norm(one["name"], norm)]
        if not isinstance(listed, (list, tuple)):
            return data
        return {**data, "attacks": tuple(with_budget(one, data["epsilon"], norm) for one in listed)}

    @classmethod
    def ascends(cls, params: Mapping[str, Any]) -> bool:
        """Tell whether any of the attacks does."""
        return any(map(ascends, params.get("attacks") or USUAL))

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Run the attacks.

        Raises:
            InputError: if one of them does not run in the domain.
        """
        best = Best(self, target, x, labels, target.objective)
        best.offer(torch.arange(len(x), device=x.device), x)
        attacks = [reference.build_for(target.domain) for reference in self.attacks]
        losses = [LOSSES.get(attack.loss) for attack in attacks if isinstance(attack, APGD)]
        for attack in attacks:
            rows = best.standing
            again = isinstance(attack, APGD) and attack.loss == OBJECTIVE and target.objective in losses
            if len(rows) and not again:
                best.offer(rows, attack.perturb(target.at(rows), x[rows], labels[rows], generator))
        return best.examples
