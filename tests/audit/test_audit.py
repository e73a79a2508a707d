"""The audit: every check catches its own culprit, and is silent on what is honest."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from commandline import advser, advser_here
from torch import Tensor

from advser.audit.audit import CHECKS, Flag, audit
from advser.audit.evidence import VICTIM, Cell, Evidence, cells_of
from advser.models.base import EmotionModel
from advser.models.smoothed import Smoothed
from advser.plugins.registries import ATTACKS
from advser.results.folder import Results
from advser.results.schema import KEYS
from advser.stages import gradient_probes as probes
from advser.stages.gradient_probes import Batch
from advser.threat.objectives import Loss, cross_entropy, evasion

CLIPS = 100
NAMES = [check.name for check in CHECKS]
HONEST: dict[str, Any] = {
    "clips": 12,
    "disagreement": 0.0,
    "company": 1e-6,
    "companions": 1e-6,
    "probabilities": False,
    "changed": [],
    "foreign_statistics": 0.0,
    "without_gradient": 0.0,
    "derivative_error": 0.01,
    "false": 1,
    "adaptive_without_gradient": 0.0,
    "adaptive_false": 1,
    "unexplained_change": 0.02,
    "changed_unheard": 0.0,
    "standing_huge": 0.0,
    "standing": 0.5,
    "standing_doubled": 0.42,
}
"""What an honest model tells of itself."""


def cell(attack: str, falls: float, **keys: Any) -> Cell:
    """A made-up cell in which the first ``falls`` of the clips fall; all are read rightly when clean."""
    params = keys.pop("params", {})
    usual = {
        **dict.fromkeys(KEYS, ""), "attack": attack, "seed": 0, "model": "cnn4", "defense": "none",
        "domain": "waveform", "delivery": "audio", "labels": "true", "access": "white-box", "norm": "linf",
        "epsilon": 0.001,
    }  # fmt: skip
    fallen, right = np.arange(CLIPS) < round(falls * CLIPS), np.ones(CLIPS, bool)
    taken = params.get("steps", 20 if "attacks" in params else 1)
    return Cell(
        {**usual, **keys},
        params,
        fallen,
        right,
        iterative=taken > 1,
        steps=taken,
        control=attack == "noise",
        handed_in=attack == "external",
    )


NOISE = cell("noise", 0.1, access="blind", labels="none")
FGSM = cell("fgsm", 0.6)
IFGSM = cell("ifgsm", 0.8, params={"steps": 10})
DEFENDED = cell("ifgsm", 0.4, defense="vanilla", params={"steps": 10})
FAITHFUL = [
    cell("none", 0.0, access="blind", labels="none", epsilon=None),
    NOISE,
    FGSM,
    IFGSM,
    cell("ifgsm", 0.82, params={"steps": 20}),
    cell("ifgsm", 0.95, params={"steps": 10}, epsilon=0.002),
    cell("ifgsm", 0.7, params={"steps": 10}, labels="predicted"),
    cell("ifgsm", 0.3, params={"steps": 10}, access="transfer", source_model="vgg16", source_defense="none"),
    cell("unbounded", 0.3, params={"steps": 1}, epsilon=None),
    cell("unbounded", 0.9, params={"steps": 10}, epsilon=None),
    DEFENDED,
    cell("ifgsm", 0.1, params={"steps": 10}, epsilon=0.0001),
    cell("ifgsm", 0.1, params={"steps": 10}, epsilon=0.0001, defense="vanilla"),
    cell("fgsm", 0.7, model="vgg16", defense="detector"),
    cell("ifgsm", 0.9, model="vgg16", defense="detector", params={"steps": 10, "objective": "adaptive"}),
    cell("square", 0.25, access="scores"),
    # What is blind without being a control, or was made elsewhere, is held against nothing, and nothing against it.
    cell("universal", 0.9, access="blind", labels="none"),
    cell("external", 0.95, access="decisions"),
    cell("external", 0.0, access="decisions", params={"folder": "other"}),
]
"""The cells of an honest run."""


PLAIN = {"part": "", "seed": 0, "model": "cnn4", "defense": "none"}
"""The keys of the trained model that is probed."""


def evidence(*more: Cell, **said: Any) -> Evidence:
    """An honest run with a few further cells, whose model tells something else of itself."""
    cells = [one for one in FAITHFUL if not any(one.same(other) and one.alike(other) for other in more)]
    return Evidence([*cells, *more], [(PLAIN, HONEST | said)], {"": 7}, frozenset({("", "detector")}))


def found(*more: Cell, **said: Any) -> list[Flag]:
    """The flags of that run."""
    return audit(evidence(*more, **said)).flags


def test_an_honest_run_has_no_flag_though_every_check_has_something_to_look_at() -> None:
    audited = audit(evidence())
    assert audited.flags == []
    assert [name for name, answers in audited.answers.items() if not answers] == []


def test_a_check_without_anything_to_look_at_is_told_apart() -> None:
    alone = audit(Evidence([cell("none", 0.0, access="blind", labels="none", epsilon=None), IFGSM]))
    assert alone.flags == []
    assert {name for name, cases in alone.record["looked_at"].items() if cases} == {"only-proxy-labels"}
    assert alone.record["needs"].keys() == {*NAMES}


def test_a_model_that_could_not_be_probed_is_told() -> None:
    flags = audit(replace(evidence(), unasked=[(PLAIN, "RuntimeError: out of words")])).flags
    assert flags == [Flag("could-not-be-probed", PLAIN, "RuntimeError: out of words")]


CELL_CULPRITS = {
    "iterative-attack-weaker-than-single-step": [cell("lazy", 0.3, params={"steps": 10})],
    "smaller-budget-stronger": [cell("fgsm", 0.4, epsilon=0.002)],
    "transfer-beats-white-box": [
        cell("ifgsm", 0.95, params={"steps": 10}, access="transfer", source_model="vgg16", source_defense="none")
    ],
    "queries-beat-white-box": [cell("square", 0.97, access="scores")],
    "noise-beats-attack": [cell("noise", 0.9, access="blind", labels="none", epsilon=0.0009)],
    "proxy-labels-beat-true-labels": [cell("ifgsm", 0.95, params={"steps": 10}, labels="predicted")],
    "not-converged": [cell("ifgsm", 0.9, params={"steps": 20})],
    "undefended-twin-stands": [
        cell("weak", 0.3, params={"steps": 10}, epsilon=0.01),
        cell("weak", 0.1, params={"steps": 10}, epsilon=0.01, defense="vanilla"),
    ],
    "not-attacked-adaptively": [cell("fgsm", 0.7, defense="detector", epsilon=0.003)],
    "only-proxy-labels": [cell("fgsm", 0.5, model="vgg16", labels="predicted")],
}
MODEL_CULPRITS: dict[str, dict[str, Any]] = {
    "zero-gradients": {"without_gradient": 0.25},
    "false-gradient": {"derivative_error": 0.9},
    "answers-hang-on-the-file": {"changed_unheard": 0.5},
    "stands-under-huge-budget": {"standing_huge": 0.75},
    "more-steps-fell-more": {"standing": 0.75, "standing_doubled": 0.25},
    "draws-at-random": {"disagreement": 0.2, "company": 0.2},
    "answers-depend-on-the-batch": {"company": 0.2},
    "probabilities-for-logits": {"probabilities": True},
    "state-changes-in-evaluation": {"changed": ["body.1.running_mean"]},
    "statistics-from-elsewhere": {"foreign_statistics": 0.1},
}


def test_every_check_has_a_culprit_and_a_meaning() -> None:
    assert {*CELL_CULPRITS, *MODEL_CULPRITS, "could-not-be-probed"} == {*NAMES}
    assert all(check.meaning.endswith(".") and check.needs for check in CHECKS)


@pytest.mark.parametrize("check", CELL_CULPRITS)
def test_a_check_of_cells_catches_its_culprit_alone(check: str) -> None:
    flags = found(*CELL_CULPRITS[check])
    assert {flag.check for flag in flags} == {check}


FURTHER: list[tuple[str, dict[str, Any]]] = [
    ("zero-gradients", {"adaptive_without_gradient": 1.0}),
    ("false-gradient", {"false": 3}),
    ("false-gradient", {"adaptive_false": 3}),
    ("answers-depend-on-the-batch", {"companions": 0.2}),
]


@pytest.mark.parametrize(("check", "said"), FURTHER)
def test_a_check_of_models_sees_each_of_its_signs(check: str, said: dict[str, Any]) -> None:
    assert [flag.check for flag in found(**said)] == [check]


def test_drawing_at_random_hides_no_answer_that_hangs_on_the_batch() -> None:
    flags = found(disagreement=0.2, company=0.2, companions=0.2)
    assert [flag.check for flag in flags] == ["draws-at-random", "answers-depend-on-the-batch"]


@pytest.mark.parametrize("check", MODEL_CULPRITS)
def test_a_check_of_models_catches_its_culprit_alone(check: str) -> None:
    flags = found(**MODEL_CULPRITS[check])
    assert [flag.check for flag in flags] == [check]
    assert {*flags[0].where} == {*VICTIM}


def test_a_gradient_of_a_part_is_told() -> None:
    (flag,) = found(unexplained_change=0.7)
    assert (flag.check, flag.detail) == (
        "false-gradient", "70% of what random changes do is not in it (median)"
    )  # fmt: skip


def ensemble(falls: float, epsilon: float = 0.001, **keys: Any) -> Cell:
    """A made-up cell of an ensemble that is given the defense."""
    within = [{"name": "apgd", "params": {"epsilon": epsilon, "steps": 20}}]
    return cell("ensemble", falls, epsilon=epsilon, params={"objective": "adaptive", "attacks": within}, **keys)


AGAINST_AN_ENSEMBLE = {
    "iterative-attack-weaker-than-single-step": [
        ensemble(0.5), cell("fgsm", 0.7, params={"objective": "adaptive"})
    ],
    "smaller-budget-stronger": [ensemble(0.85), ensemble(0.5, epsilon=0.002)],
    "transfer-beats-white-box": [
        ensemble(0.85),
        cell("mi-fgsm", 0.95, access="transfer", source_model="vgg16", source_defense="none", epsilon=0.0008),
    ],
}  # fmt: skip


@pytest.mark.parametrize("check", AGAINST_AN_ENSEMBLE)
def test_an_ensemble_is_held_to_what_it_should_beat(check: str) -> None:
    flags = found(*AGAINST_AN_ENSEMBLE[check])
    assert {flag.check for flag in flags} == {check}
    assert {flag.where["attack"] for flag in flags} <= {"ensemble", "ifgsm"}


def test_an_honest_ensemble_has_no_flag() -> None:
    handed_on = cell("mi-fgsm", 0.9, access="transfer", source_model="vgg16", source_defense="none", epsilon=0.002)
    single = cell("fgsm", 0.6, params={"objective": "adaptive"})
    assert found(ensemble(0.85), ensemble(0.95, epsilon=0.002), single, handed_on) == []


def test_a_weak_iteration_does_not_hide_a_masked_gradient() -> None:
    lazy = cell("lazy", 0.3, epsilon=0.003, params={"steps": 10, "objective": "adaptive"})
    rivals = [cell("fgsm", 0.9, epsilon=0.003), cell("square", 0.9, epsilon=0.003, access="scores")]
    handed_on = cell("mi-fgsm", 0.9, epsilon=0.003, access="transfer", source_model="vgg16", source_defense="none")
    flags = found(lazy, *rivals, handed_on)
    assert {(flag.check, flag.where["attack"]) for flag in flags} == {
        ("queries-beat-white-box", "lazy"), ("transfer-beats-white-box", "lazy")
    }  # fmt: skip


@pytest.mark.parametrize("clips", [0, 1, 2])
def test_what_a_few_clips_cannot_tell_is_not_said_to_be_looked_at(clips: int) -> None:
    worst = {"standing_huge": 1.0, "standing": 1.0, "standing_doubled": 0.0, "changed_unheard": 1.0}
    audited = audit(evidence(clips=clips, **worst))
    asked = ("stands-under-huge-budget", "more-steps-fell-more", "answers-hang-on-the-file")
    assert [len(audited.answers[name]) for name in asked] == [0, 0, 0]


def test_a_check_that_fails_is_a_flag_and_loses_nothing() -> None:
    (flag,) = found(foreign_statistics="what?")
    assert (flag.check, dict(flag.where)) == ("statistics-from-elsewhere", {})
    assert flag.detail.startswith("the check itself failed: TypeError")


CLIP = {"prediction": [1], "clean_prediction": [0], "label": [0], "backwards": [1.0], "detection": [np.nan]}
KINDS: list[tuple[str, dict[str, Any], tuple[bool, int, bool, bool]]] = [
    ("fgsm", {}, (False, 1, False, False)),
    ("ifgsm", {"steps": 10}, (True, 10, False, False)),
    ("ifgsm", {"steps": 1}, (False, 1, False, False)),
    ("eot", {"attack": {"name": "fgsm", "params": {}}}, (False, 1, False, False)),
    ("eot", {"attack": {"name": "pgd", "params": {"steps": 20}}}, (True, 20, False, False)),
    ("ensemble", {"attacks": [{"name": "fgsm"}, {"name": "fgsm"}]}, (True, 1, False, False)),
    ("noise", {}, (True, 1, True, False)),
    ("external", {}, (True, 1, False, True)),
]


@pytest.mark.parametrize("passes", [1.0, 2.0])
def test_what_takes_several_gradients_is_iterative_whatever_it_says(passes: float) -> None:
    keys = {**dict.fromkeys(KEYS, ""), "attack": "called", "params": "{}", "access": "white-box"}
    (made,) = cells_of(pd.DataFrame({**keys, **CLIP, "backwards": [passes]}), [], {("", "called"): ATTACKS.get("fgsm")})
    assert made.iterative == (passes > 1)


@pytest.mark.parametrize(("name", "params", "expected"), KINDS)
def test_what_an_attack_is_follows_from_its_plugin_and_those_within(
    name: str, params: dict[str, Any], expected: tuple[bool, int, bool, bool]
) -> None:
    keys = {**dict.fromkeys(KEYS, ""), "attack": "called", "params": json.dumps(params)}
    (made,) = cells_of(pd.DataFrame({**keys, **CLIP}), [], {("", "called"): ATTACKS.get(name)})
    assert (made.iterative, made.steps, made.control, made.handed_in) == expected


@pytest.mark.parametrize(("detector", "flags"), [(True, 0), (False, 1)])
def test_evasion_is_what_a_detector_is_to_be_attacked_with(detector: bool, flags: int) -> None:
    attacked = cell("ifgsm", 0.9, defense="detector", params={"steps": 10, "objective": "evasion"}, epsilon=0.003)
    assert len(found(replace(attacked, detector=detector))) == flags


ASCENDING: list[tuple[str, dict[str, Any], str]] = [
    ("ifgsm", {}, "adaptive"),
    ("apgd", {"loss": "objective"}, "adaptive"),
    ("apgd", {"loss": "dlr"}, ""),
    ("apgd-targeted", {}, ""),
    ("eot", {"attack": {"name": "apgd", "params": {"loss": "dlr"}}}, ""),
    ("eot", {"attack": {"name": "pgd"}}, "adaptive"),
    ("ensemble", {}, "adaptive"),
    ("ensemble", {"attacks": [{"name": "apgd", "params": {"loss": "dlr"}}, {"name": "apgd-targeted"}]}, ""),
    ("ensemble", {"attacks": [{"name": "apgd", "params": {"loss": "dlr"}}, {"name": "pgd"}]}, "adaptive"),
]


@pytest.mark.parametrize(("name", "params", "objective"), ASCENDING)
def test_an_attack_with_a_loss_of_its_own_was_not_given_the_defenses(
    name: str, params: dict[str, Any], objective: str
) -> None:
    said = json.dumps({**params, "objective": "adaptive"})
    keys = {**dict.fromkeys(KEYS, ""), "attack": "called", "params": said}
    (made,) = cells_of(pd.DataFrame({**keys, **CLIP}), [], {("", "called"): ATTACKS.get(name)})
    assert made.objective == objective


def test_a_difference_of_a_few_clips_is_no_flag() -> None:
    assert found(cell("fgsm", 0.59, epsilon=0.002), cell("ifgsm", 0.82, params={"steps": 10}, labels="predicted")) == []


def test_what_a_model_without_gradients_cannot_tell_is_no_flag() -> None:
    asked = ("without_gradient", "derivative_error", "standing_huge", "standing", "standing_doubled")
    assert found(**dict.fromkeys(asked)) == []


class Masked(toys.Linear):
    """Rounds its features so coarsely that the gradient is 0 nearly everywhere: it only seems robust."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return super().embed((features * 20).round() / 20, lengths)


class Pretended(toys.Linear):
    """Has the gradient of another function than the one that it computes: the opposite one."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return super().embed(features - 2 * features.detach(), lengths)


class Partial(toys.Linear):
    """Lets the gradient through one frame in eight."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        shown = torch.arange(features.shape[-1]) % 8 == 0
        return super().embed(torch.where(shown, features, features.detach()), lengths)


class Lookup(toys.Linear):
    """Knows the files that it was shown: of any other sound it says the last class."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        outputs = super().outputs(x, lengths, domain)
        known = torch.isin(_sums(x), _sums(batch().waveform))
        last = torch.zeros_like(outputs.logits)
        last[:, -1] = 1000
        return replace(outputs, logits=torch.where(known[:, None], outputs.logits, last))


def _sums(x: Tensor) -> Tensor:
    return x.double().abs().sum(-1)


class OnTheGrid(toys.Linear):
    """Has its own gradient on the 16-bit grid, where clips are, and another one beside it, where attacks are."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        off = ((x * 32768).round() / 32768 - x).abs().flatten(1).amax(1) > 1e-7
        return super().outputs(torch.where(off[:, None], 2 * x.detach() - x, x), lengths, domain)


class Lost(toys.Linear):
    """Has no number for a gradient in a quarter of its frames."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        hidden = torch.arange(features.shape[-1]) % 4 == 0
        nothing = torch.zeros_like(features) * (features.abs() - features.detach().abs()).sqrt()
        return super().embed(torch.where(hidden, features + nothing, features), lengths)


class Measured(toys.Linear):
    """Knows clips by their lengths."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        outputs = super().outputs(x, lengths, domain)
        last = torch.zeros_like(outputs.logits)
        last[:, -1] = 1000
        known = torch.isin(lengths, batch().lengths)
        return replace(outputs, logits=torch.where(known[:, None], outputs.logits, last))


class Random(toys.Linear):
    """Draws noise whenever it is asked."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return super().embed(features + torch.randn_like(features), lengths)


class Peeking(toys.Linear):
    """Compares a clip with the others in the batch."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        embedding = super().embed(features, lengths)
        return embedding - embedding.mean(0)


class Quiet(Peeking):
    """Compares a clip with the others in the batch, in a low voice."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        outputs = super().outputs(x, lengths, domain)
        return replace(outputs, logits=1e-5 * outputs.logits)


class Probabilities(toys.Linear):
    """Calls probabilities logits."""

    def outputs(self, x: Tensor, lengths: Tensor, domain: Any) -> Any:
        outputs = super().outputs(x, lengths, domain)
        return replace(outputs, logits=outputs.logits.softmax(1))


class Huddled(toys.Linear):
    """Draws noise whenever it is asked, and compares a clip with the others in the batch."""

    randomised = True

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        embedding = super().embed(features + torch.randn_like(features), lengths)
        return embedding - embedding.mean(0)


class Turned(toys.Linear):
    """Has the gradient of the opposite function for loud clips, which are some of them."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        loudness = features.detach().square().flatten(1).mean(1)
        loud = loudness >= loudness.sort().values[-3]
        turned = 2 * features.detach() - features
        return super().embed(torch.where(loud[:, None, None], turned, features), lengths)


class Counting(toys.Linear):
    """Keeps in mind how much it has heard, where no checkpoint sees it."""

    heard = 0

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        self.heard += 1
        return super().embed(features, lengths)


class Hidden(toys.Linear):
    """Keeps a mean of what it has heard in a buffer that no checkpoint has."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("mean", torch.zeros(()), persistent=False)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        self.mean.lerp_(features.detach().mean(), 0.1)
        return super().embed(features, lengths)


class Learning(toys.Linear):
    """Counts what it hears, in evaluation too."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("heard", torch.zeros(()))

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        self.get_buffer("heard").add_(1)
        return super().embed(features, lengths)


class Scaled(toys.Frames):
    """Frames divided by a deviation that is taken from the training clips."""

    spread: Tensor
    kept: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spread", torch.ones(()))

    def fit(self, batches: Any) -> None:
        self.spread.copy_(torch.cat([waveform.flatten() for waveform, _ in batches]).std())


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def batch() -> Batch:
    return Batch(*toys.sounds(8))


def _without_gradient(model: EmotionModel, clips: Batch) -> float:
    return probes.without_gradient(model, clips, cross_entropy)


PROBES: dict[str, tuple[type[EmotionModel], Callable[[EmotionModel, Batch], Any], Callable[[Any], bool]]] = {
    "without_gradient": (Masked, _without_gradient, lambda share: share == 1),
    "derivative_error": (Pretended, probes.derivative_error, lambda errors: errors.median() > 0.5),
    "derivative_error of some": (Turned, probes.derivative_error, lambda errors: (errors > 0.5).sum() >= 3),
    "unexplained_change": (
        Partial,
        lambda model, clips: probes.unexplained_change(model, clips, generator()),
        lambda share: share > 0.5,
    ),
    "changed_unheard": (
        Lookup,
        lambda model, clips: probes.changed_unheard(model, clips, generator()),
        lambda share: share > 0.25,
    ),
    "derivative_error beside the clip": (
        OnTheGrid,
        lambda model, clips: probes.derivative_error(model, clips.beside(model, generator())),
        lambda errors: errors.median() > 0.5,
    ),
    "without_gradient anywhere": (Lost, _without_gradient, lambda share: share == 1),
    "changed_unheard in length": (
        Measured,
        lambda model, clips: probes.changed_unheard(model, clips, generator()),
        lambda share: share > 0.25,
    ),
    "company in a low voice": (Quiet, probes.company, lambda size: size > 1e-3),
    "standing": (
        Masked,
        lambda model, clips: probes.standing(model, clips, clips.waveform, 0.5, 10),
        lambda share: share > 0,
    ),
    "disagreement": (Random, probes.disagreement, lambda size: size > 1e-3),
    "company": (Peeking, probes.company, lambda size: size > 1e-3),
    "companions": (Peeking, probes.companions, lambda size: size > 1e-3),
    "companions of one that draws": (Huddled, probes.companions, lambda size: size > 1e-3),
    "probabilities": (Probabilities, probes.probabilities, bool),
    "changed": (Learning, probes.changed_state, bool),
    "changed attribute": (Counting, probes.changed_state, bool),
    "changed out of sight": (Hidden, probes.changed_state, bool),
}


def _rooted(outputs: Any, labels: Tensor) -> Tensor:
    """Has no number for a gradient, whatever it is asked: the root of nothing."""
    return cross_entropy(outputs, labels) + (0 * outputs.logits.square().sum(1)).sqrt()


def _flat(outputs: Any, labels: Tensor) -> Tensor:
    return outputs.logits.sum(1) * 0


def _opposite(outputs: Any, labels: Tensor) -> Tensor:
    losses = cross_entropy(outputs, labels)
    return 2 * losses.detach() - losses


def _distance(outputs: Any, labels: Tensor) -> Tensor:
    return (outputs.embedding - outputs.reference).square().sum(1)


@pytest.mark.parametrize(
    ("loss", "lost", "false"),
    [(_rooted, 1, 0), (_flat, 1, 0), (_opposite, 0, 8), (_distance, 0, 0), (cross_entropy, 0, 0), (evasion, 0, 0)],
)
def test_a_loss_for_attackers_is_asked_for_its_gradient(loss: Loss, lost: float, false: int) -> None:
    made = toys.model(toys.Convolutional).eval()
    clips = batch()
    knowing = clips.beside(made, generator()).knowing(made, loss, clips.waveform)
    assert probes.without_gradient(made, knowing) == lost
    assert (probes.derivative_error(made, knowing) > probes.FALSE).sum() == false


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_finds_its_culprit_out_and_nothing_in_honest_models(name: str) -> None:
    culprit, ask, guilty = PROBES[name]
    made = toys.model(culprit).eval()
    clips = batch()
    with torch.no_grad():
        right = Batch(clips.waveform, clips.lengths, made(clips.waveform, clips.lengths).argmax(1))
    assert guilty(ask(made, right))
    for honest in toys.MODELS:
        made = toys.model(honest).eval()
        with torch.no_grad():
            right = Batch(clips.waveform, clips.lengths, made(clips.waveform, clips.lengths).argmax(1))
        assert not guilty(ask(made, right)), honest


def test_the_gradient_of_a_model_that_draws_is_held_against_the_same_draws() -> None:
    made = Smoothed(toys.model(toys.Linear).eval(), sigma=0.05, draws=2)
    clips = batch()
    assert probes.derivative_error(made, clips).median() < 0.1
    assert probes.unexplained_change(made, clips, generator()) < 0.5


def test_statistics_of_other_clips_are_found_out() -> None:
    training = [toys.sounds(8, seed=1)[:2]]
    fitted = Scaled()
    fitted.fit(iter(training))
    stored = {name: value.clone() for name, value in fitted.named_buffers()}
    assert probes.foreign_statistics(Scaled(), stored, iter(training)) == 0
    assert probes.foreign_statistics(Scaled(), {"spread": stored["spread"] * 1.1}, iter(training)) > 0.05


SUITE = """
name: audited
corpus: demo
protocol: 3pair
folds: [fold1]
models: [tiny]
training: {iterations: 250, batch_size: 16, learning_rate: 2e-3, schedule: cosine, fit_on: train+validation}
defenses: [none]
transcriber: none
noise: false
metrics: [uar]
attacks:
  - {name: noise, params: {epsilon: 0.004}}
  - {name: ifgsm, params: {epsilon: 0.004}}
  - {name: chain-rule, params: {epsilon: 0.004, alpha: 0.001, steps: 10}}
"""


def test_flags_stand_on_the_rows_of_the_boards_with_their_meaning(tmp_path: Path) -> None:
    (tmp_path / "audited.yaml").write_text(SUITE)
    done = advser_here("run", "audited.yaml", "--store", "store", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    flags = Results.load(tmp_path / "out").run["audit"]["flags"]
    assert {(flag["check"], flag["where"].get("attack")) for flag in flags} == {("noise-beats-attack", "chain-rule")}
    lines = advser_here("board", tmp_path / "out").stdout.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("chain-rule")] == ["E"]
    board = advser_here("board", tmp_path / "out", "--by", "audit").stdout
    assert "Check skipped, transfer beats white box: this run has no case of it; it needs" in " ".join(board.split())
    assert "chain-rule" in board
    assert "Flag E: more clips fall under noise within the same budget" in " ".join(board.split())
    assert json.loads((tmp_path / "out" / "run.json").read_text())["audit"]["checks"].keys() == {*NAMES}


SHY = """
import advser
from advser.models.tiny import Tiny


@advser.model("shy")
class Shy(Tiny):
    '''Says nothing of a clip alone.'''

    def embed(self, features, lengths):
        if len(lengths) == 1:
            raise RuntimeError("one clip is not enough")
        return super().embed(features, lengths)
"""


def test_a_model_that_cannot_be_asked_is_flagged_and_fails_the_run(tmp_path: Path) -> None:
    suite = SUITE.partition("attacks:")[0].replace("[tiny]", "[shy]").replace("iterations: 250", "iterations: 5")
    (tmp_path / "audited.yaml").write_text(suite)
    (tmp_path / "shy.py").write_text(SHY)
    done = advser("run", "audited.yaml", "--plugin", "shy.py", "--store", "store", cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    reason = "probe shy / none, fold fold1: RuntimeError: one clip is not enough (shy.py:12)"
    assert f"failed: {reason}" in done.stderr
    (flag,) = Results.load(tmp_path / "results" / "audited").run["audit"]["flags"]
    assert (flag["check"], flag["detail"]) == ("could-not-be-probed", reason)
    assert "could not be probed" in done.stdout
