"""Attacks of the Adversarial Robustness Toolbox (ART), before AdvSER's own target."""

from __future__ import annotations

import inspect
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor
from torch.nn.functional import one_hot

from advser.attacks.base import Attack
from advser.audio.pcm import PCM_STEP
from advser.errors import InputError
from advser.plugins.extras import not_installed
from advser.plugins.parameters import budget, budget_norm, parameter
from advser.threat.model import Access, Norm
from advser.threat.objectives import classes
from advser.threat.target import Target

if TYPE_CHECKING:
    from advser.attacks.toolbox_classifier import Array, ClipClassifier

ALWAYS = {"targeted": False, "verbose": False, "summary_writer": False}
"""Arguments that every attack is given that takes them."""

Ball = Literal["linf", "l2"]
"""Norms that the toolbox has."""

ORDERS: dict[Norm, float] = {"linf": np.inf, "l2": 2}
"""Norms as ART and torch know them."""

STARTED = ("BoundaryAttack", "HopSkipJump")
"""Attacks whose starting point ART draws from a generator that nothing can seed: they are given one."""

TRIALS = 100
"""Noises that are tried as a starting point."""

FAINTEST = 0.001
"""Amplitude of the first of them, of the range that values lie in; the last one has all of it."""


class ToolboxAttack(Attack, ABC):
    """What attacks of ART share: they are run clip by clip, untargeted, and draw from the generator that is given.

    Many of them minimise the distance instead of keeping a budget: an example that is farther away than ε is cut to the
    budget by the harness and may then be read rightly again. Soft labels count as their most probable class.
    """

    packages: ClassVar[tuple[str, ...]] = ("adversarial-robustness-toolbox",)

    norm: Ball = budget_norm(about="norm of the budget")
    epsilon: float | None = budget(None, unit="full-scale or z", about="budget ε; none: no bound")

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Run ART on each clip.

        Raises:
            InputError: if ART is not installed, or refuses this model or the attack's arguments.
        """
        if self.epsilon == 0:
            return x
        with _seeded(generator):
            return self._run(target, x, classes(labels), generator)

    @abstractmethod
    def _run(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return what ART makes of each clip; ``labels`` are classes (B,)."""


class ART(ToolboxAttack):
    """Any evasion attack of ART, white-box: it may ask for decisions, logits, and gradients of the loss and of logits.

    ``attack`` is a class in ``art.attacks.evasion``, ``arguments`` those of its constructor; ``eps`` and ``norm``, if
    there are such and they are not given, are those of the budget, and ``targeted`` is off. ART's other defaults are
    meant for images on [0, 1]: give ``eps_step`` at least. ART sees one-channel images, (1, bands, frames) or
    (1, 1, samples), so that attacks that need two dimensions, colours or probabilities fail. Of sound, 16-bit rounding
    may undo what stops just past the decision boundary.

    Work on sound and on spectrograms: AutoConjugateGradient, AutoProjectedGradientDescent, BasicIterativeMethod,
    BoundaryAttack, CarliniL2Method, CarliniLInfMethod, DeepFool, ElasticNet, FastGradientMethod, HopSkipJump,
    MomentumIterativeMethod, NewtonFool, ProjectedGradientDescent, SignOPTAttack, UniversalPerturbation (of each clip
    alone). One forward pass a clip is spent on the number of classes. DeepFool leaves the model's own decision,
    whatever label it is given: a clip that is misread when clean may become right.
    """

    citation: ClassVar[str] = "Nicolae et al.: Adversarial Robustness Toolbox v1.0.0, arXiv 1807.01069"

    attack: str = parameter("FastGradientMethod", about="class in art.attacks.evasion")
    arguments: dict[str, Any] = parameter({}, about="arguments of its constructor")

    @model_validator(mode="after")
    def _constructible(self) -> Self:
        signature = inspect.signature(toolbox_class(self.attack))
        allowed = [name for name in list(signature.parameters)[1:] if name not in ALWAYS]
        for name in self.arguments:
            if name not in allowed:
                raise ValueError(f"arguments: got '{name}', expected for {self.attack}: {', '.join(allowed)}")
        try:
            signature.bind(None, **self._configured())
        except TypeError as error:
            raise ValueError(f"arguments: {error}, expected for {self.attack}: {', '.join(allowed)}") from None
        return self

    def _configured(self) -> dict[str, Any]:
        accepted = inspect.signature(toolbox_class(self.attack)).parameters
        budget = {} if self.epsilon is None else {"eps": self.epsilon}
        given = {**ALWAYS, **budget, "norm": ORDERS[self.norm], **self.arguments}
        return {name: value for name, value in given.items() if name in accepted}

    def _run(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        from advser.attacks.toolbox_classifier import ClipClassifier

        number, budget = target.logits(x).shape[1], self.budget(target.domain)
        found = x.clone()
        for row, label in enumerate(labels.tolist()):
            clip = ClipClassifier(target, x, row, budget, Target.logits, number)
            found[row] = _generated(self.attack, self._configured(), clip, label, generator)
        return found


class HopSkipJump(ToolboxAttack):
    """HopSkipJump, by decisions alone: it walks along the decision boundary towards the clip.

    ART is told of each input only whether it is still read as the label; the result is the nearest input that was not.
    The walk starts from the clip in the faintest of 100 uniform noises of growing amplitude that has it misread;
    without one, or if it is misread when clean, the clip stays as it is. Changes are whole steps of 2⁻¹⁵, as in 16-bit
    PCM: so near the boundary, sound that is rounded afterwards would often be read rightly again, and features
    sometimes, by the rounding of float32 in a batch of another size.
    """

    citation: ClassVar[str] = (
        "Chen, Jordan, Wainwright: HopSkipJumpAttack: a query-efficient decision-based attack, IEEE S&P 2020; "
        "implementation: Adversarial Robustness Toolbox"
    )
    access: ClassVar[Access] = "decisions"

    queries: int = parameter(1000, unit="forward passes a clip", about="most queries, that of the clean clip too", ge=1)
    max_iter: int = parameter(50, unit="steps", about="most steps along the boundary", ge=0)
    max_eval: int = parameter(10_000, unit="queries", about="most queries for one estimate of the direction", ge=1)
    init_eval: int = parameter(100, unit="queries", about="queries for the first estimate; grows with √step", ge=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        toolbox_class("HopSkipJump")
        if self.init_eval > self.max_eval:
            raise ValueError(f"init_eval is {self.init_eval}, expected at most max_eval, {self.max_eval}")
        return self

    def _run(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        from advser.attacks.toolbox_classifier import ClipClassifier

        configured = {"norm": ORDERS[self.norm], "verbose": False}
        configured |= {"max_iter": self.max_iter, "max_eval": self.max_eval, "init_eval": self.init_eval}
        found = x.clone()
        right = target.decisions(x) == labels
        for row in right.nonzero().flatten().tolist():
            search = _Search(x[row], labels[row], self.norm, self.queries - 1)
            clip = ClipClassifier(target, x, row, self.budget(target.domain), search, 2)
            with suppress(_SpentError):
                _generated("HopSkipJump", configured, clip, 0, generator)
            found[row] = search.nearest
        return found


class _SpentError(Exception):
    """All queries are spent."""


class _Search:
    """Tells ART whether inputs, their changes rounded to PCM steps, are misread, and keeps the nearest one that is.

    The bound on queries also ends ART's search for a step that it repeats until it succeeds, which need not happen.
    """

    def __init__(self, clean: Tensor, label: Tensor, norm: Norm, queries: int) -> None:
        self.nearest = self.clean = clean
        self.label = label
        self.order = ORDERS[norm]
        self.distance = torch.inf
        self.left = queries

    def __call__(self, target: Target, x: Tensor) -> Tensor:
        if len(x) > self.left:
            raise _SpentError
        self.left -= len(x)
        x = self.clean + torch.round((x - self.clean) / PCM_STEP) * PCM_STEP
        misread = target.decisions(x) != self.label
        distance = torch.where(misread, (x - self.clean).flatten(1).norm(self.order, dim=1), torch.inf)
        if (nearest := float(distance.min())) < self.distance:
            self.distance, self.nearest = nearest, x[distance.argmin()]
        return one_hot(misread.long(), 2).float()


def toolbox_class(name: str) -> type[Any]:
    """Return an evasion attack of ART by the name of its class.

    Raises:
        InputError: if ART is not installed.
        ValueError: if it has no such attack.
    """
    try:
        from art.attacks import EvasionAttack, evasion
    except ImportError as error:
        raise not_installed(f"attack '{name}'", "adversarial-robustness-toolbox") from error
    found = getattr(evasion, name, None)
    if not (isinstance(found, type) and issubclass(found, EvasionAttack)):
        raise ValueError(f"attack: got '{name}', expected a class in art.attacks.evasion")
    return found


def _generated(
    name: str, configured: dict[str, Any], clip: ClipClassifier, label: int, generator: torch.Generator
) -> Tensor:
    """Return what an attack of ART makes of a clip whose label has the column ``label``."""
    further = {}
    if name in STARTED:
        start = _misread(clip, generator)
        if start is None:
            return clip.inputs(clip.clean)[0]
        further["x_adv_init"] = start
    try:
        attack = toolbox_class(name)(clip, **configured)
    except (TypeError, ValueError) as error:
        raise InputError(f"attack '{name}': refused by the toolbox: {error}") from error
    y = np.eye(clip.nb_classes, dtype=np.float32)[[label]]
    return clip.inputs(attack.generate(clip.clean, y=y, **further))[0]


def _misread(clip: ClipClassifier, generator: torch.Generator) -> Array | None:
    """Return the clip in the faintest of some noises that changes how it is read, as a batch of one, or None."""
    decided = clip.predict(clip.clean).argmax(1)
    low, high = clip.clip_values
    for amplitude in np.geomspace(FAINTEST, 1, TRIALS) * (high - low):
        draw = torch.rand(clip.clean.shape, generator=generator, device=generator.device).cpu().numpy()
        noisy = (clip.clean + amplitude * (2 * draw - 1)).clip(low, high).astype(np.float32)
        if clip.predict(noisy).argmax(1) != decided:
            found: Array = noisy
            return found
    return None


@contextmanager
def _seeded(generator: torch.Generator) -> Iterator[None]:
    """Seed the global generators that ART draws from, numpy's and Python's, and restore them afterwards."""
    seed = int(torch.randint(2**32, (1,), generator=generator, device=generator.device))
    numpys, pythons = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpys)
        random.setstate(pythons)
