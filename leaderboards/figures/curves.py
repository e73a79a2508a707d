"""Panels of curves: a metric against the budget or the number of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from advser.leaderboards.boards.board import Cell
from advser.leaderboards.boards.layout import groups, section_texts
from advser.leaderboards.boards.rows import NORM_NAMES, SETTING, Row

_UNIT_NAMES: Final = {"z": "standard deviations", "full-scale": "full scale, [−1, 1]", "clip": "of the clip"}

PLACE: Final = ("domain", "delivery", "norm")
"""Keys that the attacks of one panel share; budgets in two norms cannot share an axis."""


@dataclass(frozen=True)
class Curve:
    """One attack in one panel.

    Attributes:
        name: attack, and labels or budget, for the legend.
        attack: the attack, which sets the colour.
        labels: the kind of labels, which sets the marker.
        control: whether it is a control.
        points: (x, figure), x ascending; cells without a figure are included, so that they interrupt the line.
    """

    name: str
    attack: str
    labels: str
    control: bool
    points: tuple[tuple[float, Cell], ...]


@dataclass(frozen=True)
class Panel:
    """One model in one place of attack: titles, axis label, clean figure (None: not measured) and curves."""

    victim: str
    place: str
    x_label: str
    clean: Cell | None
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Axis:
    """A horizontal axis: its name and title, and of a row its x (None: not drawn), curve, attack and axis label."""

    name: str
    title: str
    x: Callable[[Row], float | None]
    curve: Callable[[Row], str]
    attack: Callable[[Row], str]
    label: Callable[[Row], str]


def panels(listed: Sequence[Row], metric: str, axis: Axis) -> list[Panel]:
    """Return a panel for each model with its defense, and each place (domain and delivery).

    A place in which no attack has figures at two x is left out: it shows no more than the boards do.
    """
    own = [row for row in listed if not row.transfer]
    drawn = [row for row in own if not row.clean and axis.x(row) is not None]
    victims = groups(own, (*SETTING, "model", "defense"))
    places = [
        place
        for place in dict.fromkeys(row.values(PLACE) for row in drawn)
        if any(_has_curve(victim, place, metric, axis) for victim in victims)
    ]
    titles = section_texts([victim[0] for victim in victims], ("model", "defense"))
    labels: dict[tuple[Any, ...], str] = {}
    for row in drawn:
        if row.values(PLACE) not in labels:
            labels[row.values(PLACE)] = axis.label(row)
    return [
        _panel(victim, title, place, labels[place], metric, axis)
        for victim, title in zip(victims, titles, strict=True)
        for place in places
    ]


def _has_curve(victim: Sequence[Row], place: tuple[Any, ...], metric: str, axis: Axis) -> bool:
    """Return whether any of the victim's curves at ``place`` has figures at two x."""
    measured: dict[str, set[float | None]] = {}
    for row in victim:
        if not row.clean and row.values(PLACE) == place and row.figure(metric).status == "ok":
            measured.setdefault(axis.curve(row), set()).add(axis.x(row))
    return any(len(values - {None}) > 1 for values in measured.values())


def _panel(victim: Sequence[Row], title: str, place: tuple[Any, ...], x_label: str, metric: str, axis: Axis) -> Panel:
    by_curve: dict[str, list[Row]] = {}
    for row in victim:
        if not row.clean and axis.x(row) is not None and row.values(PLACE) == place:
            by_curve.setdefault(axis.curve(row), []).append(row)
    curves = []
    for name, members in by_curve.items():
        points = sorted(((float(axis.x(row) or 0), row.figure(metric)) for row in members), key=lambda point: point[0])
        head = members[0]
        curves.append(Curve(name, axis.attack(head), head.text("labels"), head.control, tuple(points)))
    clean = next((row.figure(metric) for row in victim if row.clean and row.figure(metric).status == "ok"), None)
    domain, delivery, norm = place
    name = f"{domain}, judged as {delivery}" if domain == "spectrogram" else str(domain)
    name += f", {NORM_NAMES.get(norm, norm)}" if norm not in ("", "linf") else ""
    return Panel(title, name, x_label, clean, tuple(curves))


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _budget(row: Row) -> str:
    unit, norm = row.keys["epsilon_unit"], row.keys["norm"]
    return f"{NORM_NAMES.get(norm, norm)} budget ε ({_UNIT_NAMES.get(unit, unit)})"


def _same_but_steps(row: Row) -> str:
    budget = f"ε = {row.text('epsilon')}" if row.text("epsilon") else ""
    return _joined(row.attack_without("steps"), row.labels, budget)


EPSILON: Final = Axis(
    "epsilon",
    "the budget ε",
    x=lambda row: row.keys["epsilon"],
    curve=lambda row: _joined(row.attack, row.labels),
    attack=lambda row: row.attack,
    label=_budget,
)
"""The budget; a curve for each attack and kind of labels."""

STEPS: Final = Axis(
    "steps",
    "the number of steps",
    x=lambda row: row.params.get("steps"),
    curve=_same_but_steps,
    attack=_same_but_steps,
    label=lambda row: "steps",
)
"""The number of steps; a curve for each attack with its other parameters, kind of labels and budget.

A suite that changes another parameter together with the number of steps has no curve."""
