"""Training steps: AdvSER against a plain PyTorch loop, and adversarial training against a clean step."""

from __future__ import annotations

from pathlib import Path

from contest import as_script, as_workers, contest
from judges import prepared
from measuring import Figure, Table
from trainers import BATCH, DEFENSES, FEW, MANY, PRECISION, ours, theirs

from advser.store.artefacts import Store


def test_training_step(table: Table, tmp_path: Path) -> None:
    """Compare a training step with a plain loop, and vanilla adversarial training with a clean step."""
    folder = prepared(Store(tmp_path)).folder
    taken = contest([as_workers(ours, folder), as_script(theirs, folder)], rounds=5)
    steps = MANY - FEW
    step = {name: (taken[f"{name} {MANY}"] - taken[f"{name} {FEW}"]) / steps * 1e3 for name in (*DEFENSES, "plain")}
    what = f"cnn4, batch {BATCH}, {PRECISION}"
    table.add(Figure("training step", what, step["clean"], step["plain"], "plain PyTorch loop, fp32", "ms", 0.5))
    table.add(Figure("training step", f"vanilla, {what}", step["vanilla"], step["clean"], "clean step", "ms", 2.3))
