"""The table of a run of the measurements: printed at its end, and kept in ``perf/table.json``.

A run of some of them (``-k judging``), or without EmoDB, replaces their lines in what is kept, on the same machine with
the same versions; a run of all but those marked ``whole`` leaves the lines of these there.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Whoever is imported in a process of its own finds these too.
sys.path += [str(HERE), str(HERE.parent / "tests")]

from growth import draw  # noqa: E402
from measuring import WHOLE, Table  # noqa: E402

from advser.store.provenance import provenance  # noqa: E402

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
        terminalreporter.write_line(found.standing)
    if found.growths:
        terminalreporter.write_line(found.growth_text())
    ended = terminalreporter.stats
    if not ended.get("passed") or ended.get("failed") or ended.get("error"):
        return
    file = HERE / "table.json"
    kept = Table.load(file) if file.is_file() else found
    same = all(kept.circumstances[name] == found.circumstances[name] for name in ("host", "python", "packages"))
    named = [Path(argument).resolve() for argument in config.args]
    left_out = [item for item in ended.get("deselected", ()) if "whole" not in item.keywords]
    if left_out or ended.get("skipped") or named != [HERE]:
        if not same:
            terminalreporter.write_line("not kept: the table is of another machine, or of other versions")
            return
        found = found.updating(kept)
    elif same and kept is not found:
        found = found.beside(kept, WHOLE)
    found.save(file)
    draw(found.growths, HERE.parent / "docs")
