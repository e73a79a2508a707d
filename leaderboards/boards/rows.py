"""Rows from the long results table: one per cell of the run, its metrics side by side, in reading order."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import pandas as pd

from advser.errors import InputError
from advser.leaderboards.boards.board import MISSING, Cell
from advser.results.folder import Results
from advser.results.schema import CLEAN, KEYS, value_text
from advser.results.terms import CHANCE_BASELINES

SETTING = ("suite", "part", "corpus", "task", "protocol", "split", "seed")
"""Keys of the circumstances under which a model was trained and judged."""

NORM_NAMES = {"linf": "L∞", "l2": "L2", "relative-l2": "relative L2"}
UNITS = {"full-scale": "FS", "z": "z", "clip": "of the clip"}
CONTROL_NOTE = "An attack without labels is a control: it uses no knowledge of the model."
UNIT_NOTES = {
    "full-scale": "FS: full scale, the waveform on [−1, 1].",
    "z": "z: standard deviations of the training data's features.",
    "clip": "of the clip: L2 norm of the perturbation over that of the clip; in dB, the least SNR that it leaves.",
}
_ORDER = {
    "domain": ("waveform", "spectrogram"),
    "delivery": ("features", "audio"),
    "labels": ("none", "true", "predicted", "soft"),
}


@dataclass(frozen=True)
class Row:
    """One cell of the run.

    Attributes:
        keys: the cell's keys, as in the results; ``epsilon`` is None without a budget.
        params: the attack's parameters.
        shown_params: the parameters that boards show with the attack's name.
        cells: metric → figure.
    """

    keys: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    shown_params: tuple[str, ...] = ()
    cells: dict[str, Cell] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing was perturbed."""
        return bool(self.keys["attack"] == CLEAN)

    @property
    def control(self) -> bool:
        """Whether the perturbation uses no knowledge of any model."""
        return not self.clean and bool(self.keys["access"] == "blind")

    @property
    def transfer(self) -> bool:
        """Whether the examples were crafted on another model, the same for all clips."""
        return bool(self.keys["access"] == "transfer" and self.keys["source_model"])

    @property
    def labels(self) -> str:
        """The kind of labels that the attack reads, as ``true labels``; empty if it reads none."""
        labels = self.text("labels")
        return f"{labels} labels" if labels else ""

    @cached_property
    def attack(self) -> str:
        """The attack as boards name it: its name and shown parameters, ``clean`` for the clean cell."""
        return self.attack_without()

    def attack_without(self, *parameters: str) -> str:
        """Return `attack` without some of its parameters."""
        if self.clean:
            return "clean"
        names = [name for name in self.shown_params if name not in parameters and self.params.get(name) is not None]
        given = ", ".join(f"{name}={value_text(self.params[name])}" for name in names)
        return f"{self.keys['attack']} ({given})" if given else str(self.keys["attack"])

    def figure(self, metric: str) -> Cell:
        """Return a metric's figure; `MISSING` if the results lack it."""
        return self.cells.get(metric, MISSING)

    def text(self, key: str) -> str:
        """Return a key as boards show it; empty if it does not apply."""
        if key == "attack":
            return self.attack
        if self.clean and key in ("params", "domain", "delivery", "labels", "access", "norm", "epsilon"):
            return ""
        if key == "epsilon":
            return epsilon_text(self.keys["epsilon"], self.keys["epsilon_unit"])
        if (key == "labels" and self.keys["labels"] == "none") or (key == "access" and self.control):
            return ""
        return str(self.keys[key])

    def values(self, keys: Iterable[str]) -> tuple[Any, ...]:
        """Return the values of some keys, to compare and group rows by."""
        return tuple(self.keys[key] for key in keys)


def epsilon_text(epsilon: float | None, unit: str) -> str:
    """Return a budget with its unit, as ``0.06 z`` or ``0.01 of the clip (40 dB)``; empty without a budget."""
    if epsilon is None:
        return ""
    decibels = f" ({-20 * math.log10(epsilon):.3g} dB)" if unit == "clip" and epsilon else ""
    return f"{epsilon:g} {UNITS.get(unit, unit)}".strip() + decibels


def metrics(results: Results) -> tuple[str, ...]:
    """Return the names of the metrics, in the order of the suite."""
    return tuple(results.table["metric"].unique())


def rows(results: Results) -> list[Row]:
    """Return the cells in reading order, pooled over seeds if the results are; without the chance baselines.

    For each setting, model and defense: clean, then controls, then attacks. Within these: by domain, delivery, attack,
    labels and budget. Settings, models, defenses and attacks keep the order of the suite.

    Raises:
        InputError: if a cell's ``params`` are not the JSON text of a mapping.
    """
    return list(_in_reading_order(results))


def chance_baselines(results: Results) -> list[Row]:
    """Return the rows of the chance baselines (`advser.scoring.chance_baselines`), which older results lack."""
    return [row for row in _all_rows(results) if row.keys["model"] in CHANCE_BASELINES]


def seed_text(results: Results) -> int | str:
    """Return the seed as boards show it: a number, or all seeds that figures are means over."""
    seeds = list(dict.fromkeys(results.table["seed"]))
    return seeds[0] if len(seeds) == 1 else f"{', '.join(map(str, seeds))} (mean)"


def worst_cases(results: Results) -> set[tuple[object, ...]]:
    """Return part and name of each worst case over several attacks that the run's suite declares."""
    suite = results.run.get("suite", {})
    parts = (suite.get("parts") or {}).values() or [suite]
    return {(part.get("part", ""), worst["name"]) for part in parts for worst in part.get("worst", [])}


def cell_id(keys: Mapping[str, Any]) -> str:
    """Return a cell's identifier for links: ten hexadecimal digits, from its keys without the seed."""
    named = [None if pd.isna(keys[key]) else keys[key] for key in KEYS if key != "seed"]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:10]


# Seven boards, the figures and the page read the same rows.
@lru_cache(maxsize=1)
def _in_reading_order(results: Results) -> tuple[Row, ...]:
    of_models = [row for row in _all_rows(results) if row.keys["model"] not in CHANCE_BASELINES]
    shown = _shown_params(of_models)
    return tuple(_ordered([replace(row, shown_params=shown[row.keys["attack"]]) for row in of_models]))


@lru_cache(maxsize=1)
def _all_rows(results: Results) -> tuple[Row, ...]:
    table = results.table if results.pooled.empty else results.pooled.assign(seed=seed_text(results))
    row_of: dict[tuple[Any, ...], Row] = {}
    origins: dict[tuple[Any, ...], str] = {}
    for record in table.to_dict("records"):
        keys = {key: None if pd.isna(record[key]) else record[key] for key in KEYS}
        place = tuple(keys.values())
        if place not in row_of:
            row_of[place], origins[place] = Row(keys, parameters(keys)), cell_id(keys)
        row_of[place].cells[record["metric"]] = Cell(
            record["value"], record["ci_low"], record["ci_high"], record["n"], record["n_failed"],
            record["status"], record["reason"], record.get("spread", math.nan), origin=origins[place],
        )  # fmt: skip
    return tuple(row_of.values())


def parameters(keys: dict[str, Any]) -> dict[str, Any]:
    """Return the attack's parameters from a cell's keys.

    Raises:
        InputError: if they are not the JSON text of a mapping.
    """
    try:
        params = json.loads(keys["params"] or "{}")
    except ValueError:
        params = None
    if not isinstance(params, dict):
        raise InputError(f"results: params of {keys['attack']}: got {keys['params']!r}, expected a JSON mapping")
    return params


def _shown_params(listed: Iterable[Row]) -> dict[str, tuple[str, ...]]:
    """Return attack → the parameters that boards show: the number of steps, and those that its cells differ in."""
    of_attack: dict[str, list[Row]] = {}
    for row in listed:
        of_attack.setdefault(row.keys["attack"], []).append(row)
    return {attack: tuple(_differing_params(members)) for attack, members in of_attack.items()}


def _differing_params(members: Sequence[Row]) -> Iterator[str]:
    """Yield the number of steps, and the parameters that differ or that only some cells have."""
    for name in dict.fromkeys(name for row in members for name in row.params):
        values = {json.dumps(_without_budget(row.params.get(name)), sort_keys=True) for row in members}
        if name == "steps" or (name != "epsilon" and len(values) > 1):
            yield name


def _without_budget(value: Any) -> Any:
    """Return a parameter without the budgets of nested attacks, which equal the outer budget (`ensemble`, `eot`)."""
    if isinstance(value, dict):
        return {key: _without_budget(item) for key, item in value.items() if key not in ("epsilon", "norm")}
    return [_without_budget(item) for item in value] if isinstance(value, list) else value


def _ordered(listed: Sequence[Row]) -> list[Row]:
    attacks = _positions(row.attack for row in listed)
    victims = _positions(row.values((*SETTING, "model", "defense")) for row in listed)
    sources = _positions(row.values(("source_model", "source_defense")) for row in listed)

    def position(row: Row) -> tuple[Any, ...]:
        rank = 0 if row.clean else 1 if row.control else 2
        places = [_place(row.keys[key], _ORDER[key]) for key in ("domain", "delivery")]
        return (
            victims[row.values((*SETTING, "model", "defense"))],
            rank,
            *places,
            attacks[row.attack],
            _place(row.keys["labels"], _ORDER["labels"]),
            row.keys["norm"],
            -1.0 if row.keys["epsilon"] is None else row.keys["epsilon"],
            sources[row.values(("source_model", "source_defense"))],
        )

    return sorted(listed, key=position)


def _positions(values: Iterable[Hashable]) -> dict[Hashable, int]:
    """Return the place of each distinct value, in order of first appearance."""
    return {value: place for place, value in enumerate(dict.fromkeys(values))}


def _place(value: str, order: tuple[str, ...]) -> int:
    return order.index(value) if value in order else len(order)
