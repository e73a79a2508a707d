"""What a plugin's contract asks and a run does not show: held against a small model and a few clips, in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.learned import LearnedAttack
from advser.audio.clips import sound_mask
from advser.audit.contract import CLIPS, Clips, Finding, clips, copied_state, difference, small_model
from advser.audit.metric_contract import (
    metric,
)
from advser.defenses.base import Defense, TrainingBatch
from advser.models.base import EmotionModel
from advser.models.folding import normalise_as_trained
from advser.models.terms import Domain, Precision
from advser.plugins.parameters import arguments, build, describe
from advser.plugins.registries import BY_KIND
from advser.stages.gradient_probes import Batch, without_gradient
from advser.threat.target import Target

WEAKER: Final = 0.1
"""Share of the loss gained with exact gradients that an attack may lose in bfloat16."""


def described(kind: str, name: str) -> Iterator[Finding]:
    """Hold a plugin against what its users must be told: docstring, source, a line and a unit for each number."""
    plugin = BY_KIND[kind].get(name)
    yield Finding("docstring", "" if (plugin.__doc__ or "").strip() else "the class has none")
    yield Finding("citation", "" if getattr(plugin, "citation", "") else "the class variable 'citation' is empty")
    untold = [one.name for one in describe(plugin) if not one.about]
    yield Finding("parameters", f"without a line about them: {', '.join(untold)}" if untold else "")


def attack(plugin: type[Attack], params: Mapping[str, Any]) -> Iterator[Finding]:
    """Hold an attack against its contract, in each of its domains."""
    if "epsilon" not in plugin.model_fields and plugin.access != "blind":
        yield Finding("budget", note="no parameter is called epsilon, so that the harness holds it to no bound")
    if plugin.budget is not Attack.budget:
        yield Finding("the budget is read from epsilon and norm", "'budget' is overridden, which nobody asks")
    some = clips()
    for domain in plugin.domains:
        made = build(plugin, dict(params), plugin.__name__)
        if not isinstance(made, LearnedAttack):
            yield from _attack_in(made, domain, some)


def _attack_in(made: Attack, domain: Domain, some: Clips) -> Iterator[Finding]:
    model = small_model(some)
    x = model.inputs(some.waveform, some.lengths, domain).detach()
    given, labels, state = x.clone(), some.labels.clone(), copied_state(model)
    targets = [_target(made, model, some.lengths, domain) for _ in range(2)]
    results = [_perturbed(made, target, given, labels) for target in targets]
    wrong = _unusable(results[0], x)
    yield Finding(f"{domain}: numbers in the shape of the clips", wrong)
    if wrong:
        return
    yield Finding(f"{domain}: the same generator gives the same", difference(*results))
    yield Finding(f"{domain}: inputs stay as they are", difference(given, x) or difference(labels, some.labels))
    changed = [name for name, value in copied_state(model).items() if not torch.equal(value, state[name])]
    yield Finding(f"{domain}: the model stays as it is", f"changed: {', '.join(changed)}" if changed else "")
    budget = Attack.budget(made, domain)
    if budget is not None:
        reached = float(budget.size(results[0], x).max())
        # Rounding is no excess.
        told = f"changes of up to {reached:.3g} where ε is {budget.epsilon:g}: the harness cuts them to it"
        yield Finding(f"{domain}: within the budget", note=told if reached > 1.001 * budget.epsilon else "")
    if made.access == "white-box":
        yield Finding(f"{domain}: changes the clips", _idle(made, model, x, some.lengths, domain, results[0]))
    if made.bf16:
        yield Finding(f"{domain}: as strong with gradients in bfloat16", _weaker(made, model, some, domain))
    if made.single_step:
        passes = int(targets[0].backwards.max())
        yield Finding(f"{domain}: single_step", f"{passes} backward passes a clip" if passes > 1 else "")


def _unusable(perturbed: object, x: Tensor) -> str:
    """Return what makes an attack's answer none, or an empty text."""
    if not isinstance(perturbed, Tensor):
        return f"got {type(perturbed).__name__}, expected a tensor"
    if perturbed.shape != x.shape:
        return f"got the shape {tuple(perturbed.shape)}, expected {tuple(x.shape)}"
    lost = int((~perturbed.isfinite()).sum())
    return f"got {lost} values that are NaN or infinite, expected none" if lost else ""


def _idle(made: Attack, model: EmotionModel, x: Tensor, lengths: Tensor, domain: Domain, perturbed: Tensor) -> str:
    """Tell whether an attack changes nothing, not even where the model answers as the attack is told."""
    if not torch.equal(perturbed, x):
        return ""
    with Target(model, lengths, domain) as asked:
        decided = asked.decisions(x)
    again = _perturbed(made, _target(made, model, lengths, domain), x.clone(), decided)
    return "found all of them as they were" if torch.equal(again, x) else ""


def _weaker(made: Attack, model: EmotionModel, some: Clips, domain: Domain) -> str:
    """Tell whether the loss, which is always asked for in float32, rises less with gradients in bfloat16."""
    x, labels = model.inputs(some.waveform, some.lengths, domain).detach(), some.labels
    gains: dict[Precision, float] = {"fp32": 0.0, "bf16": 0.0}
    for precision in gains:
        target = _target(made, model, some.lengths, domain, precision)
        perturbed = made.admitted(_perturbed(made, target, x.clone(), labels), x, target)
        with Target(model, some.lengths, domain) as asked:
            gains[precision] = float((asked.loss(perturbed, labels) - asked.loss(x, labels)).mean())
    exact, rounded = gains.values()
    if exact - rounded <= WEAKER * abs(exact):
        return ""
    return f"the loss rises by {rounded:.3g}, with exact ones by {exact:.3g}"


def _target(
    made: Attack, model: EmotionModel, lengths: Tensor, domain: Domain, precision: Precision = "fp32"
) -> Target:
    mask = sound_mask(lengths, int(lengths.max())) if domain == "waveform" else None
    return Target(model, lengths, domain, made.access, precision=precision, mask=mask)


def _perturbed(made: Attack, target: Target, x: Tensor, labels: Tensor) -> Tensor:
    with target:
        return made.perturb(target, x, labels, torch.Generator().manual_seed(0))


def defense(plugin: type[Defense], params: Mapping[str, Any]) -> Iterator[Finding]:
    """Hold a defense against its contract: a finite scalar that moves the weights, drawn from the batch's generator."""
    some = clips()
    made = build(plugin, dict(params), plugin.__name__)
    losses = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = made.extend(small_model(some))
            features = model.frontend(some.waveform, some.lengths)
            loss = made.loss(
                model.train(), TrainingBatch(some.waveform, some.lengths, some.labels, features, generator), 10**6
            )
        losses.append(loss)
    scalar = loss.ndim == 0 and bool(torch.isfinite(loss))
    yield Finding("the objective is a finite scalar", "" if scalar else f"got {loss.detach()}")
    if not scalar:
        return
    yield Finding("the same generator gives the same", difference(*losses))
    loss.backward()  # type: ignore[no-untyped-call]
    moved = any(weight.grad is not None and weight.grad.any() for weight in model.parameters())
    yield Finding("the objective moves the weights", "" if moved else "no weight has a gradient")
    yield _adaptive(made, model, some)


def _adaptive(made: Defense, model: EmotionModel, some: Clips) -> Finding:
    """Tell whether an attacker who is given the defense's own loss has a gradient to climb."""
    part = "the attacker's loss (adaptive) has a gradient"
    asked = Batch(some.waveform, some.lengths, some.labels)
    victim = made.wrap(model).eval()
    if not victim.differentiable:
        return Finding(part, note="not asked: the model that the defense wraps has no gradient")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        beside = asked.nearby(victim, torch.Generator().manual_seed(0)).informed(victim, made.adaptive, some.waveform)
        share = without_gradient(victim, beside)
    return Finding(part, f"0 or not finite for {share:.0%} of {CLIPS} clips" if share else "")


def model(plugin: type[EmotionModel], params: Mapping[str, Any]) -> Iterator[Finding]:
    """Hold a model against its contract: shapes, and clips that are judged alike however far they are padded."""
    some = clips()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = plugin(some.classes, **arguments(plugin, dict(params), plugin.__name__)).eval()
        normalise_as_trained(made)
    made.frontend.fit(iter([(some.waveform, some.lengths)]))
    with torch.no_grad():
        outputs = made.outputs(some.waveform, some.lengths, "waveform")
        padded = torch.nn.functional.pad(some.waveform, (0, 4000))
        longer = made.outputs(padded, some.lengths, "waveform")
    expected = (CLIPS, some.classes)
    right = outputs.logits.shape == expected
    yield Finding("logits (B, C)", "" if right else f"got {tuple(outputs.logits.shape)}, expected {expected}")
    flat = outputs.embedding.ndim == 2 and len(outputs.embedding) == CLIPS
    yield Finding("embedding (B, D)", "" if flat else f"got {tuple(outputs.embedding.shape)}")
    far = float((outputs.logits - longer.logits).abs().max())
    # An untrained model's logits may all be small: they are told apart by how far clips are from one another.
    span = float((outputs.logits.amax(0) - outputs.logits.amin(0)).max())
    yield Finding("padding makes no difference", f"logits differ by {far:.2g}" if far > 1e-3 * span else "")
    if made.differentiable and not made.randomised:
        with Target(made, some.lengths, "waveform") as target:
            asked = float((outputs.logits - target.logits(some.waveform)).abs().max())
        yield Finding(
            "attacks ask the same model",
            f"logits differ by {asked:.2g}: it takes layers apart (folds = False)" if asked > 1e-3 * span else "",
        )


CONTRACTS: Final[dict[str, Callable[[type[Any], Mapping[str, Any]], Iterator[Finding]]]] = {
    "attack": attack,
    "defense": defense,
    "model": model,
    "metric": metric,
}
"""Kind of plugin → what holds it against its contract."""
