"""Seeds of jobs: what a job draws depends on its specification alone."""

from __future__ import annotations

from typing import Any, Final

from advser.stages.specs import Spec
from advser.store.digests import seed_from

UNSEEDED: Final = frozenset({"budget"})
"""Fields of specifications that seeds do not depend on."""


def seed_of(spec: Spec, *further: Any) -> int:
    """Return a seed (60 bits) for what a job draws; ``further`` is plain JSON data, such as a batch's number."""
    data = {name: value for name, value in spec.plain().items() if name not in UNSEEDED}
    return seed_from([data, *further] if further else data)
