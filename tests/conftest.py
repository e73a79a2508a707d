"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).parents[1]
# pytest's importlib mode adds nothing to the search path; the toy models are in toys.py.
sys.path.append(str(Path(__file__).parent))

from commandline import registries_as_they_were  # noqa: E402 (found by the line before)

# The same examples at every run: a failure is then a change of the code, and no time limit fails a busy machine.
# Tests run beside one another; two pools of threads on the same cores slow each other down many times over.
torch.set_num_threads(1)
settings.register_profile("advser", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("advser")


def outside_data() -> Path:
    """The folder with corpora that are not part of the repository."""
    return Path(os.environ.get("ADVSER_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def emodb_directory() -> Path:
    directory = outside_data() / "emodb"
    if not directory.is_dir():
        pytest.skip(f"EmoDB not found at {directory} (set ADVSER_DATA)")
    return directory


@pytest.fixture(scope="session")
def german_sphinx() -> Path:
    directory = Path(os.environ.get("ADVSER_ASR", ROOT.parent / "shared" / "asr")) / "pocketsphinx-de"
    if not directory.is_dir():
        pytest.skip(f"German PocketSphinx model not found at {directory} (set ADVSER_ASR)")
    return directory


def pytest_configure(config: pytest.Config) -> None:
    """Have ART write its settings, which it does when first imported: two workers that do so at once fail."""
    if config.getoption("numprocesses", None):
        with suppress(ImportError):
            importlib.import_module("art.config")


@pytest.fixture(scope="module", autouse=True)
def _registries() -> Iterator[None]:
    """Leave nothing of a file's plugins to the next file."""
    with registries_as_they_were():
        yield


LONGEST = (
    "run", "cluster", "cli", "check", "compare", "page", "submission", "hide", "parts", "samples", "pytest_plugin",
    "audit", "published", "external", "api", "paper_attacks", "adaptive", "figures", "action", "score", "exhibits",
)  # fmt: skip
"""Files that take longest, the longest first: so no worker is left with one of them alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; else the order stays."""
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))
