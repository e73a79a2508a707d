"""Training by the stage of a run, and by a plain PyTorch loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from advser.audio.clips import Clips
from advser.models.cnn4 import CNN4
from advser.models.precision import settled
from advser.stages.job import Task
from advser.stages.prepare import load_prepared
from advser.stages.specs import PluginSpec, TrainSpec
from advser.stages.train import train
from advser.store.artefacts import Artefact
from advser.suite.training import Training

FEW, MANY = 10, 40
"""Steps of two trainings; the difference of their times is the time of steps alone."""

BATCH = 16
MODEL: dict[str, Any] = {"width": 0.25}
DEFENSES: dict[str, dict[str, Any]] = {
    "clean": {"name": "none", "params": {}},
    "vanilla": {"name": "vanilla", "params": {"attack": {"name": "fgsm", "params": {"epsilon": 0.06}}}},
}
PRECISION = settled("auto", "cpu")


def training_spec(defense: str, steps: int) -> TrainSpec:
    """Return the specification of a training job."""
    training = Training.model_validate({"iterations": steps, "batch_size": BATCH, "precision": PRECISION})
    model, plugin = PluginSpec(name="cnn4", params=MODEL), PluginSpec(**DEFENSES[defense])
    return TrainSpec(model=model, defense=plugin, training=training, fold="fold1", seed=0)


def ours(prepared: Path) -> Mapping[str, Callable[[], Any]]:
    """Return trainings by the stage of a run, from a prepared corpus to stored weights."""

    def trained(defense: str, steps: int) -> Callable[[], None]:
        spec = training_spec(defense, steps)

        def run() -> None:
            with TemporaryDirectory() as into:
                train(Task(spec, {"prepared": Artefact(prepared)}, Path(into)))

        return run

    return {f"{defense} {steps}": trained(defense, steps) for defense in DEFENSES for steps in (FEW, MANY)}


def theirs(prepared: Path) -> Mapping[str, Callable[[], Any]]:
    """Return a plain loop: it recomputes features at each step, in the default precision and memory format."""
    corpus = load_prepared(Artefact(prepared))
    clips = Clips.pack(corpus.clips)  # in memory
    fold, targets = corpus.folds["fold1"], torch.from_numpy(corpus.targets)

    def run(steps: int) -> None:
        torch.manual_seed(0)
        model = CNN4(len(corpus.classes), **MODEL)
        model.frontend.fit([clips.batch(list(fold.train))])
        model.train()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(steps):
            rows = torch.tensor(fold.train)[torch.randperm(len(fold.train))[:BATCH]].tolist()
            loss = cross_entropy(model(*clips.batch(rows)), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return {f"plain {steps}": partial(run, steps) for steps in (FEW, MANY)}
