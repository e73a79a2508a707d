"""Attacks of the Adversarial Robustness Toolbox (ART) on AdvSER's target."""

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
from advser.plugins.parameters import parameter
from advser.plugins.roles import budget, budget_norm
from advser.threat.model import Access, Norm
from advser.threat.objectives import classes
from advser.threat.target import Target

if TYPE_CHECKING:
    from advser.attacks.toolbox_classifier import Array, ClipClassifier

ALWAYS = {"targeted": False, "verbose": False, "summary_writer": False}
"""Arguments of every attack that accepts them."""

Ball = Literal["linf", "l2"]
"""Norms that ART supports."""

ORDERS: dict[Norm, float] = {"linf": np.inf, "l2": 2}
"""Norms as ART and torch name them."""

NEED_START = ("BoundaryAttack", "HopSkipJump")
"""Attacks that need a starting point, because ART draws theirs from a generator that cannot be seeded."""

TRIALS = 100
"""Number of noises tried as a starting point."""

FAINTEST = 0.001
"""Amplitude of the first noise, as a share of the range of values; the last noise has an amplitude of 1."""


class ToolboxAttack(Attack, ABC):
    """Base of ART's attacks, which run clip by clip, untargeted, with random numbers from the given generator.

    Many of them minimise the distance and ignore the budget. The harness projects an example beyond ε to the budget,
    where the victim may classify it correctly again. Soft labels count as their most probable class.
    """

    packages: ClassVar[tuple[str, ...]] = ("adversarial-robustness-toolbox",)

    norm: Ball = budget_norm(about="norm of the budget")
    epsilon: float | None = budget(None, unit="full-scale or z", about="budget ε; none: no bound")

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ART's example for each clip.

        Raises:
            InputError: if ART is not installed, or refuses the model or the attack's arguments.
        """
        if self.epsilon == 0:
            return x
        with _seeded(generator):
            return self._run(target, x, classes(labels), generator)

    @abstractmethod
    def _run(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ART's example for each clip; ``labels`` are classes (B,)."""


class ART(ToolboxAttack):
    """Any evasion attack of ART, white-box: with decisions, logits, and gradients of the loss and of logits.

    ``attack`` is a class in ``art.attacks.evasion``, ``arguments`` are arguments of its constructor. ``eps`` and
    ``norm``, where they exist and are not given, follow the budget; ``targeted`` is off. ART's other defaults are for
    images on [0, 1]: set at least ``eps_step``. ART gets one-channel images, (1, bands, frames) or (1, 1, samples), so
    attacks that need two dimensions, colours or probabilities fail. In sound, 16-bit rounding may undo examples just
    beyond the decision boundary.

    Work on sound and on spectrograms: AutoConjugateGradient, AutoProjectedGradientDescent, BasicIterativeMethod,
    BoundaryAttack, CarliniL2Method, CarliniLInfMethod, DeepFool, ElasticNet, FastGradientMethod, HopSkipJump,
    MomentumIterativeMethod, NewtonFool, ProjectedGradientDescent, SignOPTAttack, UniversalPerturbation (of each clip
    alone). One forward pass per clip determines the number of classes. DeepFool ignores the label and leaves the
    model's own decision: a clip that is misclassified when clean may become correct.
    """

    citation: ClassVar[str] = "Nicolae et al.: Adversarial Robustness Toolbox v1.0.0, arXiv 1807.01069"

    attack: str = parameter("FastGradientMethod", about="class in art.attacks.evasion")
    arguments: dict[str, Any] = parameter({}, about="arguments of its constructor")

    @model_validator(mode="after")
    def _has_valid_arguments(self) -> Self:
        signature = inspect.signature(toolbox_class(self.attack))
        allowed = [name for name in list(signature.parameters)[1:] if name not in ALWAYS]
        for name in self.arguments:
            if name not in allowed:
                raise ValueError(f"arguments: got '{name}', expected arguments of {self.attack}: {', '.join(allowed)}")
        try:
            signature.bind(None, **self._configured())
        except TypeError as error:
            expected = f"expected arguments of {self.attack}: {', '.join(allowed)}"
            raise ValueError(f"arguments: {error}, {expected}") from None
        return self

    def _configured(self) -> dict[str, Any]:
        accepted = inspect.signature(toolbox_class(self.attack)).parameters
        budget = {} if self.epsilon is None else {"eps": self.epsilon}
        given = {**ALWAYS, **budget, "norm": ORDERS[self.norm], **self.arguments}
        return {name: value for name, value in given.items() if name in accepted}

    def _run(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        from advser.attacks.toolbox_classifier import ClipClassifier

        number, budget = target.logits(x).shape[1], self.budget(target.domain)
        examples = x.clone()
        for row, label in enumerate(labels.tolist()):
            clip = ClipClassifier(target, x, row, budget, Target.logits, number)
            examples[row] = _generated(self.attack, self._configured(), clip, label, generator)
        return examples


class HopSkipJump(ToolboxAttack):
    """HopSkipJump, with decisions alone: it follows the decision boundary towards the clip.

    ART learns of each input only whether it is misclassified; the result is the nearest misclassified input. The search
    starts from the clip with the faintest of 100 uniform noises of growing amplitude that misleads the model. Without
    any, or if it is misclassified when clean, the clip stays unchanged. Changes are whole steps of 2⁻¹⁵, as in 16-bit
    PCM. Without these steps, examples so close to the boundary would often become correct again: sound by 16-bit
    rounding, features sometimes by float32 rounding in a batch of another size.
    """

    citation: ClassVar[str] = (
        "Chen, Jordan, Wainwright: HopSkipJumpAttack: a query-efficient decision-based attack, IEEE S&P 2020; "
        "implementation: Adversarial Robustness Toolbox"
    )
    access: ClassVar[Access] = "decisions"

    queries: int = parameter(1000, unit="forward passes per clip", about="most queries, including the clean clip", ge=1)
    max_iter: int = parameter(50, unit="steps", about="most steps along the boundary", ge=0)
    max_eval: int = parameter(10_000, unit="queries", about="most queries for an estimate of the direction", ge=1)
    init_eval: int = parameter(100, unit="queries", about="queries for the first estimate; grows with √step", ge=1)

    @model_validator(mode="after")
    def _has_possible_estimate(self) -> Self:
        toolbox_class("HopSkipJump")
        if self.init_eval > self.max_eval:
            raise ValueError(f"init_eval: got {self.init_eval}, expected at most max_eval, {self.max_eval}")
        return self

    def _run(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        from advser.attacks.toolbox_classifier import ClipClassifier

        configured = {"norm": ORDERS[self.norm], "verbose": False}
        configured |= {"max_iter": self.max_iter, "max_eval": self.max_eval, "init_eval": self.init_eval}
        examples = x.clone()
        correct = target.decisions(x) == labels
        for row in correct.nonzero().flatten().tolist():
            search = _Search(x[row], labels[row], self.norm, self.queries - 1)
            clip = ClipClassifier(target, x, row, self.budget(target.domain), search, 2)
            with suppress(_SpentError):
                _generated("HopSkipJump", configured, clip, 0, generator)
            examples[row] = search.nearest
        return examples


class _SpentError(Exception):
    """The search has no queries left."""


class _Search:
    """Answer for ART: whether inputs, with changes rounded to PCM steps, are misclassified; stores the nearest of them.

    The limit of queries also ends ART's loop for a step size, which otherwise repeats until it succeeds, if ever.
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
        misled = target.decisions(x) != self.label
        distance = torch.where(misled, (x - self.clean).flatten(1).norm(self.order, dim=1), torch.inf)
        if (nearest := float(distance.min())) < self.distance:
            self.distance, self.nearest = nearest, x[distance.argmin()]
        return one_hot(misled.long(), 2).float()


def toolbox_class(name: str) -> type[Any]:
    """Return the class of an evasion attack of ART.

    Raises:
        InputError: if ART is not installed.
        ValueError: if ART has no such attack.
    """
    try:
        from art.attacks import EvasionAttack, evasion
    except ImportError as error:
        raise not_installed(f"attack '{name}'", "adversarial-robustness-toolbox") from error
    attack = getattr(evasion, name, None)
    if not (isinstance(attack, type) and issubclass(attack, EvasionAttack)):
        raise ValueError(f"attack: got '{name}', expected a class in art.attacks.evasion")
    return attack


def _generated(
    name: str, configured: dict[str, Any], clip: ClipClassifier, label: int, generator: torch.Generator
) -> Tensor:
    """Return an ART attack's example for a clip; ``label`` is the column of the clip's label."""
    further = {}
    if name in NEED_START:
        start = _misleading_noise(clip, generator)
        if start is None:
            return clip.inputs(clip.clean)[0]
        further["x_adv_init"] = start
    try:
        attack = toolbox_class(name)(clip, **configured)
    except (TypeError, ValueError) as error:
        raise InputError(f"attack '{name}': got arguments or a model that ART refuses: {error}") from error
    y = np.eye(clip.nb_classes, dtype=np.float32)[[label]]
    return clip.inputs(attack.generate(clip.clean, y=y, **further))[0]


def _misleading_noise(clip: ClipClassifier, generator: torch.Generator) -> Array | None:
    """Return the clip with the faintest of `TRIALS` noises that changes its class, as a batch of 1, or None."""
    decided = clip.predict(clip.clean).argmax(1)
    low, high = clip.clip_values
    for amplitude in np.geomspace(FAINTEST, 1, TRIALS) * (high - low):
        draw = torch.rand(clip.clean.shape, generator=generator, device=generator.device).cpu().numpy()
        noisy: Array = (clip.clean + amplitude * (2 * draw - 1)).clip(low, high).astype(np.float32)
        if clip.predict(noisy).argmax(1) != decided:
            return noisy
    return None


@contextmanager
def _seeded(generator: torch.Generator) -> Iterator[None]:
    """Seed the global generators of numpy and Python, which ART uses, and restore them afterwards."""
    seed = int(torch.randint(2**32, (1,), generator=generator, device=generator.device))
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
