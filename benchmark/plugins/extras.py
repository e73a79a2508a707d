"""AdvSER's extras: which extra installs a distribution, and the error for a missing one."""

from __future__ import annotations

import re
from importlib.metadata import requires

from advser.errors import InputError

__affects_results__ = False


def extra_of(distribution: str) -> str:
    """Return the first of AdvSER's extras that installs a distribution; empty if there is none."""
    for requirement in requires("advser") or []:
        extra = re.fullmatch(rf"{re.escape(distribution)}(?![\w.-]).*\bextra == ['\"]([\w-]+)['\"].*", requirement)
        if extra is not None:
            return extra[1]
    return ""


def not_installed(whose: str, distribution: str) -> InputError:
    """Return the error for a distribution that is not installed, with the command that installs it.

    Args:
        whose: the part that needs it, such as ``model 'pretrained'``.
        distribution: its name for pip.
    """
    extra = extra_of(distribution)
    remedy = f"pip install '.[{extra}]' (in AdvSER's source folder)" if extra else f"pip install '{distribution}'"
    return InputError(f"{whose}: {distribution} is not installed; install it with: {remedy}")
