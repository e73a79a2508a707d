"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

if sys.dont_write_bytecode:
    # Every command and worker that a test starts would compile the package again (0.3 s each).
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False

import torch
from hypothesis import settings

# pytest's importlib mode adds nothing to the search path; tests share the modules beside this file.
sys.path.append(str(Path(__file__).parent))

from advser.execution.forkserver import KEEP_MEMORY

# Before any worker of pytest-xdist starts: each training step would allocate all its activations again.
os.environ.update(KEEP_MEMORY)

from commandline import registries_as_they_were
from places import ROOT, TESTS

DURATIONS = TESTS / "durations.json"
"""Seconds of each test file, as `pytest --record-durations` wrote them."""

# Tests run beside one another; two pools of threads on the same cores slow each other down many times over.
torch.set_num_threads(1)
# The same examples at every run: a failure is then a change of the code, and no time limit fails a busy machine.
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


def pytest_collection_finish() -> None:
    """Collect garbage rarely, as the command does: nearly all objects belong to libraries and live until the end."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-durations", action="store_true", help=f"write the seconds of each test file to {DURATIONS.name}"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that no worker is left alone with a long file at the end."""
    seconds = _recorded_durations()
    places = {item.path: item.path.relative_to(TESTS).as_posix() for item in items if item.path.is_relative_to(TESTS)}
    items.sort(key=lambda item: -seconds.get(places.get(item.path, ""), 0.0))


def _recorded_durations() -> dict[str, float]:
    recorded: dict[str, float] = json.loads(DURATIONS.read_text(encoding="utf-8")) if DURATIONS.is_file() else {}
    return recorded


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not config.getoption("record_durations"):
        return
    seconds: Counter[str] = Counter()
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if isinstance(report, pytest.TestReport):
            seconds[report.nodeid.partition("::")[0].removeprefix("tests/")] += report.duration
    measured = {**_recorded_durations(), **{file: round(total, 1) for file, total in seconds.items()}}
    present = {file: total for file, total in measured.items() if (TESTS / file).is_file()}
    rounded = dict(sorted(present.items(), key=lambda item: -item[1]))
    DURATIONS.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
