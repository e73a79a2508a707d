"""The facts that `advser show` prints of a plugin beside its docstring and its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from advser.plugins.extras import extra_of

HEADINGS: Final = {
    "title": "Title",
    "unit": "Unit",
    "access": "Access",
    "domains": "Domains",
    "licence": "Licence",
    "source": "Available from",
    "naming": "Layout",
    "caveat": "Caveat",
    "caveat_of_words": "Caveat of error rates",
    "citation": "Source",
}
"""Attribute of a plugin → heading."""

_BETTER: Final = {True: "higher", False: "lower", None: "neither is better"}


def facts(plugin: type[Any]) -> Iterator[tuple[str, str]]:
    """Yield heading and text of a plugin's class variables; empty ones are left out."""
    for attribute, heading in HEADINGS.items():
        if value := getattr(plugin, attribute, ""):
            yield heading, value if isinstance(value, str) else ", ".join(value)
    if hasattr(plugin, "higher_is_better"):
        yield "Better for the defender", _BETTER[plugin.higher_is_better]
    if packages := getattr(plugin, "packages", ()):
        yield "Packages", ", ".join(map(_with_extra, packages))


def _with_extra(distribution: str) -> str:
    extra = extra_of(distribution)
    return f"{distribution} (extra '{extra}')" if extra else distribution
