"""The code that decides a job's result, as fingerprints: equal where it is planned and where it is done."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import version

from advser.plugins import REGISTRIES
from advser.registry import code_fingerprint
from advser.stages import PACKAGES, STAGES


def fingerprints(stage: str, uses: Iterable[str]) -> dict[str, str]:
    """Return name → fingerprint of a stage and of what it uses, the distributions included that its plugins import.

    Args:
        stage: a key of `STAGES`.
        uses: plugins, as ``attacks:fgsm``, and further distributions, as ``package:pesq``.

    Raises:
        InputError: if a plugin is unknown.
        PackageNotFoundError: if a distribution is not installed.
    """
    found = {"stage": code_fingerprint(STAGES[stage].partition(":")[0])}
    for name in [*(f"package:{package}" for package in PACKAGES[stage]), *uses]:
        kind, _, used = name.partition(":")
        if kind == "package":
            found[name] = _version(used)
            continue
        found[name] = REGISTRIES[kind].fingerprint(used)
        found |= {f"package:{package}": _version(package) for package in REGISTRIES[kind].packages(used)}
    return found


@cache
def _version(distribution: str) -> str:
    return version(distribution)
