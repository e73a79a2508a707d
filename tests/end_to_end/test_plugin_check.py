"""`advser check`: honest plugins pass, and each kind of fault is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from commandline import advser_here
from torch import Tensor

from advser.attacks.base import Attack
from advser.audit import plugin_contract as contract
from advser.audit.contract import Finding
from advser.defenses.base import Defense
from advser.defenses.undefended import Undefended
from advser.metrics.base import ClipMetric, Metric, ModelMetric
from advser.models.tiny import Tiny
from advser.plugins.registries import ATTACKS, DEFENSES, METRICS, MODELS
from advser.plugins.roles import budget
from advser.threat.objectives import cross_entropy


class Forgetful(Attack):
    """Draws from torch's global generator."""

    epsilon: float = budget(0.01, about="budget")

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return x + self.epsilon * torch.randn_like(x)


class InPlace(Attack):
    """Overwrites its input."""

    epsilon: float = budget(0.01, about="budget")

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return x.add_(self.epsilon)


class Constant(Defense):
    """Trains nothing."""

    def loss(self, model: Any, batch: Any, step: int) -> Tensor:
        return torch.ones((), requires_grad=True)


class PerClip(Defense):
    """Returns a loss for each clip."""

    def loss(self, model: Any, batch: Any, step: int) -> Tensor:
        return model.outputs(batch.features, batch.lengths, "spectrogram").logits.sum(1)


class Moody(Defense):
    """Weights clips by numbers from an unseeded generator of numpy."""

    def loss(self, model: Any, batch: Any, step: int) -> Tensor:
        logits = model.outputs(batch.features, batch.lengths, "spectrogram").logits
        return logits.square().mean() * np.random.default_rng().random()


class Padded(toys.Waveform):
    """Averages over the padding too."""

    def __init__(self, classes: int, *, further: int = 0) -> None:
        super().__init__(classes)


class Apart(Tiny):
    """Adds a branch from the middle of a sequential body, without declaring it."""

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        first = self.body[0][:1](features.unsqueeze(1))
        return super().embed(features, lengths) + first.mean((1, 2, 3), keepdim=True).flatten(1)


class Cumulative(Metric):
    """Gives each clip the sum over the clips before it."""

    title: ClassVar[str] = "Cumulative"
    higher_is_better: ClassVar[bool | None] = True

    def statistics(self, examples: pd.DataFrame, classes: int) -> Any:
        right = (examples["label"] == examples["prediction"]).to_numpy(float)
        return np.stack([np.cumsum(right), np.ones(len(right))], axis=1)


class Louder(ClipMetric):
    """Attenuates the clean clip in place."""

    title: ClassVar[str] = "Louder"
    higher_is_better: ClassVar[bool | None] = True
    column: ClassVar[str] = "louder"

    def measure(self, clean: Any, judged: Any, rate: int) -> float:
        clean *= 0.5
        return float(np.square(judged).mean() - np.square(clean).mean())


class Constantly(Metric):
    """Has the same value for every model."""

    title: ClassVar[str] = "Constantly"
    higher_is_better: ClassVar[bool | None] = True

    def statistics(self, examples: pd.DataFrame, classes: int) -> Any:
        return np.ones((len(examples), 2))


class Speechless(Metric):
    """Has no figures."""

    title: ClassVar[str] = "Speechless"
    higher_is_better: ClassVar[bool | None] = True

    def statistics(self, examples: pd.DataFrame, classes: int) -> Any:
        return np.zeros((len(examples), 2))


class Inverted(Metric):
    """Counts errors, with higher_is_better."""

    title: ClassVar[str] = "Inverted"
    higher_is_better: ClassVar[bool | None] = True

    def statistics(self, examples: pd.DataFrame, classes: int) -> Any:
        wrong = (examples["label"] != examples["prediction"]).to_numpy(float)
        return np.stack([wrong, np.ones(len(wrong))], axis=1)


class Noisiness(ClipMetric):
    """Measures the power of the perturbation, with higher_is_better."""

    title: ClassVar[str] = "Noisiness"
    higher_is_better: ClassVar[bool | None] = True
    column: ClassVar[str] = "noisiness"

    def measure(self, clean: Any, judged: Any, rate: int) -> float:
        return float(np.square(judged - clean).mean())


class Meddling(ModelMetric):
    """Changes the model that it evaluates."""

    title: ClassVar[str] = "Meddling"
    higher_is_better: ClassVar[bool | None] = None
    column: ClassVar[str] = "meddling"
    undefined: ClassVar[str] = "never"

    def measure(self, model: Any, clean: Tensor, judged: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            next(model.parameters()).add_(1)
        return torch.zeros(len(labels))


class TwoSteps(Forgetful):
    """Takes two steps, but declares a single step."""

    single_step: ClassVar[bool] = True

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
        for _ in range(2):
            x = x + 0.001 * target.gradient(x, labels).sign()
        return x


class Coarse(Forgetful):
    """Declares that it is as strong in bfloat16, but hardly moves there."""

    bf16: ClassVar[bool] = True

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
        share = 0.01 if target.precision == "bf16" else 1
        return x + share * self.epsilon * target.gradient(x, labels).sign()


class Rooted(Undefended):
    """Has an adaptive loss with gradients that are NaN."""

    def adaptive(self, outputs: Any, labels: Tensor) -> Tensor:
        return cross_entropy(outputs, labels) + (0 * outputs.logits.square().sum(1)).sqrt()


class Wide(Forgetful):
    """Exceeds its budget, so that the harness projects it."""

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
        return x + 0.5


class Summed(Forgetful):
    """Drops the axis of the clips."""

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
        return x.sum(0)


class Infinite(Forgetful):
    """Divides by zero."""

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
        return x + 0.001 * target.gradient(x, labels) / 0


class Listed(Forgetful):
    """Returns a list."""

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Any:
        return x.tolist()


class Idle(Forgetful):
    """Changes nothing."""

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
        return x


FAULTY: list[tuple[Callable[..., Iterator[Finding]], type[Any], str]] = [
    (contract.attack, Forgetful, "equal seeds give equal results"),
    (contract.attack, InPlace, "inputs stay unchanged"),
    (contract.attack, Summed, "finite values in the shape of the clips"),
    (contract.attack, Infinite, "finite values in the shape of the clips"),
    (contract.attack, Listed, "finite values in the shape of the clips"),
    (contract.attack, Idle, "changes the clips"),
    (contract.attack, TwoSteps, "single_step"),
    (contract.attack, Coarse, "as strong with gradients in bfloat16"),
    (contract.defense, Rooted, "the loss for adaptive attacks has a gradient"),
    (contract.defense, Constant, "the loss trains the weights"),
    (contract.defense, PerClip, "the loss is a finite scalar"),
    (contract.defense, Moody, "equal seeds give equal results"),
    (contract.model, Padded, "logits do not depend on the padding"),
    (contract.model, Apart, "attacks get the logits of the model"),
    (contract.metric, Cumulative, "independent of the order of the clips"),
    (contract.metric, Louder, "clips stay unchanged"),
    (contract.metric, Constantly, "not constant"),
    (contract.metric, Speechless, "not constant"),
    (contract.metric, Inverted, "higher_is_better has the right sign"),
    (contract.metric, Noisiness, "higher_is_better has the right sign"),
    (contract.metric, Meddling, "the model stays unchanged"),
]


@pytest.mark.parametrize(("check", "plugin", "part"), FAULTY, ids=lambda value: getattr(value, "__name__", None))
def test_a_broken_contract_is_reported(check: Callable[..., Any], plugin: type[Any], part: str) -> None:
    broken = [finding for finding in check(plugin, {}) if finding.wrong]
    assert any(finding.part.endswith(part) for finding in broken), broken


def test_an_attack_that_leaves_its_budget_to_the_harness_gets_a_note() -> None:
    notes = {finding.part: finding.note for finding in contract.attack(Wide, {}) if finding.note}
    assert notes["waveform: within the budget"] == (
        "changes of up to 0.5 exceed ε = 0.01: the harness projects them to the budget"
    )
    honest = contract.attack(ATTACKS.get("fgsm"), {"epsilon": 0.004})
    assert not [finding for finding in honest if finding.wrong or finding.note]


FGSM: dict[str, Any] = {"attack": {"name": "fgsm", "params": {"epsilon": 0.06}}}
REQUIRED: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("vanilla", "similarity", "detector", "madry", "trades", "mart"), FGSM),
    "free": {"epsilon": 0.06},
    "fast": {"epsilon": 0.06},
    "low-pass": {"cutoff": 4000},
    "noise-augmentation": {"sigma": 0.01},
    "smoothing": {"sigma": 0.01},
}
"""Required parameters of defenses."""
STEPPING = ("ifgsm", "pgd", "mi-fgsm", "apgd", "apgd-targeted")

HONEST = [
    *(pytest.param(contract.attack, ATTACKS.get(name), {"epsilon": 0.01}, id=name) for name in ("fgsm", "noise")),
    *(pytest.param(contract.attack, ATTACKS.get(name), {"epsilon": 0.01, "steps": 3}, id=name) for name in STEPPING),
    *(pytest.param(contract.defense, DEFENSES.get(name), REQUIRED.get(name, {}), id=name) for name in DEFENSES),
    *(pytest.param(contract.model, MODELS.get(name), {}, id=name) for name in ("tiny", "wavecnn")),
    *(pytest.param(contract.metric, METRICS.get(name), {}, id=name) for name in METRICS),
]  # fmt: skip


@pytest.mark.parametrize(("check", "plugin", "params"), HONEST)
def test_an_honest_plugin_has_no_findings(check: Callable[..., Any], plugin: type[Any], params: Any) -> None:
    findings = list(check(plugin, params))
    assert findings
    assert [finding for finding in findings if finding.wrong] == []


MASKED = '''
import advser
from advser.models.tiny import Tiny


@advser.model("masked")
class Masked(Tiny):
    """Rounds its features so coarsely that nearly all gradients are zero."""

    citation = "none"

    def embed(self, features, lengths):
        return super().embed((features * 2).round() / 2, lengths)
'''
WEAK = '''
import advser
from advser.attacks.base import Attack
from advser.plugins.roles import budget


@advser.attack("weak")
class Weak(Attack):
    """Hardly moves, and has no citation."""

    epsilon: float = budget(about="budget", unit="full-scale or z")

    def perturb(self, target, x, labels, generator):
        return x + 1e-3 * self.epsilon * target.gradient(x, labels).sign()
'''


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of all checks: the mock suite's own models are trained once."""
    return tmp_path_factory.mktemp("store")


def code_and_output(tmp_path: Path, store: Path, kind: str, name: str, source: str = "") -> tuple[int, str]:
    (tmp_path / "plugin.py").write_text(source)
    options = ["--plugin", "plugin.py"] if source else []
    done = advser_here("check", kind, name, *options, "--store", store, cwd=tmp_path)
    return done.returncode, done.stdout + done.stderr


def test_a_gradient_masked_model_is_reported(tmp_path: Path, store: Path) -> None:
    code, text = code_and_output(tmp_path, store, "model", "masked", MASKED)
    assert code == 1
    assert "FAIL   audit: zero gradients" in text
    assert "FAIL   audit: robust to huge budget" in text
    assert "to fix or to explain in " in text.splitlines()[-1]
    assert "plugin.py:7" in text


CRASHING = """


@advser.attack("crashing")
class Crashing(Attack):
    def perturb(self, target, x, labels, generator):
        raise RuntimeError("this plugin is not checked")
"""


def test_an_attack_that_breaks_its_contract_is_not_run(tmp_path: Path, store: Path) -> None:
    code, text = code_and_output(tmp_path, store, "attack", "weak", WEAK.replace("return x + ", "return x[:1]  # "))
    assert code == 1
    assert "FAIL   waveform: finite values in the shape of the clips" in text
    assert "note   suite 'mock': not run" in text
    assert "audit" not in text


def test_a_weak_attack_is_reported_and_other_plugins_of_its_file_are_not_run(tmp_path: Path, store: Path) -> None:
    code, text = code_and_output(tmp_path, store, "attack", "weak", WEAK + CRASHING)
    assert "this plugin is not checked" not in text
    assert code == 1
    assert "FAIL   citation" in text
    assert "FAIL   audit: noise beats attack" in text


def test_an_honest_attack_passes(tmp_path: Path, store: Path) -> None:
    code, text = code_and_output(tmp_path, store, "attack", "ifgsm")
    assert code == 0, text
    assert "FAIL" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["corpus", "demo"], ["check corpus", "attack, defense"]),
        (["attack", "fgms"], ["did you mean 'fgsm'"]),
        (["attack", "ifgsm", "--param", "steps=[1"], ["--param steps=[1: not YAML"]),
    ],
)
def test_bad_input_is_reported_in_one_line(arguments: list[str], words: list[str]) -> None:
    done = advser_here("check", *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert all(word in done.stderr for word in words)
