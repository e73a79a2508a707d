"""What a plugin's contract asks and a run does not show: held against a small model and a few clips, in a second."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.learned import LearnedAttack
from advser.audio.clips import Clips as Packed
from advser.audio.clips import Samples, sound_mask
from advser.corpora.decode import decode
from advser.defenses.base import Defense, TrainingBatch
from advser.errors import MeasurementError, NotApplicableError
from advser.metrics.base import ClipMetric, Metric, ModelMetric
from advser.models.base import EmotionModel
from advser.models.folding import normalise_as_trained
from advser.plugins.parameters import arguments, build, describe
from advser.plugins.registries import BY_KIND, CORPORA, MODELS
from advser.results.schema import KEYS
from advser.stages.gradient_probes import Batch, without_gradient
from advser.suite.training import Precision
from advser.threat.model import Domain
from advser.threat.target import Target

CLIPS: Final = 6
"""Clips that a plugin is tried on."""

WEAKER: Final = 0.1
"""Share of the loss gained with exact gradients that an attack may lose in bfloat16."""


@dataclass(frozen=True)
class Finding:
    """Whether a plugin keeps one part of its contract.

    Attributes:
        part: what is asked of it, in a few words.
        wrong: what is wrong, or an empty text.
        note: what its author should know though nothing is wrong, such as why the question was not asked.
    """

    part: str
    wrong: str = ""
    note: str = ""


@dataclass(frozen=True)
class Clips:
    """A few clips of the demo corpus: waveforms (B, T), lengths (B,), classes (B,), and how many classes there are."""

    waveform: Tensor
    lengths: Tensor
    labels: Tensor
    classes: int


def clips() -> Clips:
    """Return the first clips of the embedded corpus."""
    rows, sound, classes = decode(build(CORPORA.get("demo"), {}, "corpus 'demo'").read(None), "emotion", None)
    waveform, lengths = Packed.pack(islice(sound, CLIPS)).batch(range(CLIPS))
    return Clips(waveform, lengths, torch.tensor(rows["target"].to_numpy()[:CLIPS]), len(classes))


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
    model = _small_model(some)
    x = model.inputs(some.waveform, some.lengths, domain).detach()
    given, labels, state = x.clone(), some.labels.clone(), _copied(model)
    targets = [_target(made, model, some.lengths, domain) for _ in range(2)]
    results = [_perturbed(made, target, given, labels) for target in targets]
    wrong = _unusable(results[0], x)
    yield Finding(f"{domain}: numbers in the shape of the clips", wrong)
    if wrong:
        return
    yield Finding(f"{domain}: the same generator gives the same", _differs(*results))
    yield Finding(f"{domain}: inputs stay as they are", _differs(given, x) or _differs(labels, some.labels))
    changed = [name for name, value in _copied(model).items() if not torch.equal(value, state[name])]
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
            model = made.extend(_small_model(some))
            features = model.frontend(some.waveform, some.lengths)
            loss = made.loss(
                model.train(), TrainingBatch(some.waveform, some.lengths, some.labels, features, generator), 10**6
            )
        losses.append(loss)
    scalar = loss.ndim == 0 and bool(torch.isfinite(loss))
    yield Finding("the objective is a finite scalar", "" if scalar else f"got {loss.detach()}")
    if not scalar:
        return
    yield Finding("the same generator gives the same", _differs(*losses))
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
        beside = asked.beside(victim, torch.Generator().manual_seed(0)).knowing(victim, made.adaptive, some.waveform)
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


def metric(plugin: type[Metric], params: Mapping[str, Any]) -> Iterator[Finding]:
    """Hold a metric against its contract: the same again, whatever the order of clips, and no constant."""
    made = build(plugin, dict(params), plugin.__name__)
    if isinstance(made, ClipMetric):
        yield from _clip_metric(made)
    elif isinstance(made, ModelMetric):
        yield from _model_metric(made)
    else:
        yield from _metric(made)


def _metric(made: Metric) -> Iterator[Finding]:
    examples = _examples(0)
    found = torch.from_numpy(made.statistics(examples.copy(), 4))
    yield Finding("a row a clip", "" if len(found) == len(examples) else f"{len(found)} rows of {len(examples)} clips")
    again = torch.from_numpy(made.statistics(examples.iloc[::-1].reset_index(drop=True), 4)).flip(0)
    yield Finding("the order of the clips makes no difference", _differs(found.nan_to_num(), again.nan_to_num()))
    right, wrong = (_figure(made, _read(examples, rightly=so)) for so in (True, False))
    figures = {right, wrong, *(_figure(made, _examples(seed)) for seed in range(8))}
    numbers = {figure for figure in figures if not math.isnan(figure)}
    constant = "never a number" if not numbers else f"always {numbers.pop():g}" if len(numbers) == 1 else ""
    yield Finding("it tells clips apart", constant)
    if {*made.needs} <= {"predictions", "attack", "source"} and made.higher_is_better is not None:
        upside_down = right < wrong if made.higher_is_better else right > wrong
        told = f"{right:g} of a model that is always right, {wrong:g} of one that never is"
        yield Finding("higher_is_better says which end is good", told if upside_down else "")


def _figure(made: Metric, examples: pd.DataFrame) -> float:
    return float(made.combine(np.nansum(made.statistics(examples, 4), axis=0)))


def _read(examples: pd.DataFrame, *, rightly: bool) -> pd.DataFrame:
    """Return clips that were read rightly when clean, and all of them, or none, when attacked."""
    label = examples["label"]
    other = (label + 1) % 4
    sign = 1.0 if rightly else -1.0
    return examples.assign(
        prediction=label if rightly else other,
        clean_prediction=label,
        source_prediction=other,
        margin=sign * examples["margin"],
        loss=examples["loss"] if rightly else examples["loss"] + 1,
    )


def _model_metric(made: ModelMetric) -> Iterator[Finding]:
    some = clips()
    victim = _small_model(some).eval()
    state = _copied(victim)
    values = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            try:
                values.append(made.measure(victim, some.waveform, some.waveform, some.lengths, some.labels))
            except NotApplicableError as error:
                yield Finding("measure", note=f"not asked: {error}")
                return
    expected = (CLIPS,)
    shape = tuple(values[0].shape)
    yield Finding("a value a clip (B,)", "" if shape == expected else f"got {shape}, expected {expected}")
    yield Finding("the same clips give the same", _differs(*(value.nan_to_num() for value in values)))
    changed = [name for name, value in _copied(victim).items() if not torch.equal(value, state[name])]
    yield Finding("the model stays as it is", f"changed: {', '.join(changed)}" if changed else "")


def _clip_metric(made: ClipMetric) -> Iterator[Finding]:
    some = clips()
    clean = some.waveform[0, : int(some.lengths[0])].numpy()
    noisy = clean + np.float32(0.02) * torch.randn(len(clean), generator=torch.Generator().manual_seed(0)).numpy()
    kept = clean.copy()
    values = [float(made.measure(clean, noisy, 16_000)) for _ in range(2)]
    yield Finding("the same clips give the same", "" if values[0] == values[1] else f"{values[0]} and {values[1]}")
    yield Finding("clips stay as they are", "" if (clean == kept).all() else "the clean clip was changed")
    if made.higher_is_better is not None:
        yield _direction(made, kept, noisy)


def _direction(made: ClipMetric, clean: Samples, noisy: Samples) -> Finding:
    """Tell whether a clip of which nothing was changed is at the good end, seen from one with noise in it."""
    part = "higher_is_better says which end is good"
    try:
        same, other = (float(made.measure(clean.copy(), judged, 16_000)) for judged in (clean.copy(), noisy.copy()))
    except (MeasurementError, NotApplicableError) as error:
        return Finding(part, note=f"not asked: {error}")
    upside_down = same < other if made.higher_is_better else same > other
    told = f"{same:g} of an untouched clip, {other:g} of one with noise in it"
    return Finding(part, "always the same" if same == other else told if upside_down else "")


def _examples(seed: int) -> pd.DataFrame:
    """Return a made-up examples table with every column that metrics read."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randint(4, (24,), generator=generator).numpy() for name in _CLASSES}
    numbers = {name: torch.rand(24, generator=generator).double().numpy() for name in _NUMBERS}
    counts = {name: torch.randint(1, 9, (24,), generator=generator).double().numpy() for name in _COUNTS}
    rows = range(24)
    told = {"clip": [f"clip{row}" for row in rows], "speaker": [f"s{row % 4}" for row in rows]}
    words = [" ".join(["word"] * int(count)) for count in counts["words"]]
    made = {**drawn, **numbers, **counts, **told, "fold": "fold1", "text": words, "transcript": words}
    keys = {name: _KEYS.get(name, "") for name in KEYS}
    return pd.DataFrame({**keys, **made})


_KEYS: Final[Mapping[str, Any]] = {
    "suite": "mock", "corpus": "demo", "task": "emotion", "protocol": "3pair", "split": "test", "seed": 0,
    "model": "tiny", "defense": "none", "attack": "fgsm", "params": "{}", "domain": "waveform", "delivery": "audio",
    "labels": "true", "access": "white-box", "norm": "linf", "epsilon": 0.001, "epsilon_unit": "full-scale",
}  # fmt: skip
_CLASSES: Final = ("label", "prediction", "clean_prediction", "source_prediction")
_NUMBERS: Final = ("loss", "margin", "detection", "clean_detection", "seconds", "forwards", "backwards")
_COUNTS: Final = ("word_errors", "clean_word_errors", "words", "char_errors", "clean_char_errors", "chars")

CONTRACTS: Final[dict[str, Callable[[type[Any], Mapping[str, Any]], Iterator[Finding]]]] = {
    "attack": attack,
    "defense": defense,
    "model": model,
    "metric": metric,
}
"""Kind of plugin → what holds it against its contract."""


def _small_model(some: Clips) -> EmotionModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = MODELS.get("tiny")(some.classes)
    made.frontend.fit(iter([(some.waveform, some.lengths)]))
    return made


def _copied(made: EmotionModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.state_dict().items()}


def _differs(one: Tensor, other: Tensor) -> str:
    if one.shape != other.shape:
        return f"shapes {tuple(one.shape)} and {tuple(other.shape)}"
    far = float((one.detach().double() - other.detach().double()).abs().max())
    return f"differ by {far:.2g}" if far > 0 else ""
