"""Exit codes, options and consoles that the commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advser.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

EXIT_FINDINGS = 1
EXIT_INPUT = 2
EXIT_FAILED_CELLS = 3
EXIT_INTERRUPTED = 130
EXIT_ENDED = 143

Plugins = Annotated[list[Path], typer.Option("--plugin", metavar="FILE", help="Python file that registers plugins.")]


class Device(StrEnum):
    """The device of the models."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def console(*, errors: bool = False) -> Console:
    """Return a console: standard output, or standard error for anything but results."""
    from rich.console import Console

    return Console(highlight=False, stderr=errors)


def pairs(option: str, texts: list[str], form: str) -> dict[str, str]:
    """Return an option's KEY=VALUE texts as a mapping.

    Raises:
        InputError: if a text has another form, or two have the same key.
    """
    mapping: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise InputError(f"{option} {text}: got '{text}', expected {form}")
        if key in mapping:
            raise InputError(f"{option} {text}: got '{key}' twice, expected each key once")
        mapping[key] = value
    return mapping


def parameters(params: list[str]) -> dict[str, Any]:
    """Return the values of ``--param``: name → value, parsed as YAML.

    Raises:
        InputError: if a text has no value, or its value is not YAML.
    """
    from advser.suite.reading import read_yaml

    texts = pairs("--param", params, "KEY=VALUE")
    return {key: read_yaml(value, f"--param {key}={value}") for key, value in texts.items()}


def corpora(data: list[str]) -> dict[str, Path]:
    """Return the values of ``--data``: corpus name → folder."""
    return {name: Path(folder) for name, folder in pairs("--data", data, "CORPUS=DIR").items()}
