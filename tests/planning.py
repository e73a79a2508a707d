"""Plans of small suites, and toy plugins for them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from torch import Tensor
from toys import Waveform

from advser.attacks.base import Attack
from advser.attacks.controls import Noise
from advser.attacks.reference import AttackReference
from advser.metrics.base import ClipMetric
from advser.metrics.recognition import Accuracy
from advser.plan.cells import Corpus, Plan, Speech
from advser.plan.jobs import prepare_job
from advser.plan.planner import make_plan
from advser.plugins.parameters import parameter
from advser.plugins.registries import ATTACKS, METRICS, MODELS
from advser.suite.schema import Suite

FGSM = {"name": "fgsm", "params": {"epsilon": 0.06}}


NOISE = {"name": "noise", "params": {"epsilon": 0.001}}


VANILLA = {"name": "vanilla", "params": {"attack": FGSM}}


IN_FEATURES = {"domain": ["spectrogram"], "delivery": ["features"]}


class Decisions(Noise):
    """An attack that reads decisions only."""

    access: ClassVar[Any] = "decisions"


class Shift(Attack):
    """An attack without a budget."""

    unbounded: ClassVar[bool] = True

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
        return -x


class Silent(Shift):
    """An attack with a parameter that it does not declare as its budget."""

    eps: float = parameter(0.0005, about="size of the change")


class Nested(Attack):
    """An attack that runs an inner attack."""

    unbounded: ClassVar[bool] = True

    inner: AttackReference = parameter(about="inner attack")

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
        return self.inner.build().perturb(target, x, labels, generator)


class NotInstalled(Waveform):
    """A model that needs a missing package and fetches an encoder."""

    packages: ClassVar[tuple[str, ...]] = ("not-there",)

    @classmethod
    def fingerprint(cls, params: Mapping[str, Any]) -> str:
        raise AssertionError("fetched an encoder")


class Titled(Accuracy):
    """A metric with the title of another one."""

    title: ClassVar[str] = "uar"


class Overwrites(ClipMetric):
    """A metric whose column already exists in the examples table."""

    title: ClassVar[str] = "Overwrites"
    higher_is_better: ClassVar[bool] = True
    column: ClassVar[str] = "loss"

    def measure(self, clean: Any, judged: Any, rate: int) -> float:
        return 0.0


def suite(**changes: Any) -> Suite:
    data = {
        "name": "small",
        "corpus": "demo",
        "protocol": "3pair",
        "models": ["tiny"],
        "defenses": ["none"],
        "metrics": ["uar", "snr"],
        "transcriber": "none",
        "noise": False,
        "training": {"iterations": 5, "precision": "fp32"},
    }
    return Suite.model_validate(data | changes)


def plan(declared: Suite | None = None, only: Mapping[str, str] | None = None, /, **changes: Any) -> Plan:
    """Return the plan of a small suite on a corpus of three folds."""
    declared = declared or suite(**changes)
    keys = {seed: prepare_job(declared, seed, None).key for seed in declared.seeds}
    corpus = Corpus(keys, ("fold1", "fold2", "fold3"), "en")
    return make_plan(declared, corpus, Speech(None, "none", "not requested"), only or {}, "cpu")


def stages(planned: Plan) -> Counter[str]:
    return Counter(job.stage for job in planned.jobs.values())


def keys_of(planned: Plan, *keys: str) -> set[str]:
    """Return the key columns of all cells, or only ``keys``."""
    return {
        json.dumps({key: value for key, value in cell.columns.items() if not keys or key in keys})
        for cell in planned.cells
    }


def places(planned: Plan, *keys: str) -> list[tuple[Any, ...]]:
    """Return the columns ``keys`` of the attacked cells."""
    return [tuple(cell.columns[key] for key in keys) for cell in planned.cells if cell.columns["attack"] != "none"]


@contextmanager
def toys_registered() -> Iterator[None]:
    """Register the toys for one module only: other tests run over every registered plugin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS._decorated, "raw", Waveform)
        for name, attack in {"decisions": Decisions, "shift": Shift, "nested": Nested, "silent": Silent}.items():
            patch.setitem(ATTACKS._decorated, name, attack)
        patch.setitem(METRICS._decorated, "overwrites", Overwrites)
        patch.setitem(METRICS._decorated, "titled", Titled)
        yield
