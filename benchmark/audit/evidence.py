"""The input of an audit: a run's cells, clip by clip, and the answers of its trained models to probes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from advser.attacks.base import Attack
from advser.attacks.controls import FrameNoise, Noise, Offset
from advser.plan.cells import AttackFacts
from advser.plugins.roles import Role
from advser.results.schema import CLEAN, KEYS

VICTIM: Final = ("part", "seed", "model", "defense")
"""Keys that name a trained model in a run."""

CONTROLS: Final[tuple[type[Attack], ...]] = (Noise, FrameNoise, Offset)
"""Noise within a budget. Other blind attacks do not count: they may be designed to mislead models."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell of a run.

    Attributes:
        keys: the key columns; ``epsilon`` is None where there is no budget.
        params: the attack's parameters.
        misled: which clips are misclassified (N,).
        correct: which clips are classified correctly when clean (N,).
        iterative: whether the attack, or an attack within it, takes more than one gradient step, by its declaration or
            by the number of backward passes.
        steps: the gradient steps that the attack declares, or the largest number within; 1 without any.
        roles: the role of each parameter that has one (`advser.plugins.roles`).
        control: whether the attack is in `CONTROLS`.
        external: whether the examples come from files (`Attack.places`), so that they measure no attack of the run.
        ascends: whether the attack ascends the suite's objective (`Attack.ascends`).
        has_detector: whether the victim has a detector of adversarial input.
        passes: forward and backward passes of all clips through the source; None if they are not known.
    """

    keys: Mapping[str, Any]
    params: Mapping[str, Any]
    misled: npt.NDArray[np.bool_]
    correct: npt.NDArray[np.bool_]
    iterative: bool = False
    steps: int = 1
    roles: Mapping[str, Role] = field(default_factory=dict)
    control: bool = False
    external: bool = False
    ascends: bool = True
    has_detector: bool = False
    passes: int | None = None

    def has_same_keys(self, other: Cell, *except_for: str) -> bool:
        """Return whether all keys but some are equal; ``params`` are compared by `has_same_params`."""
        return all(self.keys[key] == other.keys[key] for key in KEYS if key not in (*except_for, "params"))

    def has_same_params(self, other: Cell, *except_for: Role) -> bool:
        """Return whether all parameters are equal but those with some roles, those of attacks within included."""
        names = {name for cell in (self, other) for name, role in cell.roles.items() if role in except_for}
        return bool(_without(self.params, names) == _without(other.params, names))

    def is_within_budget_of(self, other: Cell) -> bool:
        """Return whether the budget is at most another cell's; an attack without a bound exceeds every budget."""
        epsilon, limit = self.keys["epsilon"], other.keys["epsilon"]
        return limit is None or (epsilon is not None and epsilon <= limit)

    @property
    def place(self) -> tuple[Any, ...]:
        """The keys of the trained model, the domain, the delivery and the norm."""
        return tuple(self.keys[key] for key in (*VICTIM, "domain", "delivery", "norm"))

    @property
    def victim(self) -> dict[str, Any]:
        """The keys that name the trained model."""
        return {key: self.keys[key] for key in VICTIM}

    @property
    def is_white_box(self) -> bool:
        """Whether the attack uses the victim's own gradient."""
        return bool(self.keys["access"] == "white-box" and self.keys["attack"] != CLEAN)

    @property
    def is_query_based(self) -> bool:
        """Whether the attack uses the victim's answers alone."""
        return self.keys["access"] in ("scores", "decisions") and not self.external

    @property
    def objective(self) -> str:
        """The loss from the suite that the attack ascends; empty for the default, or for the attack's own loss."""
        return str(self.params.get("objective", "")) if self.ascends else ""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The input of an audit.

    Attributes:
        cells: the cells whose every clip was evaluated, without the rows for the worst of several attacks.
        probes: keys of each probed model, with its answers (`advser.stages.probes.probe`).
        classes: number of classes by part.
        adaptable: part and name of each defense with a loss for adaptive attacks (`Defense.adaptive`).
        unprobed: keys of each trained model that could not be probed, with the reason.
    """

    cells: Sequence[Cell]
    probes: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    adaptable: frozenset[tuple[str, str]] = frozenset()
    unprobed: Sequence[tuple[Mapping[str, Any], str]] = ()

    @cached_property
    def attacked(self) -> list[Cell]:
        """The cells of attacks and controls."""
        return [cell for cell in self.cells if cell.keys["attack"] != CLEAN]

    @cached_property
    def victims(self) -> list[dict[str, Any]]:
        """The keys of each trained model with a white-box attack."""
        victims = [cell.victim for cell in self.attacked if cell.is_white_box]
        return list({json.dumps(victim, sort_keys=True): victim for victim in victims}.values())

    @cached_property
    def _by_place(self) -> dict[tuple[Any, ...], list[Cell]]:
        cells: dict[tuple[Any, ...], list[Cell]] = {}
        for cell in self.attacked:
            cells.setdefault(cell.place, []).append(cell)
        return cells

    def rivals(self, cell: Cell) -> list[Cell]:
        """Return the other attacks on the same trained model in the same domain, delivery and norm."""
        return [other for other in self._by_place[cell.place] if other is not cell]

    def is_strongest(self, cell: Cell) -> bool:
        """Return whether no rival iterative white-box attack with the same budget misleads more clips."""
        rivals = (other for other in self.rivals(cell) if other.keys["epsilon"] == cell.keys["epsilon"])
        iterative = (other for other in rivals if other.is_white_box and other.iterative)
        return all(other.misled.mean() <= cell.misled.mean() for other in iterative)

    def has_largest_budget(self, cell: Cell) -> bool:
        """Return whether no rival white-box attack has a larger budget."""
        return all(other.is_within_budget_of(cell) for other in self.rivals(cell) if other.is_white_box)

    def answers(self, question: str) -> list[tuple[Mapping[str, Any], Any, Mapping[str, Any]]]:
        """Return the keys, the answer to a probe, and all answers of each model that answers the probe."""
        answers = [(victim, probed.get(question), probed) for victim, probed in self.probes]
        return [(victim, answer, probed) for victim, answer, probed in answers if answer is not None]


def _without(params: Any, names: Collection[str]) -> Any:
    """Return parameters without the named ones and those that are None, at any depth."""
    if isinstance(params, Mapping):
        rest = {name: value for name, value in params.items() if name not in names and value is not None}
        return {name: _without(value, names) for name, value in rest.items()}
    return [_without(value, names) for value in params] if isinstance(params, list) else params


def cells_of(
    examples: pd.DataFrame, worst: Iterable[tuple[str, str]], attacks: Mapping[tuple[str, str, str], AttackFacts]
) -> list[Cell]:
    """Return the cells of a run whose every clip was evaluated.

    Args:
        examples: the examples table.
        worst: part and name of the rows for the worst of several attacks, which are left out.
        attacks: part, title and ``params`` of each attack, with the facts that the planner knows.
    """
    left_out = {*worst}
    cells = []
    for _, clips in examples.groupby(list(KEYS), sort=False, dropna=False):
        (first,) = clips[list(KEYS)].head(1).to_dict("records")
        keys = {str(key): None if pd.isna(value) else value for key, value in first.items()}
        evaluated = (clips["prediction"] >= 0).all() and (clips["clean_prediction"] >= 0).all()
        if evaluated and (keys["part"], keys["attack"]) not in left_out:
            place = (str(keys["part"]), str(keys["attack"]), str(keys["params"]))
            cells.append(_cell(keys, clips, None if keys["attack"] == CLEAN else attacks[place]))
    return cells


def _cell(keys: Mapping[str, Any], clips: pd.DataFrame, facts: AttackFacts | None) -> Cell:
    """Return a cell; the clean cell has no facts."""
    label = clips["label"].to_numpy()
    cell = Cell(
        keys,
        {},
        misled=clips["prediction"].to_numpy() != label,
        correct=clips["clean_prediction"].to_numpy() == label,
        has_detector=bool(clips["detection"].notna().any()),
        passes=int(clips[["forwards", "backwards"]].fillna(0).to_numpy().sum()),
    )
    if facts is None:
        return cell
    several_passes = keys["access"] == "white-box" and bool((clips["backwards"] > 1).any())
    return replace(
        cell,
        params=facts.params,
        iterative=facts.is_iterative(several_passes=several_passes),
        steps=facts.steps,
        roles=facts.roles,
        control=type(facts.attack) in CONTROLS,
        external=bool(facts.attack.places),
        ascends=facts.attack.ascends(facts.params),
    )
