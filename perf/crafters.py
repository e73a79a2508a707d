"""Crafting, by the stage of a run, of more and more clips, and by more and more steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attackers import EPSILON, precision
from corpora import corpus
from judges import FOLD, SUITE

from advser.job import Task
from advser.jobs import prepare_job
from advser.stages.craft import craft
from advser.stages.prepare import load_prepared, prepare
from advser.stages.train import train
from advser.store import Artefact, Store
from advser.suite import Suite
from advser.training import Training

COPIES, STEPS = (1, 2, 4, 8), (2, 5, 10, 20)
MODEL: dict[str, Any] = {"name": "cnn4", "params": {"width": 0.25}}


def stored(root: Path) -> dict[int, int]:
    """Store the embedded corpus so many times over, prepared, and a model; return the clips to attack, by copies."""
    store, keys, clips = Store(root), {}, {}
    for copies in COPIES:
        folder = root.parent / f"x{copies}"
        corpus(folder, copies)
        job = prepare_job(Suite.model_validate({**SUITE, "corpus": "folder"}), 0, folder)
        with store.create(job.key, job.record()) as into:
            prepare(Task(job.spec, {}, into, local=job.local))
        keys[str(copies)] = job.key
        clips[copies] = len(load_prepared(store.get(job.key)).folds[FOLD].test)
    training = Training.model_validate({"iterations": 1, "precision": precision("cnn4")})
    spec = {
        "model": MODEL, "defense": {"name": "none", "params": {}}, "training": training.model_dump(mode="json"),
        "fold": FOLD, "seed": 0,
    }  # fmt: skip
    with store.create("model", {}) as into:
        train(Task(spec, {"prepared": store.get(keys["1"])}, into))
    (root / "keys.json").write_text(json.dumps(keys), encoding="utf-8")
    return clips


def crafting(root: Path, copies: int, steps: int) -> Callable[[], None]:
    """Return the job that crafts the test clips of a corpus."""
    store = Store(root)
    key = json.loads((root / "keys.json").read_text(encoding="utf-8"))[str(copies)]
    inputs: dict[str, Artefact] = {"prepared": store.get(key), "source": store.get("model")}
    spec = {
        "attack": {"name": "ifgsm", "params": {"epsilon": EPSILON["waveform"], "steps": steps}}, "domain": "waveform",
        "labels": "true", "objective": "cross-entropy", "precision": precision("cnn4"), "batch_size": 16, "fold": FOLD,
        "seed": 0,
    }  # fmt: skip

    def run() -> None:
        with TemporaryDirectory() as into:
            craft(Task(spec, inputs, Path(into)))

    return run


def by_clips(root: Path) -> Mapping[str, Callable[[], Any]]:
    """Return the crafting of each corpus at 2 steps, by its copies."""
    return {str(copies): crafting(root, copies, 2) for copies in COPIES}


def by_steps(root: Path) -> Mapping[str, Callable[[], Any]]:
    """Return the crafting of the smallest corpus, by each number of steps."""
    return {str(steps): crafting(root, 1, steps) for steps in STEPS}
