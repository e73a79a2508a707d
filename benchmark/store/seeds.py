"""One place that derives seeds: what is drawn depends on the work alone."""

from __future__ import annotations

from typing import Any

from advser.store.artefacts import digest


def seed_from(value: Any) -> int:
    """Return a seed (60 bits) that is the same for equal values (plain JSON data)."""
    return int(digest(value)[:15], 16)
