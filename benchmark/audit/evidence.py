"""What a run leaves to be audited: its cells, clip by clip, and what its trained models told of themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from advser.attacks.base import Attack
from advser.attacks.controls import FrameNoise, Noise, Offset
from advser.plugins.registries import ATTACKS
from advser.results.schema import CLEAN, KEYS

VICTIM: Final = ("part", "seed", "model", "defense")
"""Keys that name a trained model in a run."""

CONTROLS: Final[tuple[type[Attack], ...]] = (Noise, FrameNoise, Offset)
"""What counts as noise in a budget: it was not made to fool anything, as another attack that is blind may have been."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell as the checks see it.

    Attributes:
        keys: its key columns; ``epsilon`` is None where there is no budget.
        params: the attack's parameters.
        fallen: which clips are misread (N,).
        right: which clips are read rightly when clean (N,).
        iterative: whether the attack takes more than one step along the gradient, or attacks within it do: by its
            declaration, or by the backward passes that were counted.
        steps: the parameter ``steps``, or the largest of the attacks within; 1 without any.
        control: whether it is one of `CONTROLS`.
        handed_in: whether its examples were made elsewhere (`Attack.places`): what they come to is no attack's doing.
        ascends: whether it climbs the suite's objective (`Attack.ascends`).
        detector: whether the victim has a detector of adversarial input.
    """

    keys: Mapping[str, Any]
    params: Mapping[str, Any]
    fallen: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]
    iterative: bool = False
    steps: int = 1
    control: bool = False
    handed_in: bool = False
    ascends: bool = True
    detector: bool = False

    def same(self, other: Cell, *but: str) -> bool:
        """Tell whether all keys are the same, some aside; ``params`` are compared apart (`alike`)."""
        return all(self.keys[key] == other.keys[key] for key in KEYS if key not in (*but, "params"))

    def alike(self, other: Cell, *but: str) -> bool:
        """Tell whether all parameters are the same, some aside, those of attacks within it too."""
        return bool(_without(self.params, but) == _without(other.params, but))

    def within(self, other: Cell) -> bool:
        """Tell whether its budget is no larger than another cell's; one without a bound is larger than any."""
        own, its = self.keys["epsilon"], other.keys["epsilon"]
        return its is None or (own is not None and own <= its)

    @property
    def place(self) -> tuple[Any, ...]:
        """The trained model, and where it is attacked."""
        return tuple(self.keys[key] for key in (*VICTIM, "domain", "delivery", "norm"))

    @property
    def victim(self) -> dict[str, Any]:
        """The keys that name the trained model."""
        return {key: self.keys[key] for key in VICTIM}

    @property
    def gradient(self) -> bool:
        """Whether the attack had the victim's own gradient."""
        return bool(self.keys["access"] == "white-box" and self.keys["attack"] != CLEAN)

    @property
    def queries(self) -> bool:
        """Whether the attack asked the victim for answers alone."""
        return self.keys["access"] in ("scores", "decisions") and not self.handed_in

    @property
    def objective(self) -> str:
        """The loss that the suite gives it to ascend; empty: the usual one, or it ascends its own alone."""
        return str(self.params.get("objective", "")) if self.ascends else ""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a run leaves to be audited.

    Attributes:
        cells: those whose every clip was judged; rows for the worst of several attacks are none of them.
        probes: what trained models said of themselves (`advser.stages.probe`), with the keys that name them.
        classes: number of classes by part.
        adaptable: part and name of the defenses that give an attacker a loss of their own (`Defense.adaptive`).
        unasked: trained models that could not be probed, and why.
    """

    cells: Sequence[Cell]
    probes: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    adaptable: frozenset[tuple[str, str]] = frozenset()
    unasked: Sequence[tuple[Mapping[str, Any], str]] = ()

    @cached_property
    def attacked(self) -> list[Cell]:
        """The cells of attacks and controls."""
        return [cell for cell in self.cells if cell.keys["attack"] != CLEAN]

    @cached_property
    def victims(self) -> list[dict[str, Any]]:
        """The keys of each trained model that was attacked by its own gradient."""
        found = [cell.victim for cell in self.attacked if cell.gradient]
        return list({json.dumps(victim, sort_keys=True): victim for victim in found}.values())

    @cached_property
    def _places(self) -> dict[tuple[Any, ...], list[Cell]]:
        found: dict[tuple[Any, ...], list[Cell]] = {}
        for cell in self.attacked:
            found.setdefault(cell.place, []).append(cell)
        return found

    def rivals(self, cell: Cell) -> list[Cell]:
        """Return the other attacks on the same trained model in the same domain, delivery and norm."""
        return [other for other in self._places[cell.place] if other is not cell]

    def strongest(self, cell: Cell) -> bool:
        """Tell whether no other attack of several steps by gradient fells more clips with the same budget there."""
        alike = (other for other in self.rivals(cell) if other.keys["epsilon"] == cell.keys["epsilon"])
        return all(other.fallen.mean() <= cell.fallen.mean() for other in alike if other.gradient and other.iterative)

    def largest(self, cell: Cell) -> bool:
        """Tell whether no other attack by gradient has a larger budget in the same place."""
        return all(other.within(cell) for other in self.rivals(cell) if other.gradient)

    def asked(self, question: str) -> list[tuple[Mapping[str, Any], Any, Mapping[str, Any]]]:
        """Return each trained model's keys, its answer to a probe, and all its answers; none of those without one."""
        found = [(victim, said.get(question), said) for victim, said in self.probes]
        return [(victim, answer, said) for victim, answer, said in found if answer is not None]


def _without(params: Any, but: Sequence[str]) -> Any:
    """Return parameters that are given, without some of them, at any depth."""
    if isinstance(params, Mapping):
        return {name: _without(value, but) for name, value in params.items() if name not in but and value is not None}
    return [_without(value, but) for value in params] if isinstance(params, list) else params


def cells_of(
    examples: pd.DataFrame, worst: Iterable[tuple[str, str]], attacks: Mapping[tuple[str, str], type[Attack]]
) -> list[Cell]:
    """Return the cells of a run whose every clip was judged.

    Args:
        examples: the examples table.
        worst: part and name of the rows for the worst of several attacks, which are left out.
        attacks: part and title of each attack, with its plugin.
    """
    left_out = {*worst}
    cells = []
    for _, clips in examples.groupby(list(KEYS), sort=False, dropna=False):
        (first,) = clips[list(KEYS)].head(1).to_dict("records")
        keys = {str(key): None if pd.isna(value) else value for key, value in first.items()}
        judged = (clips["prediction"] >= 0).all() and (clips["clean_prediction"] >= 0).all()
        if judged and (keys["part"], keys["attack"]) not in left_out:
            cells.append(_cell(keys, clips, attacks.get((str(keys["part"]), str(keys["attack"])))))
    return cells


def _cell(keys: Mapping[str, Any], clips: pd.DataFrame, plugin: type[Attack] | None) -> Cell:
    label = clips["label"].to_numpy()
    params = json.loads(keys["params"] or "{}")
    made_of = [(plugin, params), *_within(params)]
    return Cell(
        keys,
        params,
        fallen=clips["prediction"].to_numpy() != label,
        right=clips["clean_prediction"].to_numpy() == label,
        iterative=len(made_of) > 2 or _iterative(*made_of[-1]) or (len(made_of) == 1 and _climbs(keys, clips)),
        steps=max(int(given.get("steps") or 1) for _, given in made_of),
        control=plugin in CONTROLS,
        handed_in=plugin is not None and bool(plugin.places),
        ascends=plugin is None or plugin.ascends(params),
        detector=bool(clips["detection"].notna().any()),
    )


def _within(params: Mapping[str, Any]) -> Iterator[tuple[type[Attack] | None, Mapping[str, Any]]]:
    """Yield the attacks, with their parameters, that an attack is made of: those it refers to, at any depth."""
    for one in [params.get("attack"), *(params.get("attacks") or [])]:
        if isinstance(one, Mapping) and one.get("name") in ATTACKS:
            given = one.get("params") or {}
            yield ATTACKS.get(one["name"]), given
            yield from _within(given)


def _climbs(keys: Mapping[str, Any], clips: pd.DataFrame) -> bool:
    return keys["access"] == "white-box" and bool((clips["backwards"] > 1).any())


def _iterative(plugin: type[Attack] | None, params: Mapping[str, Any]) -> bool:
    single = plugin is not None and plugin.single_step
    return not single and params.get("steps") not in (0, 1)
