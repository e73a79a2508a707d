"""What the commands have in common: exit codes, options, and where they print."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advser.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

EXIT_FOUND = 1
EXIT_INPUT = 2
EXIT_FAILED_CELLS = 3
EXIT_INTERRUPTED = 130

Plugins = Annotated[list[Path], typer.Option("--plugin", metavar="FILE", help="Python file that registers plugins.")]


class Device(StrEnum):
    """Where models run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def console(*, errors: bool = False) -> Console:
    """Return where to print: standard output, or, for what is no result, standard error."""
    from rich.console import Console

    return Console(highlight=False, stderr=errors)


def pairs(option: str, texts: list[str], form: str) -> dict[str, str]:
    """Return KEY=VALUE texts of an option as a mapping.

    Raises:
        InputError: if one has another form, or a key is given twice.
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise InputError(f"{option} {text}: allowed: {form}")
        if key in found:
            raise InputError(f"{option} {text}: '{key}' is given twice")
        found[key] = value
    return found


def parameters(params: list[str]) -> dict[str, Any]:
    """Return what ``--param`` says: name → value, read as YAML.

    Raises:
        InputError: if a text has no value, or one that is no YAML.
    """
    from advser.suite.overrides import parsed

    texts = pairs("--param", params, "KEY=VALUE")
    return {key: parsed(value, f"--param {key}={value}") for key, value in texts.items()}


def corpora(data: list[str]) -> dict[str, Path]:
    """Return what ``--data`` says: corpus name → folder."""
    return {name: Path(folder) for name, folder in pairs("--data", data, "CORPUS=DIR").items()}
