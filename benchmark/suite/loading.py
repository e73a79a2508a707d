"""Loading of suites, shipped or from a file: read, apply ``--set``, validate."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from advser.errors import InputError, did_you_mean
from advser.plugins.parameters import explain
from advser.suite.overrides import apply, separate
from advser.suite.reading import read_yaml
from advser.suite.schema import Suite


def shipped() -> list[str]:
    """Return the names of the shipped suites."""
    folder = resources.files("advser.suite.shipped")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load(name: str, changes: Sequence[str] = ()) -> Suite:
    """Read a suite and apply ``--set`` changes.

    Args:
        name: a shipped suite's name, or the path of a YAML file.
        changes: texts ``key.path=value`` (`advser.suite.overrides`).

    Raises:
        InputError: if the suite is missing, is not YAML, or does not fit the schema.
    """
    where, text = _text(name)
    data = read_yaml(text, where)
    if not isinstance(data, dict):
        raise InputError(f"{where}: got {type(data).__name__}, expected a mapping of keys")
    changed = separate(data)
    for change in changes:
        apply(changed, change)
    try:
        return Suite.model_validate(changed)
    except ValidationError as error:
        raise InputError(explain(error, _cause(error, data, changes) or where, Suite)) from None


def _cause(error: ValidationError, data: dict[str, Any], changes: Sequence[str]) -> str:
    """Return the ``--set`` with which an error first appears; empty if the suite itself has it."""
    changed = separate(data)
    for change in ("", *changes):
        if change:
            apply(changed, change)
        try:
            Suite.model_validate(changed)
        except ValidationError as earlier:
            if _problems(earlier) >= _problems(error):
                return change and f"--set {change}"
    return ""


def _problems(error: ValidationError) -> set[tuple[Any, ...]]:
    return {(problem["type"], *problem["loc"], problem["msg"]) for problem in error.errors()}


def source(name: str) -> str:
    """Return the YAML text of a shipped suite, or of a file.

    Raises:
        InputError: if it is missing or unreadable.
    """
    return _text(name)[1]


def _text(name: str) -> tuple[str, str]:
    if name in shipped():
        return f"suite {name}", (resources.files("advser.suite.shipped") / f"{name}.yaml").read_text(encoding="utf-8")
    path = Path(name)
    if not path.is_file():
        near = did_you_mean(name, shipped())
        names = ", ".join(shipped())
        raise InputError(f"suite '{name}': neither a file nor a shipped suite, expected a file or {names}{near}")
    try:
        return f"suite {path}", path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"suite {path}: unreadable ({error}), expected a text file in UTF-8") from None
