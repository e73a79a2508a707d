"""The few ways in which a benchmark run can go wrong, as types."""

from __future__ import annotations


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
