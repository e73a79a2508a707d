"""The contract of an attack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final, get_args

import torch
from torch import Tensor

from advser.errors import InputError
from advser.models.terms import DOMAINS, Domain
from advser.plugins.parameters import Parameters
from advser.plugins.roles import field_with_role, fields_with_role, fixed_norm, norm_of_budget, value_of_budget
from advser.threat.admission import admissible, admit
from advser.threat.budget import Budget, Projection, unbounded
from advser.threat.model import Access, Norm, unit_of
from advser.threat.target import Target


@dataclass(frozen=True)
class Reading:
    """What an attack reads from files.

    Attributes:
        digest: of the files' contents.
        note: what boards must say about them.
    """

    digest: str
    note: str


def declared_budget(plugin: type[Attack], params: Mapping[str, Any], domain: Domain) -> Budget | None:
    """Return the budget that an attack declares, by its parameters alone; None for an attack without a bound.

    No method of the plugin has a say in it.

    Args:
        plugin: the attack's class.
        params: its complete parameters.
        domain: what it perturbs.

    Raises:
        InputError: if the norm has no meaning in the domain.
    """
    epsilon = value_of_budget(plugin, params)
    norm: Norm = norm_of_budget(plugin, params)  # type: ignore[assignment]
    return None if epsilon is None else Budget(norm, epsilon, unit_of(domain, norm))


class Attack(Parameters, ABC):
    """A perturbation method. Its fields are its parameters.

    An attack declares its budget: ``epsilon: float = budget(about="L∞ budget ε")``. The unit is that of the domain in
    which it runs: full scale for waveforms on [−1, 1], standard deviations of the training data for spectrograms, and
    the clip's own L2 norm for the norm ``relative-l2`` (waveforms only). An attack that is neither blind nor bounded
    sets `unbounded`.

    The harness projects what `perturb` returns to the budget, masks the padding, clips sound to [−1, 1], rounds it to
    16-bit PCM, stores it, and judges what it reads back. An attack need do none of this.
    """

    access: ClassVar[Access] = "white-box"
    """What the attack reads from its target; ``blind`` if nothing."""

    domains: ClassVar[tuple[Domain, ...]] = DOMAINS
    """Where the attack can run."""

    unbounded: ClassVar[bool] = False
    """Whether the attack declares no budget on purpose: nothing then bounds what it returns."""

    single_step: ClassVar[bool] = False
    """Whether it takes one step along the gradient, or reads nothing. An attack of more steps must not be weaker."""

    bf16: ClassVar[bool] = False
    """Whether it is as strong with gradients in bfloat16, so that a suite may give it those (``attack_precision``).

    Losses are then rounded too: the attack must not use them. A subclass does not inherit this.
    """

    needs_spectrogram: ClassVar[bool] = False
    """Whether it needs a model whose features are a spectrogram, even where it perturbs the waveform."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions, beside those of the stages, whose versions affect its examples."""

    places: ClassVar[frozenset[str]] = frozenset()
    """Parameters that are paths of files. The files' contents count (`reads`), the paths do not."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Reset what a subclass must declare itself, and refuse a wrong declaration of the budget.

        Raises:
            InputError: if the class has a member ``budget``, two budgets, or an unknown norm.
        """
        super().__pydantic_init_subclass__(**kwargs)
        cls.bf16 = vars(cls).get("bf16", False)
        where = f"attack class '{cls.__name__}'"
        if cls.budget is not Attack.budget or "budget" in cls.model_fields:
            raise InputError(f"{where}: got a member 'budget', expected another name: it is final")
        for role in ("budget", "norm"):
            if len(names := fields_with_role(cls, role)) > 1:
                raise InputError(f"{where}: got the {role} parameters {', '.join(names)}, expected at most one")
        if (norm := fixed_norm(cls)) not in (None, *get_args(Norm)):
            raise InputError(f"{where}: norm: got '{norm}', expected {', '.join(get_args(Norm))}")

    @classmethod
    def declaration_error(cls) -> str:
        """Return what is wrong with the declaration of the budget, in one line; empty if nothing."""
        bounded = field_with_role(cls, "budget") is not None
        if bounded and cls.unbounded:
            return "budget: got a budget and unbounded = True, expected one of the two"
        if not bounded and not cls.unbounded and cls.access != "blind":
            return "budget: got none, expected 'epsilon: float = budget()', or unbounded = True"
        return ""

    def reads(self, clips: Mapping[str, int]) -> Reading | None:
        """Return what the attack reads from files for a corpus; None for an attack without files.

        Args:
            clips: the name of each clip, with its number of samples at 16 kHz.

        Raises:
            InputError: if a file is unusable.
        """
        return None

    @classmethod
    def ascends(cls, params: Mapping[str, Any]) -> bool:
        """Return whether the attack ascends the suite's ``objective`` with these parameters, not a loss of its own."""
        return True

    @abstractmethod
    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return adversarial examples in the shape of ``x``.

        Args:
            target: the model, as far as `access` allows, for this batch.
            x: waveforms (B, T) on [−1, 1], or features (B, bands, frames) in standard deviations.
            labels: classes (B,), or probabilities (B, C) if the suite says ``labels: soft``.
            generator: the only source of random numbers, on the device of ``x``.
        """

    @final
    def budget(self, domain: Domain) -> Budget | None:
        """Return the declared budget in ``domain``; None for an attack without a bound.

        Raises:
            InputError: if the norm has no meaning in the domain.
        """
        return declared_budget(type(self), vars(self), domain)

    def project(self, perturbed: Tensor, x: Tensor, domain: Domain) -> Tensor:
        """Return the nearest point to ``perturbed`` within the budget around ``x``; without a budget, ``perturbed``."""
        return self.projection(x, domain)(perturbed)

    def projection(self, x: Tensor, domain: Domain) -> Projection:
        """Return `project` around ``x``, for attacks of many steps: its bounds are computed once.

        An attack that projects in its own way overrides this method, not `project`. The returned
        `advser.threat.budget.Projection` takes memory to write ``into`` beside the point.
        """
        budget = self.budget(domain)
        return unbounded if budget is None else budget.projection(x)

    def admitted(self, perturbed: Tensor, x: Tensor, target: Target) -> Tensor:
        """Return what the harness admits of ``perturbed`` before it rounds (`advser.threat.admission.admit`)."""
        return admit(perturbed, x, target.mask, target.domain, self.budget(target.domain))

    def judged(self, perturbed: Tensor, x: Tensor, target: Target) -> Tensor:
        """Return what the harness judges of ``perturbed`` (`advser.threat.admission.admissible`)."""
        return admissible(perturbed, x, target.mask, target.domain, self.budget(target.domain))
