"""The contract of an attack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from advser.models.terms import DOMAINS, Domain
from advser.plugins.parameters import Parameters
from advser.threat.admission import admissible, admit
from advser.threat.budget import Budget, Projection, unbounded
from advser.threat.model import Access, Norm, unit_of
from advser.threat.target import Target


@dataclass(frozen=True)
class Reading:
    """What an attack takes from files.

    Attributes:
        digest: of their contents.
        note: what boards must say of them.
    """

    digest: str
    note: str


class Attack(Parameters, ABC):
    """A perturbation method; its fields are its parameters.

    A field called ``epsilon`` is the attack's budget, in the unit of the domain that the attack runs in: full scale
    for waveforms on [−1, 1], standard deviations of the training data for spectrograms. It is meant in the norm that
    a field or class variable called ``norm`` says, L∞ without one; in the norm ``relative-l2``, for waveforms alone,
    its unit is the clip's own L2 norm. The harness projects what `perturb` returns to that budget, masks the padding,
    clips sound to [−1, 1], rounds it to 16-bit PCM, stores it, and judges what it reads back; an attack need do none
    of this.
    """

    access: ClassVar[Access] = "white-box"
    """What the attack asks of its target; ``blind`` if it ignores it."""

    domains: ClassVar[tuple[Domain, ...]] = DOMAINS
    """Where the attack can run."""

    single_step: ClassVar[bool] = False
    """Whether it takes one step along the gradient, or asks its target nothing; what takes more must not be weaker."""

    bf16: ClassVar[bool] = False
    """Whether it is as strong with gradients in bfloat16, so that suites may give it those (``attack_precision``).

    Of the losses that come with them it may make nothing: they are rounded too. Of a subclass it is said anew.
    """

    needs_spectrogram: ClassVar[bool] = False
    """Whether it needs a model whose features are a spectrogram, even where it perturbs the sound."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions, beside those of the stages, whose versions decide what it makes."""

    places: ClassVar[frozenset[str]] = frozenset()
    """Parameters that only say where files lie: what these hold counts (`reads`), their path does not."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Take nothing of a subclass for granted that was shown of the attack that it changes."""
        super().__pydantic_init_subclass__(**kwargs)
        cls.bf16 = vars(cls).get("bf16", False)

    def reads(self, clips: Mapping[str, int]) -> Reading | None:
        """Return what the attack takes from files for a corpus, or None if nothing.

        Args:
            clips: the name of each clip, with its samples at 16 kHz.

        Raises:
            InputError: if a file is unusable.
        """
        return None

    @classmethod
    def ascends(cls, params: Mapping[str, Any]) -> bool:
        """Tell whether the attack climbs the suite's ``objective`` with these parameters, and not a loss of its own."""
        return True

    @abstractmethod
    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return adversarial examples in the shape of ``x``.

        Args:
            target: the model before this batch.
            x: waveforms (B, T) on [−1, 1], or features (B, bands, frames) in standard deviations.
            labels: classes (B,), or probabilities (B, C) if the suite says ``labels: soft``.
            generator: the only source of random numbers, on the device of ``x``.
        """

    def budget(self, domain: Domain) -> Budget | None:
        """Return the budget in ``domain``, or None if the attack has no bound.

        The harness reads ``norm`` and ``epsilon`` itself: overriding this changes nothing that is admitted.
        """
        epsilon: float | None = getattr(self, "epsilon", None)
        norm: Norm = getattr(self, "norm", "linf")
        return None if epsilon is None else Budget(norm, epsilon, unit_of(domain, norm))

    def project(self, perturbed: Tensor, x: Tensor, domain: Domain) -> Tensor:
        """Return the nearest point to ``perturbed`` within the budget around ``x``; without a budget, itself."""
        return self.projection(x, domain)(perturbed)

    def projection(self, x: Tensor, domain: Domain) -> Projection:
        """Return `project` around ``x``, for attacks of many steps: its bounds are computed once.

        An attack that projects otherwise overrides this, not `project`. What it returns is a
        `advser.threat.budget.Projection`: it takes, beside the point, memory to write ``into``.
        """
        budget = self.budget(domain)
        return unbounded if budget is None else budget.projection(x)

    def admitted(self, perturbed: Tensor, x: Tensor, target: Target) -> Tensor:
        """Return what the harness admits of ``perturbed`` before it rounds: `advser.threat.admission.admit`."""
        return admit(perturbed, x, target.mask, target.domain, self.budget(target.domain))

    def judged(self, perturbed: Tensor, x: Tensor, target: Target) -> Tensor:
        """Return what the harness judges of ``perturbed``: `advser.threat.admission.admissible`."""
        return admissible(perturbed, x, target.mask, target.domain, self.budget(target.domain))
