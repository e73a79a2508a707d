"""Exception types of AdvSER, and hints for misspelt names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

__affects_results__ = False


EXPECTED: Final[Mapping[str, str]] = {
    "missing": "a value",
    "string_type": "text, in quotes if it looks like a number or a date",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "keys with values",
    "mapping_type": "keys with values",
    "model_type": "keys with values",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "too_short": "a list of length {min_length} or more",
    "too_long": "a list of length {max_length} or less",
    "string_too_short": "a text of at least {min_length} characters",
    "string_too_long": "a text of at most {max_length} characters",
}
"""Type of a validation error (pydantic's) → what was expected."""


class AdvserError(Exception):
    """Base of every error that AdvSER raises on purpose."""


class InputError(AdvserError):
    """Unusable input: the command ends with exit code 2 and this message.

    The message is one line: place, problem, fix (``PLACE: got PROBLEM, expected FIX``).
    """


class AccessError(AdvserError):
    """An attack requested information from its target that its access level does not grant."""


class ContractError(AdvserError):
    """A plugin broke its contract: shape, type, NaN, budget."""


class MeasurementError(AdvserError):
    """A metric failed on a clip; the results show the message as the reason."""


class NotApplicableError(AdvserError):
    """A metric or stage does not apply to its input; the results show the message as the reason."""


def one_line(error: BaseException) -> str:
    """Return an error's type and message as one printable line (`printable`)."""
    try:
        text = str(error)
    except Exception:
        text = "its message cannot be shown"
    name = type(error).__name__
    return printable(f"{name}: {text}" if text.strip() else name)


def printable(text: str, longest: int = 500) -> str:
    """Return a text as one line of at most ``longest`` characters, with ``?`` for characters that cannot be printed."""
    line = "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def expected(problem: Mapping[str, Any]) -> str:
    """Return what a validation error expected, from its type, context and message, as pydantic reports them."""
    if form := EXPECTED.get(problem["type"]):
        limits = problem.get("ctx", {}).items()
        return form.format(**{name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in limits})
    return " ".join(problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ").split())


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return the allowed name with the most similar spelling; empty if none is similar."""
    return next(iter(get_close_matches(name, list(allowed), n=1)), "")


def did_you_mean(name: str, allowed: Sequence[str]) -> str:
    """Return the end of a message that suggests the allowed name nearest to ``name``; empty if none is similar."""
    near = nearest(name, allowed)
    return f"; did you mean '{near}'?" if near else ""
