"""The code that decides a job's result, as fingerprints: equal where it is planned and where it is done."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from advser.plugins.extras import not_installed
from advser.plugins.fingerprint import code_fingerprint
from advser.plugins.registries import REGISTRIES
from advser.stages import PACKAGES, STAGES


def fingerprints(stage: str, uses: Iterable[str]) -> dict[str, str]:
    """Return name → fingerprint of a stage and of what it uses: plugins, and versions of distributions.

    Of distributions there are the stage's, those that a plugin says (its class variable ``packages``), and those that
    the modules of a plugin from outside AdvSER import.

    Args:
        stage: a key of `STAGES`.
        uses: plugins, as ``attacks:fgsm``, and further distributions, as ``package:pesq``.

    Raises:
        InputError: if a plugin is unknown, or a distribution is not installed.
    """
    found = {"stage": code_fingerprint(STAGES[stage].partition(":")[0])}
    for name in [*(f"package:{package}" for package in PACKAGES[stage]), *uses]:
        kind, _, used = name.partition(":")
        if kind == "package":
            found[name] = _version(used, f"stage '{stage}'")
            continue
        registry = REGISTRIES[kind]
        found[name] = registry.fingerprint(used)
        packages = (*registry.packages(used), *getattr(registry.get(used), "packages", ()))
        needs = f"{registry.kind} '{used}'"
        found |= {f"package:{package}": _version(package, needs) for package in packages}
    return found


@cache
def _version(distribution: str, whose: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        raise not_installed(whose, distribution) from None
