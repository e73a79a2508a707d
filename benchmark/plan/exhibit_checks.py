"""Compares the exhibits of a suite with its cells, before hours are spent on them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from advser.errors import InputError
from advser.plugins.registries import ATTACKS
from advser.results.schema import KEYS
from advser.suite.exhibits import Curves, Pictures, Profile, Selection, Table, name_of
from advser.suite.schema import Suite

PARAMETER = "params."

Declared = Table | Curves | Profile | Pictures


def check(suite: Suite) -> None:
    """Refuse exhibits and worst cases that no cell of the whole suite can belong to.

    A cut suite is not checked: its tables may have empty places.

    Raises:
        InputError: at the first unknown key, name or metric.
    """
    known = {
        "part": {setting.part for setting in suite.settings},
        "model": {model.title for setting in suite.settings for model in setting.models},
        "defense": {defense.title for setting in suite.settings for defense in setting.defenses},
        "attack": set(_attacks(suite)),
    }
    known |= {"source_model": known["model"], "source_defense": known["defense"]}
    parameters = {*_parameters(suite)}
    metrics = {entry.title for setting in suite.settings for entry in setting.metrics}
    for exhibit in suite.exhibits:
        where = f"suite {suite.name}: exhibit {name_of(exhibit)}"
        for metric in _metrics(exhibit):
            _allow(metric, metrics, f"{where}: metric")
        for selection in _selections(exhibit):
            _check_selection(selection, known, parameters, where)
        if isinstance(exhibit, Pictures):
            parts = [part for part in suite.settings if exhibit.where.get("part", part.part) == part.part]
            if not any(part.samples for part in parts):
                raise InputError(f"{where}: samples of the suite: got 0, expected 1 or more for pictures")
    for setting in suite.settings:
        titles = [attack.title for attack in setting.attacks]
        for worst in setting.worst:
            for name in worst.attacks or []:
                _allow(name, titles, f"suite {suite.name}: {worst.name}: attacks")


def _attacks(suite: Suite) -> Iterator[str]:
    yield "none"
    for setting in suite.settings:
        yield from (attack.title for attack in setting.attacks)
        yield from (worst.name for worst in setting.worst)


def _parameters(suite: Suite) -> Iterator[str]:
    yield "objective"
    for name in {attack.name for setting in suite.settings for attack in setting.attacks}:
        yield from ATTACKS.get(name).model_fields


def _metrics(exhibit: Declared) -> Iterable[str]:
    match exhibit:
        case Table():
            return [column.metric for column in exhibit.columns]
        case Curves() | Profile():
            return exhibit.metrics
        case Pictures():
            return []


def _selections(exhibit: Declared) -> Iterator[Selection]:
    """Yield the selections of an exhibit; a key of which it takes all values has the value ``$``."""
    yield exhibit.where
    match exhibit:
        case Table():
            yield from (row.where for row in exhibit.rows)
            yield from (column.where for column in exhibit.columns)
        case Curves():
            yield dict.fromkeys([exhibit.x, *exhibit.panels, *exhibit.series], "$")
        case Profile():
            yield dict.fromkeys(exhibit.series, "$")
        case Pictures():
            pass


def _check_selection(selection: Selection, known: dict[str, set[str]], parameters: Collection[str], where: str) -> None:
    for key, value in selection.items():
        if key.startswith(PARAMETER):
            _allow(key.removeprefix(PARAMETER), parameters, f"{where}: parameter")
        else:
            _allow(key, [*KEYS, f"{PARAMETER}NAME"], f"{where}: key")
        if key in known and not str(value).startswith("$"):
            # The names of several surrogates are joined.
            for name in str(value).split(" + "):
                _allow(name, known[key], f"{where}: {key}")


def _allow(value: Any, allowed: Collection[Any], where: str) -> None:
    if value not in allowed:
        raise InputError(f"{where}: got '{value}', expected {', '.join(map(str, sorted(allowed)))}")
