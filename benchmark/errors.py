"""The few ways in which a benchmark run can go wrong, as types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

__affects_results__ = False


class AdvserError(Exception):
    """Base of every error that AdvSER raises on purpose."""


class InputError(AdvserError):
    """Unusable input: the command ends with exit code 2 and this message.

    The message is one line that names the file or key, what was found and what is allowed.
    """


class AccessError(AdvserError):
    """An attack asked its target for something that its access level does not grant."""


class ContractError(AdvserError):
    """A plugin returned something that its contract does not allow (shape, type, NaN, budget)."""


class MeasurementError(AdvserError):
    """A measurement of one clip failed; the message is the reason shown in the results."""


class NotApplicableError(AdvserError):
    """A measurement has no meaning here; the message is the reason shown in the results."""


def one_line(error: BaseException) -> str:
    """Return an error's type and message in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def nearest(found: str, allowed: Iterable[str]) -> str:
    """Return which of ``allowed`` is spelt most like ``found``; empty if none is near."""
    return next(iter(get_close_matches(found, list(allowed), n=1)), "")


def did_you_mean(found: str, allowed: Sequence[str]) -> str:
    """Return the end of a message that names what is nearest to ``found``; empty if nothing is near."""
    near = nearest(found, allowed)
    return f"; did you mean '{near}'?" if near else ""
