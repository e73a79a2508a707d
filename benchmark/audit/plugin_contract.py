"""The contracts of plugins, as far as no run checks them: with a small model and a few clips, in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.learned import LearnedAttack
from advser.audio.clips import sound_mask
from advser.audit.contract import CLIPS, Clips, Finding, clips, copied_state, difference, small_model, state_finding
from advser.audit.metric_contract import metric
from advser.defenses.base import Defense, TrainingBatch
from advser.models.base import EmotionModel
from advser.models.folding import normalise_as_trained
from advser.models.terms import Domain, Precision
from advser.plugins.parameters import arguments, build, describe
from advser.plugins.registries import BY_KIND
from advser.stages.probes.batch import Batch
from advser.stages.probes.gradients import without_gradient
from advser.threat.target import Target

WEAKER: Final = 0.1
"""Share of the rise in loss with float32 gradients that an attack may lose with bfloat16 gradients."""


def described(kind: str, name: str) -> Iterator[Finding]:
    """Check that a plugin has a docstring, a source, and a description of each parameter."""
    plugin = BY_KIND[kind].get(name)
    yield Finding("docstring", "" if (plugin.__doc__ or "").strip() else "the class has no docstring")
    yield Finding("citation", "" if getattr(plugin, "citation", "") else "the class variable 'citation' is empty")
    missing = [parameter.name for parameter in describe(plugin) if not parameter.about]
    yield Finding("parameters", f"no 'about' text for: {', '.join(missing)}" if missing else "")


def attack(plugin: type[Attack], params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check an attack in each of its domains."""
    yield Finding("budget", plugin.declaration_error().removeprefix("budget: "))
    batch = clips()
    for domain in plugin.domains:
        instance = build(plugin, dict(params), plugin.__name__)
        if not isinstance(instance, LearnedAttack):
            yield from _attack_in(instance, batch, domain)


@dataclass(frozen=True)
class _Trial:
    """An attack against an untrained model on a few clips.

    Attributes:
        attack: the attack.
        model: the model.
        x: clean waveforms (B, T), or features (B, bands, frames).
        labels: classes (B,).
        lengths: of the clips in samples (B,).
        domain: of ``x``.
    """

    attack: Attack
    model: EmotionModel
    x: Tensor
    labels: Tensor
    lengths: Tensor
    domain: Domain

    def target(self, precision: Precision = "fp32") -> Target:
        """Return a new target, whose gradients are in ``precision``."""
        mask = sound_mask(self.lengths, int(self.lengths.max())) if self.domain == "waveform" else None
        return Target(self.model, self.lengths, self.domain, self.attack.access, precision=precision, mask=mask)

    def white_box_target(self) -> Target:
        """Return a new target that grants everything."""
        return Target(self.model, self.lengths, self.domain)

    def perturbed(self, target: Target, x: Tensor, labels: Tensor) -> Tensor:
        """Return the attack's result with a generator of seed 0."""
        with target:
            return self.attack.perturb(target, x, labels, torch.Generator().manual_seed(0))


def _attack_in(instance: Attack, batch: Clips, domain: Domain) -> Iterator[Finding]:
    model = small_model(batch)
    x = model.inputs(batch.waveform, batch.lengths, domain).detach()
    trial = _Trial(instance, model, x, batch.labels, batch.lengths, domain)
    given, labels, state = x.clone(), batch.labels.clone(), copied_state(model)
    targets = [trial.target() for _ in range(2)]
    first, second = (trial.perturbed(target, given, labels) for target in targets)
    unusable = _unusable(first, x)
    yield Finding(f"{domain}: finite values in the shape of the clips", unusable)
    if unusable:
        return
    yield Finding(f"{domain}: equal seeds give equal results", difference(first, second))
    yield Finding(f"{domain}: inputs stay unchanged", difference(given, x) or difference(labels, batch.labels))
    yield state_finding(model, state, f"{domain}: the model stays unchanged")
    budget = Attack.budget(instance, domain)
    if budget is not None:
        largest = float(budget.size(first, x).max())
        note = f"changes of up to {largest:.3g} exceed ε = {budget.epsilon:g}: the harness projects them to the budget"
        # 0.1 % more is rounding.
        yield Finding(f"{domain}: within the budget", note=note if largest > 1.001 * budget.epsilon else "")
    if instance.access == "white-box":
        yield Finding(f"{domain}: changes the clips", _idle(trial, first))
    if instance.bf16:
        yield Finding(f"{domain}: as strong with gradients in bfloat16", _weaker(trial))
    if instance.single_step:
        passes = int(targets[0].backwards.max())
        wrong = f"got {passes} backward passes per clip, expected 1 at most" if passes > 1 else ""
        yield Finding(f"{domain}: single_step", wrong)


def _unusable(perturbed: object, x: Tensor) -> str:
    """Return why an attack's result is unusable, or an empty text."""
    if not isinstance(perturbed, Tensor):
        return f"got {type(perturbed).__name__}, expected a tensor"
    if perturbed.shape != x.shape:
        return f"got the shape {tuple(perturbed.shape)}, expected {tuple(x.shape)}"
    invalid = int((~perturbed.isfinite()).sum())
    return f"got {invalid} values that are NaN or infinite, expected none" if invalid else ""


def _idle(trial: _Trial, perturbed: Tensor) -> str:
    """Return a text if an attack changes nothing, even with the model's own decisions as labels."""
    if not torch.equal(perturbed, trial.x):
        return ""
    with trial.white_box_target() as target:
        decisions = target.decisions(trial.x)
    again = trial.perturbed(trial.target(), trial.x.clone(), decisions)
    return "every perturbed clip equals the clean clip" if torch.equal(again, trial.x) else ""


def _weaker(trial: _Trial) -> str:
    """Return a text if the loss, always in float32, rises less with gradients in bfloat16."""
    gains: dict[Precision, float] = {"fp32": 0.0, "bf16": 0.0}
    for precision in gains:
        target = trial.target(precision)
        result = trial.perturbed(target, trial.x.clone(), trial.labels)
        perturbed = trial.attack.admitted(result, trial.x, target)
        with trial.white_box_target() as judge:
            rise = judge.loss(perturbed, trial.labels) - judge.loss(trial.x, trial.labels)
        gains[precision] = float(rise.mean())
    exact, rounded = gains.values()
    if exact - rounded <= WEAKER * abs(exact):
        return ""
    return f"the loss rises by {rounded:.3g} with bfloat16 gradients, by {exact:.3g} with float32 gradients"


def defense(plugin: type[Defense], params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check a defense: its loss is a finite scalar, trains the weights, and draws from the batch's generator alone."""
    batch = clips()
    instance = build(plugin, dict(params), plugin.__name__)
    losses = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = instance.extend(small_model(batch))
            features = model.frontend(batch.waveform, batch.lengths)
            training = TrainingBatch(batch.waveform, batch.lengths, batch.labels, features, generator)
            loss = instance.loss(model.train(), training, 10**6)
        losses.append(loss)
    scalar = loss.ndim == 0 and bool(torch.isfinite(loss))
    yield Finding("the loss is a finite scalar", "" if scalar else f"got {loss.detach()}")
    if not scalar:
        return
    yield Finding("equal seeds give equal results", difference(*losses))
    loss.backward()  # type: ignore[no-untyped-call]
    moved = any(weight.grad is not None and weight.grad.any() for weight in model.parameters())
    yield Finding("the loss trains the weights", "" if moved else "no weight has a gradient")
    yield _adaptive(instance, model, batch)


def _adaptive(instance: Defense, model: EmotionModel, batch: Clips) -> Finding:
    """Return a finding about whether the loss for adaptive attacks has a gradient."""
    part = "the loss for adaptive attacks has a gradient"
    clean = Batch(batch.waveform, batch.lengths, batch.labels)
    victim = instance.wrap(model).eval()
    if not victim.differentiable:
        return Finding(part, note="not checked: the wrapped model has no gradient")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nearby = clean.nearby(victim, torch.Generator().manual_seed(0))
        share = without_gradient(victim, nearby.informed(victim, instance.adaptive, batch.waveform))
    return Finding(part, f"the gradient is 0 or not finite for {share:.0%} of {CLIPS} clips" if share else "")


def model(plugin: type[EmotionModel], params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check a model: shapes of the outputs, and logits that do not depend on the padding."""
    batch = clips()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        instance = plugin(batch.classes, **arguments(plugin, dict(params), plugin.__name__)).eval()
        normalise_as_trained(instance)
    instance.frontend.fit(iter([(batch.waveform, batch.lengths)]))
    with torch.no_grad():
        outputs = instance.outputs(batch.waveform, batch.lengths, "waveform")
        padded = torch.nn.functional.pad(batch.waveform, (0, 4000))
        longer = instance.outputs(padded, batch.lengths, "waveform")
    expected, shape = (CLIPS, batch.classes), tuple(outputs.logits.shape)
    yield Finding("logits (B, C)", "" if shape == expected else f"got {shape}, expected {expected}")
    flat = outputs.embedding.ndim == 2 and len(outputs.embedding) == CLIPS
    yield Finding("embedding (B, D)", "" if flat else f"got {tuple(outputs.embedding.shape)}")
    by_padding = float((outputs.logits - longer.logits).abs().max())
    # The span over clips is the scale: all logits of an untrained model may be small.
    span = float((outputs.logits.amax(0) - outputs.logits.amin(0)).max())
    wrong = f"logits differ by up to {by_padding:.2g}" if by_padding > 1e-3 * span else ""
    yield Finding("logits do not depend on the padding", wrong)
    if instance.differentiable and not instance.randomised:
        with Target(instance, batch.lengths, "waveform") as target:
            by_target = float((outputs.logits - target.logits(batch.waveform)).abs().max())
        wrong = (
            f"logits differ by up to {by_target:.2g}: a model that uses layers of a sequence separately needs "
            "'folds = False'"
        )
        yield Finding("attacks get the logits of the model", wrong if by_target > 1e-3 * span else "")


CONTRACTS: Final[dict[str, Callable[[type[Any], Mapping[str, Any]], Iterator[Finding]]]] = {
    "attack": attack,
    "defense": defense,
    "model": model,
    "metric": metric,
}
"""Kind of plugin → its contract."""
