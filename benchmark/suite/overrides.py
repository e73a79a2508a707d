"""Changes to a suite from the command line, ``--set KEY=VALUE``, applied to its YAML before validation.

KEY is a path of keys joined by full stops. Entries of a list are named by number, label or name; ``vanilla-*`` names
all entries with a matching label or name. VALUE is YAML.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from advser.errors import InputError
from advser.suite.reading import read_yaml

BARE_NAMES: Final = ("corpus", "transcriber")
"""Keys of a suite whose value is a single plugin, possibly written as its bare name."""


def separate(data: Any) -> Any:
    """Return a copy in which YAML aliases share no objects, so that a change affects one place only."""
    if isinstance(data, dict):
        return {key: separate(value) for key, value in data.items()}
    return [separate(value) for value in data] if isinstance(data, list) else data


def apply(data: dict[str, Any], change: str) -> None:
    """Apply one change, KEY=VALUE, to a suite's data.

    Raises:
        InputError: if the change has another form, or its path leads nowhere.
    """
    path, equals, text = change.partition("=")
    if not equals or not path:
        raise InputError(f"--set {change}: got no '=', expected KEY=VALUE, e.g. training.iterations=100")
    value = read_yaml(text, f"--set {change}")
    parts = path.split(".")
    if len(parts) > 2 and parts[0] == "parts" and isinstance(suite_parts := data.get("parts", {}), dict):
        _refuse_new_part(suite_parts, parts[1], change)
    _inherit(data, parts, change)
    for place, last, above in _places(data, parts, change):
        if isinstance(place, list):
            place[_position(place, above, last, change)] = value
        elif isinstance(place, dict):
            place[last] = value
        else:
            raise InputError(f"--set {change}: got '{last}' below a value, expected a path of keys")


def _refuse_new_part(suite_parts: dict[Any, Any], part: str, change: str) -> None:
    if "*" not in part and part not in suite_parts:
        names = ", ".join(map(str, suite_parts)) or "none"
        raise InputError(f"--set {change}: got part '{part}', expected {names}")


def _inherit(data: dict[str, Any], parts: Sequence[str], change: str) -> None:
    """If a path leads into a key that parts inherit, write the suite's value into these parts."""
    match parts:
        case ["parts", pattern, key, _, *_] if isinstance(data.get("parts"), dict) and key in data:
            for name in _entries(data["parts"], ["parts"], pattern, change):
                if isinstance(part := data["parts"].get(name), dict):
                    part.setdefault(key, separate(data[key]))
        case _:
            pass


def _places(data: Any, parts: Sequence[str], change: str) -> Iterator[tuple[Any, str, Sequence[str]]]:
    """Yield the container, the last key, and the path above it, for each place that a path with ``*`` matches."""
    *parents, last = parts
    reached: list[tuple[Any, list[str]]] = [(data, [])]
    for part in parents:
        reached = [
            (_child(place, above, name, change), [*above, name])
            for place, above in reached
            for name in _entries(place, above, part, change)
        ]
    for place, above in reached:
        for name in _entries(place, above, last, change):
            yield place, name, above


def _entries(place: Any, above: Sequence[str], part: str, change: str) -> list[str]:
    """Return a part of a path or, if it has a ``*``, all entries whose name it matches."""
    if "*" not in part:
        return [part]
    keys = [str(key) for key in place] if isinstance(place, dict) else []
    names = _names(place) if isinstance(place, list) else keys
    hits = [number for number, name in enumerate(names) if name == part or fnmatchcase(name, part)]
    if not hits:
        listed = ", ".join(names) or "none"
        raise InputError(f"--set {change}: got '{part}', expected a match in '{'.'.join(above)}': {listed}")
    return [names[number] if isinstance(place, dict) else str(number) for number in hits]


def _names(entries: Sequence[Any]) -> list[str]:
    return [
        str(entry.get("label") or entry.get("name")) if isinstance(entry, dict) else str(entry) for entry in entries
    ]


def _child(place: Any, above: Sequence[str], part: str, change: str) -> Any:
    if isinstance(place, list):
        index = _position(place, above, part, change)
        if isinstance(place[index], str):
            place[index] = {"name": place[index]}
        return place[index]
    if isinstance(place, dict):
        if isinstance(value := place.setdefault(part, {}), str) and _takes_a_plugin(above, part):
            place[part] = {"name": value}
        return place[part]
    raise InputError(f"--set {change}: got '{part}' below a value, expected a path of keys")


def _takes_a_plugin(above: Sequence[str], part: str) -> bool:
    in_a_suite = not above or (len(above) == 2 and above[0] == "parts")
    return in_a_suite and part in BARE_NAMES


def _position(entries: list[Any], above: Sequence[str], part: str, change: str) -> int:
    names = _names(entries)
    if part.isdigit() and int(part) < len(entries):
        return int(part)
    if names.count(part) > 1:
        allowed = [".".join([*above, str(index)]) for index, name in enumerate(names) if name == part]
        places = " or ".join(allowed)
        raise InputError(f"--set {change}: '{part}' is listed {len(allowed)} times, expected {places}, or a glob")
    if part in names:
        return names.index(part)
    raise InputError(f"--set {change}: got entry '{part}', expected {', '.join(names) or 'none'}")
