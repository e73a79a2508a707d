"""The table of a run of the measurements: printed at its end, and kept in ``perf/table.json``."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Whoever is imported in a process of its own finds these too.
sys.path += [str(HERE), str(HERE.parent / "tests")]

from growth import draw  # noqa: E402
from measuring import Table  # noqa: E402

from advser.provenance import provenance  # noqa: E402

TABLE = pytest.StashKey[Table]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin an empty table."""
    told = provenance()
    others = {"torchattacks": version("torchattacks")}
    config.stash[TABLE] = Table(circumstances={**told, "packages": told["packages"] | others})


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Table:
    """The table of this run."""
    return request.config.stash[TABLE]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, and keep it if all measurements were made."""
    found = config.stash[TABLE]
    if found.figures:
        terminalreporter.write_line(found.text())
    if found.growths:
        terminalreporter.write_line(found.growth_text())
    whole = not config.option.keyword and len(config.args) == 1 and not terminalreporter.stats.get("failed")
    if whole and found.figures:
        found.save(HERE / "table.json")
        draw(found.growths, HERE.parent / "docs")
