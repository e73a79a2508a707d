"""Training steps: ours, a plain PyTorch loop, and adversarial training against a clean step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from measuring import Figure, Table, interleaved
from torch.nn.functional import cross_entropy

from advser.job import Task
from advser.jobs import bf16_pays, prepare_job
from advser.models.cnn4 import CNN4
from advser.stages.prepare import Prepared, load_prepared, prepare
from advser.stages.train import train
from advser.store import Artefact, Store
from advser.suite import Suite
from advser.training import Training

ITERATIONS, BATCH = 20, 16
MODEL: dict[str, Any] = {"width": 0.25, "frames": 160}
VANILLA = {"name": "vanilla", "params": {"attack": {"name": "fgsm", "params": {"epsilon": 0.06}}}}


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """The demo corpus, prepared."""
    suite = Suite.model_validate(
        {
            "name": "perf",
            "corpus": "demo",
            "protocol": "3pair",
            "models": ["cnn4"],
            "defenses": ["none"],
            "metrics": ["uar"],
        }
    )
    job = prepare_job(suite, 0, None)
    store = Store(tmp_path_factory.mktemp("store"))
    with store.create(job.key, job.record()) as folder:
        prepare(Task(job.spec, {}, folder, local=job.local))
    return store.get(job.key)


def trained(artefact: Artefact, into: Path, defense: dict[str, Any], precision: str) -> Callable[[], None]:
    """Return a training by the stage that a run trains by."""
    training = Training.model_validate({"iterations": ITERATIONS, "batch_size": BATCH, "precision": precision})
    spec = {
        "model": {"name": "cnn4", "params": MODEL}, "defense": {"params": {}, **defense},
        "training": training.model_dump(mode="json"), "fold": "fold1", "seed": 0,
    }  # fmt: skip
    return lambda: train(Task(spec, {"prepared": artefact}, into))


def plain(prepared: Prepared) -> Callable[[], None]:
    """Return the loop that anyone would write: features anew at each step, default precision and memory format."""
    fold, targets = prepared.folds["fold1"], torch.from_numpy(prepared.targets)

    def run() -> None:
        torch.manual_seed(0)
        model = CNN4(len(prepared.classes), **MODEL)
        model.frontend.fit([prepared.clips.batch(list(fold.train))])
        model.train()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(ITERATIONS):
            rows = torch.tensor(fold.train)[torch.randperm(len(fold.train))[:BATCH]].tolist()
            loss = cross_entropy(model(*prepared.clips.batch(rows)), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def test_training_step(artefact: Artefact, table: Table, tmp_path: Path) -> None:
    """Add ours against a plain loop, and vanilla adversarial training against a clean training."""
    precision = "bf16" if bf16_pays("cpu") else "fp32"
    taken = interleaved(
        {
            "ours": trained(artefact, tmp_path, {"name": "none"}, precision),
            "vanilla": trained(artefact, tmp_path, VANILLA, precision),
            "plain": plain(load_prepared(artefact)),
        },
        rounds=5,
    )
    step = {name: seconds / ITERATIONS * 1e3 for name, seconds in taken.items()}
    what = f"cnn4, batch {BATCH}, {precision}"
    table.add(Figure("training step", what, step["ours"], step["plain"], "plain PyTorch loop, fp32", "ms", 0.5))
    table.add(Figure("training step", f"vanilla, {what}", step["vanilla"], step["ours"], "clean step", "ms", 2.3))
