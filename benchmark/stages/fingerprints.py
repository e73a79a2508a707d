"""Fingerprints of the code that decides a job's result; planner and worker must agree on them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from advser.plugins.extras import not_installed
from advser.plugins.fingerprint import code_fingerprint
from advser.plugins.registries import REGISTRIES
from advser.stages import PACKAGES, STAGES


def fingerprints(stage: str, uses: Iterable[str]) -> dict[str, str]:
    """Return name → fingerprint of a stage, of plugins, and of the distributions that they use (their versions).

    The distributions are the stage's, those that a plugin lists (class variable ``packages``), and those that the
    modules of a plugin from outside AdvSER import.

    Args:
        stage: a key of `STAGES`.
        uses: plugins, as ``attacks:fgsm``, and further distributions, as ``package:pesq``.

    Raises:
        InputError: if a plugin is unknown, or a distribution is not installed.
    """
    codes = {"stage": code_fingerprint(STAGES[stage].partition(":")[0])}
    for name in [*(f"package:{package}" for package in PACKAGES[stage]), *uses]:
        kind, _, used = name.partition(":")
        if kind == "package":
            codes[name] = _version(used, f"stage '{stage}'")
            continue
        registry = REGISTRIES[kind]
        codes[name] = registry.fingerprint(used)
        packages = (*registry.packages(used), *getattr(registry.get(used), "packages", ()))
        needs = f"{registry.kind} '{used}'"
        codes |= {f"package:{package}": _version(package, needs) for package in packages}
    return codes


@cache
def _version(distribution: str, whose: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        raise not_installed(whose, distribution) from None
