"""Strength of attacks with gradients in bfloat16, evaluated in float32 on 16-bit sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from commands import EMODB, needs_emodb, run
from measuring import Figure, Table

from advser.results.folder import Results

SUITE: dict[str, Any] = {
    "name": "strength", "corpus": "emodb", "protocol": "5pair", "folds": ["fold1"], "transcriber": "none",
    "noise": False, "audit": False, "metrics": ["accuracy", "loss"],
    "training": {"iterations": 200, "learning_rate": 1e-3, "schedule": "cosine", "fit_on": "train+validation"},
    "models": [{"name": "cnn4", "params": {"width": 0.25, "frames": 160}}],
    "defenses": [
        "none",
        {"name": "madry", "params": {"attack": {"name": "pgd", "params": {"epsilon": 0.06, "steps": 2}}, "warmup": 50}},
    ],
    "attacks": [
        {"name": name, "domain": domain, "delivery": delivery, "params": {"epsilon": epsilon}}
        for name in ("ifgsm", "mi-fgsm")
        for domain, delivery, epsilon in (("waveform", "audio", 0.0002), ("spectrogram", "features", 0.03))
    ],
}  # fmt: skip


@needs_emodb
def test_bfloat16_is_as_strong(tmp_path: Path, table: Table) -> None:
    """Compare each attack's final loss with gradients in bfloat16 and in float32, by domain and model."""
    reached = {}
    for precision in ("fp32", "bf16"):
        (tmp_path / f"{precision}.yaml").write_text(yaml.safe_dump({**SUITE, "attack_precision": precision}))
        run(tmp_path, f"{precision}.yaml", *EMODB)
        rows = Results.load(tmp_path / f"store-{precision}").table
        rows = rows[(rows["metric"] == "loss") & (rows["attack"] != "none") & rows["n"].gt(0)]
        reached[precision] = rows.set_index(["attack", "domain", "defense"])["value"]
    assert len(reached["bf16"]) == len(SUITE["defenses"]) * len(SUITE["attacks"])
    for place, loss in reached["bf16"].items():
        attack, domain, defense = place
        what = f"loss after {attack}, {domain}, cnn4 / {defense} on EmoDB, bf16"
        table.add(Figure("strength", what, loss, reached["fp32"][place], "fp32", "nats", 0.98, at_least=True))
