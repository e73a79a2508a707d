"""Synthetic results with every kind of cell, to test readers of results. The numbers mean nothing."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from advser.metrics.base import Metric
from advser.metrics.recognition import UAR, Accuracy
from advser.results.folder import Results
from advser.results.schema import KEYS, no_examples
from advser.results.terms import CHANCE_BASELINES
from advser.scoring.ranks import EvaluatedCell, ranks
from advser.suite.schema import Suite

METRICS = {
    "uar": ("UAR", "", 3, True),
    "accuracy": ("accuracy", "", 3, True),
    "attack-success": ("success", "", 3, False),
    "transfer-rate": ("transfer", "", 3, False),
    "snr": ("SNR", "dB", 1, True),
    "pesq": ("PESQ", "", 2, True),
    "stoi": ("STOI", "", 3, True),
    "wer": ("WER", "", 3, False),
    "wer-change": ("ΔWER", "", 3, False),
    "seconds": ("time", "s", 2, False),
}
VICTIMS = [(model, defense) for model in ("cnn4", "emodb-cnn") for defense in ("none", "vanilla")]
BASE = {
    "suite": "made-up", "part": "", "corpus": "emodb", "task": "emotion", "protocol": "5pair", "split": "test",
    "seed": 0, "source_model": "", "source_defense": "",
}  # fmt: skip


def attack(name: str, domain: str, epsilon: float | None, labels: str = "true", **more: Any) -> dict[str, Any]:
    """The key columns of an attack; ``more`` holds ``delivery``, ``access`` and further parameters."""
    delivery = more.pop("delivery", "audio")
    access = more.pop("access", "white-box")
    return {
        "attack": name,
        "params": json.dumps({**({} if epsilon is None else {"epsilon": epsilon}), **more}, sort_keys=True),
        "domain": domain,
        "delivery": delivery,
        "labels": labels,
        "access": access,
        "norm": "" if epsilon is None else "linf",
        "epsilon": np.nan if epsilon is None else epsilon,
        "epsilon_unit": "" if epsilon is None else "z" if domain == "spectrogram" else "full-scale",
    }


CLEAN = attack("none", "waveform", None, "none", access="blind")


def attacks() -> list[dict[str, Any]]:
    """The attack cells of each victim."""
    cells_of_victim = [CLEAN]
    for epsilon in (0.02, 0.06, 0.1):
        cells_of_victim += [
            attack("noise", "spectrogram", epsilon, "none", access="blind", delivery="features", kind="sign"),
            attack("fgsm", "spectrogram", epsilon, "true", delivery="features"),
            attack("fgsm", "spectrogram", epsilon, "predicted", delivery="features"),
            attack("ifgsm", "spectrogram", epsilon, delivery="features", steps=3),
            attack("ifgsm", "spectrogram", epsilon, delivery="features", steps=10),
        ]
    cells_of_victim.append(attack("ifgsm", "spectrogram", 0.06, delivery="audio", steps=10))
    for epsilon in (0.0005, 0.001, 0.002):
        cells_of_victim.append(attack("noise", "waveform", epsilon, "none", access="blind", kind="sign"))
        cells_of_victim.append(attack("ifgsm", "waveform", epsilon, steps=10))
    return cells_of_victim


TRANSFERRED = attack("ifgsm", "waveform", 0.001, access="transfer", steps=10)


def cells() -> list[dict[str, Any]]:
    """The key columns of every cell; one victim lacks one attack."""
    columns = []
    for model, defense in VICTIMS:
        victim = {**BASE, "model": model, "defense": defense}
        for keys in attacks():
            if (model, defense, keys["attack"], keys["epsilon"]) != ("emodb-cnn", "vanilla", "fgsm", 0.1):
                own = keys["access"] == "white-box"
                source = {"source_model": model, "source_defense": defense} if own else {}
                columns.append({**victim, **keys, **source})
        for source_model, source_defense in VICTIMS:
            if (source_model, source_defense) != (model, defense):
                source = {"source_model": source_model, "source_defense": source_defense}
                columns.append({**victim, **TRANSFERRED, **source})
    return columns


def _status(keys: dict[str, Any], metric: str) -> tuple[str, str]:
    if metric in ("attack-success", "snr") and keys["attack"] == "none":
        return "not-applicable", "clean row"
    if metric == "transfer-rate" and keys["access"] != "transfer":
        return "not-applicable", "not a transfer row"
    if metric in ("snr", "pesq", "stoi", "wer", "wer-change") and keys["delivery"] == "features":
        return "not-applicable", "features are no sound"
    if metric == "wer-change":
        return "not-applicable", "no transcriber for 'xx' & co_100%"
    if keys["attack"] == "fgsm" and keys["defense"] == "vanilla" and keys["epsilon"] == 0.06:
        return "failed", "fold 2: ValueError: perturbation has NaN | shape_is {wrong} & 50 %\nsecond line"
    return "ok", ""


def _value(keys: dict[str, Any], metric: str, rng: np.random.Generator) -> float:
    if metric in ("uar", "accuracy"):
        strength = {"none": 0.0, "noise": 0.05, "fgsm": 1.0, "ifgsm": 2.0}[keys["attack"]]
        size = 0 if np.isnan(keys["epsilon"]) else keys["epsilon"] * (15 if keys["epsilon_unit"] == "z" else 800)
        strength *= (0.4 if keys["labels"] == "predicted" else 1) * (0.4 if keys["defense"] == "vanilla" else 1)
        clean = 0.74 if keys["model"] == "cnn4" else 0.66
        share = max(0.0, clean * np.exp(-strength * size) + rng.normal(0, 0.01))
        return float(share if metric == "uar" else round(share * 535) / 535)
    return float(
        {"snr": 44.6, "pesq": 4.1, "stoi": 0.998, "wer": 0.13, "seconds": 0.2}.get(metric, 0.5) + rng.normal(0, 0.01)
    )


def results(**run: Any) -> Results:
    """Results of a suite with two models, two defenses, controls, attacks and transfers."""
    rng = np.random.default_rng(0)
    records = []
    for keys in cells():
        for metric, (_, _, _, higher) in METRICS.items():
            status, reason = _status(keys, metric)
            value = _value(keys, metric, rng) if status == "ok" else np.nan
            some_failed = metric == "pesq" and keys["epsilon"] == 0.002 and keys["attack"] == "noise"
            records.append(
                {
                    **keys,
                    "metric": metric,
                    "value": value,
                    "ci_low": max(value - 0.04, 0.0) if value == value else np.nan,
                    "ci_high": value + 0.04 if value == value else np.nan,
                    "n": 0 if status != "ok" else 530 if some_failed else 535,
                    "n_failed": 5 if some_failed else 0,
                    "status": status,
                    "reason": reason,
                    "higher_is_better": higher,
                }
            )
    described = {name: {"title": t, "unit": u, "decimals": d} for name, (t, u, d, _) in METRICS.items()}
    description: dict[str, Any] = {
        "notes": ["These numbers are made up & mean <nothing>.", "WER by nobody: 100 % closed_text."],
        "failures": [{"reason": "fgsm: perturbation has NaN"}],
        "metrics": described,
        "suite": {"name": "made-up", "title": "Made-up results"},
    }
    return Results(pd.DataFrame(records), no_examples(), {**description, **run})


SPEAKERS, CLIPS, CLASSES = 8, 12, 3


def evaluated(keys: dict[str, Any], skill: float, seed: int = 0) -> EvaluatedCell:
    """A cell whose victim classifies a clip correctly with the chance ``skill``."""
    columns = {**keys, "seed": seed, "epsilon": None if np.isnan(keys["epsilon"]) else keys["epsilon"]}
    rng = np.random.default_rng(list(json.dumps(columns).encode()))
    label = np.tile(np.arange(CLASSES), SPEAKERS * CLIPS // CLASSES)
    right = rng.uniform(size=len(label)) < skill
    clips = pd.DataFrame(
        {
            "clip": np.arange(len(label)).astype(str),
            "speaker": np.repeat(np.arange(SPEAKERS), CLIPS).astype(str),
            "label": label,
            "prediction": np.where(right, label, (label + 1) % CLASSES),
            "margin": np.where(right, 1.0, -1.0) * rng.uniform(size=len(label)),
        }
    )
    return EvaluatedCell(columns, clips)


SUITE = Suite.model_validate(
    {
        "name": "made-up", "corpus": "demo", "protocol": "loso", "models": ["tiny"], "defenses": ["none"],
        "metrics": ["uar"], "bootstrap": 100,
    }
)  # fmt: skip


def ranked() -> Results:
    """`results` with chance baselines, and with ranks of clips that are correct about as often as their figures."""
    unranked = results()
    table = unranked.table
    first = table[(table["attack"] == "none") & table["metric"].isin(["uar", "accuracy"])].iloc[:2]
    baselines = [first.assign(model=name, value=1 / CLASSES, ci_low=0.3, ci_high=0.4) for name in CHANCE_BASELINES]
    return Results(pd.concat([table, *baselines]), unranked.examples, unranked.run, _ranks().copy())


@cache
def _ranks() -> pd.DataFrame:
    table = results().table
    figures = table[table["metric"] == "uar"].set_index(list(KEYS))["value"]
    evaluated_cells = [
        evaluated(dict(zip(KEYS, keys, strict=True)), 0.0 if np.isnan(value) else value)
        for keys, value in figures.items()
    ]
    metrics: dict[str, Metric] = {"uar": UAR(), "accuracy": Accuracy()}
    return ranks(evaluated_cells, SUITE, metrics, CLASSES)


def example(**changes: Any) -> dict[str, Any]:
    """One row of the examples table."""
    row = {
        **BASE, **CLEAN, "model": "cnn4", "defense": "none", "fold": "1", "clip": "03a01Fa", "speaker": "03",
        "label": 0, "prediction": 1, "clean_prediction": 0, "source_prediction": -1, "loss": 0.5, "margin": -0.1,
        "detection": np.nan, "clean_detection": np.nan, "transcript": None,
        "text": "Der Lappen liegt auf dem Eisschrank.", "word_errors": np.nan, "clean_word_errors": np.nan,
        "words": np.nan, "char_errors": np.nan, "clean_char_errors": np.nan, "chars": np.nan,
        "seconds": 0.1, "forwards": 10.0, "backwards": 10.0, "pesq": 4.1,
        "audio_key": "ab" * 32, "model_key": "cd" * 32,
    }  # fmt: skip
    assert set(KEYS) <= set(row)
    return {**row, **changes}
