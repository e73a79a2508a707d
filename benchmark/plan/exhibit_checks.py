"""Holds what a suite declares to show against what it runs, before hours are spent on it."""

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

    Not for a cut suite: there a table may well have empty places.

    Raises:
        InputError: at the first key, name or metric that the suite does not have.
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
            meant = [one for one in suite.settings if exhibit.where.get("part", one.part) == one.part]
            if not any(setting.samples for setting in meant):
                raise InputError(f"{where}: samples of the suite: got 0, expected with pictures: 1 or more")
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
    """Yield what an exhibit selects by; keys that it takes all values of stand with ``$``."""
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
            # Several surrogates are joined.
            for name in str(value).split(" + "):
                _allow(name, known[key], f"{where}: {key}")


def _allow(found: Any, allowed: Collection[Any], where: str) -> None:
    if found not in allowed:
        raise InputError(f"{where}: got '{found}', expected {', '.join(map(str, sorted(allowed)))}")
