"""The table of the measurements, printed at the end of a run and saved in ``perf/table.json``.

A run of some measurements (``-k judging``), or without EmoDB, replaces their lines in the saved table, on the same
machine with the same versions. A run of all measurements but those marked ``whole`` leaves the lines of these.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Processes of a contest import from these folders too.
sys.path += [str(HERE), str(HERE.parent / "tests")]

from growth import draw  # noqa: E402
from measuring import WHOLE, Table  # noqa: E402

from advser.store.provenance import provenance  # noqa: E402

TABLE = pytest.StashKey[Table]()


def pytest_configure(config: pytest.Config) -> None:
    """Create an empty table."""
    circumstances = provenance()
    packages = circumstances["packages"] | {"torchattacks": version("torchattacks")}
    config.stash[TABLE] = Table(circumstances={**circumstances, "packages": packages})


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Table:
    """The table of this run."""
    return request.config.stash[TABLE]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, and save it if no measurement failed."""
    table = config.stash[TABLE]
    if table.figures:
        terminalreporter.write_line(table.text())
        terminalreporter.write_line(table.goals_met)
    if table.growths:
        terminalreporter.write_line(table.growth_text())
    ended = terminalreporter.stats
    if not ended.get("passed") or ended.get("failed") or ended.get("error"):
        return
    file = HERE / "table.json"
    saved = Table.load(file) if file.is_file() else table
    same = all(saved.circumstances[name] == table.circumstances[name] for name in ("host", "python", "packages"))
    named = [Path(argument).resolve() for argument in config.args]
    left_out = [item for item in ended.get("deselected", ()) if "whole" not in item.keywords]
    if left_out or ended.get("skipped") or named != [HERE]:
        if not same:
            terminalreporter.write_line("not saved: the saved table is from another machine, or from other versions")
            return
        table = table.updating(saved)
    elif same and saved is not table:
        table = table.with_part(saved, WHOLE)
    table.save(file)
    draw(table.growths, HERE.parent / "docs")
