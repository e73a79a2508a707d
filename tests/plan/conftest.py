"""Fixtures of the planner's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from planning import toys_registered


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """Register the toys for one module only: other tests run over every registered plugin."""
    with toys_registered():
        yield
