"""Exception types of AdvSER, and hints for misspelt names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

__affects_results__ = False


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


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return the allowed name with the most similar spelling; empty if none is similar."""
    return next(iter(get_close_matches(name, list(allowed), n=1)), "")


def did_you_mean(name: str, allowed: Sequence[str]) -> str:
    """Return the end of a message that suggests the allowed name nearest to ``name``; empty if none is similar."""
    near = nearest(name, allowed)
    return f"; did you mean '{near}'?" if near else ""
