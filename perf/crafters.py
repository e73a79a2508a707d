"""Crafting by the stage of a run, with growing numbers of clips and of steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attackers import EPSILON
from corpora import corpus
from judges import FOLD, prepared, waveform_attack
from trainers import PRECISION, training_spec

from advser.stages.craft import craft
from advser.stages.job import Task
from advser.stages.prepare import load_prepared
from advser.stages.train import train
from advser.store.artefacts import Artefact, Store

COPIES, STEPS = (1, 2, 4, 8), (2, 5, 10, 20)


def stored(root: Path) -> dict[int, int]:
    """Store prepared copies of the demo corpus, and a model; return the number of clips to attack by copies."""
    store, keys, clips = Store(root), {}, {}
    for copies in COPIES:
        folder = root.parent / f"x{copies}"
        corpus(folder, copies)
        artefact = prepared(store, folder)
        keys[str(copies)] = artefact.folder.name
        clips[copies] = len(load_prepared(artefact).folds[FOLD].test)
    with store.create("model", {}) as into:
        train(Task(training_spec("clean", 1), {"prepared": store.get(keys["1"])}, into))
    (root / "keys.json").write_text(json.dumps(keys), encoding="utf-8")
    return clips


def crafting(root: Path, copies: int, steps: int) -> Callable[[], None]:
    """Return the job that crafts the test clips of a corpus."""
    store = Store(root)
    key = json.loads((root / "keys.json").read_text(encoding="utf-8"))[str(copies)]
    inputs: dict[str, Artefact] = {"prepared": store.get(key), "source": store.get("model")}
    spec = waveform_attack("ifgsm", "true", PRECISION, epsilon=EPSILON["waveform"], steps=steps)

    def run() -> None:
        with TemporaryDirectory() as into:
            craft(Task(spec, inputs, Path(into)))

    return run


def by_clips(root: Path) -> Mapping[str, Callable[[], Any]]:
    """Return the crafting of each corpus with 2 steps, by number of copies."""
    return {str(copies): crafting(root, copies, 2) for copies in COPIES}


def by_steps(root: Path) -> Mapping[str, Callable[[], Any]]:
    """Return the crafting of the smallest corpus, by number of steps."""
    return {str(steps): crafting(root, 1, steps) for steps in STEPS}
