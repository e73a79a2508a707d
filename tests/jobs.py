"""Jobs of single stages, for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from advser.models.terms import Domain
from advser.plugins.parameters import build
from advser.plugins.registries import ATTACKS
from advser.stages.job import Job, Task
from advser.stages.specs import CraftSpec, PluginSpec, Spec, TrainSpec
from advser.store.artefacts import Artefact, Store
from advser.suite.training import Training


def do(
    store: Store,
    stage: Callable[[Task[Any]], None],
    spec: Spec,
    local: Mapping[str, Any] | None = None,
    **inputs: Artefact,
) -> Artefact:
    """Run a stage, unless the store has the artefact; return the artefact."""
    job = Job(spec, {role: artefact.folder.name for role, artefact in inputs.items()}, {}, "test", local or {})
    if job.key not in store:
        with store.create(job.key, job.record()) as folder:
            stage(Task(spec, inputs, folder, local=job.local))
    return store.get(job.key)


def train_spec(defense: str, params: dict[str, Any] | None = None, model: str = "tiny", **training: Any) -> TrainSpec:
    """Return the specification of a training on the first fold; ``training`` changes the defaults of `Training`."""
    return TrainSpec(
        model=PluginSpec(name=model, params={}),
        defense=PluginSpec(name=defense, params=params or {}),
        training=Training(**{"precision": "fp32", **training}),
        fold="fold1",
        seed=0,
    )


def craft_spec(name: str, params: dict[str, Any], domain: Domain = "waveform", **changes: Any) -> CraftSpec:
    """Return the specification of crafting on the first fold, with the budget that the attack declares."""
    usual: dict[str, Any] = {
        "labels": "true", "access": ATTACKS.get(name).access, "objective": "cross-entropy", "precision": "fp32",
        "batch_size": 16, "fold": "fold1",
        "seed": 0, "budget": build(ATTACKS.get(name), params, name).budget(domain),
    }  # fmt: skip
    return CraftSpec(attack=PluginSpec(name=name, params=params), domain=domain, **{**usual, **changes})
