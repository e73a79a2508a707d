"""AdvSER in pytest: the fixture ``advser_result`` runs suites and compares them with ``--advser-baseline``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from advser.api import Run

NO_BASELINE = "no baseline to compare with (--advser-baseline DIR)"


@dataclass(frozen=True, eq=False)
class Checked:
    """Results of a suite, for assertions in a test.

    Attributes:
        run: the results.
        baseline: the results folder to compare with; None: no baseline.
    """

    run: Run
    baseline: Path | None

    def figure(self, metric: str, **where: str | float) -> float:
        """Return a single figure, as `advser.api.Run.figure` does."""
        return self.run.figure(metric, **where)

    def assert_no_regression(self, fail_on: Mapping[str, float] | None = None) -> None:
        """Fail the test if ``advser compare`` reports a regression, or cannot compare; skip without a baseline.

        Args:
            fail_on: metric → the largest change for the worse that passes, with its sign (``{"uar": -0.02}``).
        """
        from advser.api import load
        from advser.leaderboards.boards.comparison import board, lines
        from advser.leaderboards.formats.render import render

        if self.baseline is None:
            pytest.skip(NO_BASELINE)
        with _refusals():
            before = load(self.baseline)
            comparison = self.run.compare(before, fail_on)
        if comparison.failures:
            moves = lines(comparison, before.results, self.run.results)
            table = board(comparison, moves, f"Against {self.baseline}")
            pytest.fail(render(table, "terminal"), pytrace=False)


@contextmanager
def _refusals() -> Iterator[None]:
    """Fail the test with the message of an `InputError`, without a traceback."""
    from advser.errors import InputError

    try:
        yield
    except InputError as error:
        pytest.fail(str(error), pytrace=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add AdvSER's options."""
    group = parser.getgroup("advser", "AdvSER")
    group.addoption("--advser-baseline", metavar="DIR", help="results folder to compare runs with")
    group.addoption("--advser-store", metavar="DIR", help="artefact store (default: that of the command line)")
    group.addoption("--advser-data", metavar="CORPUS=DIR", action="append", default=[], help="folder of a corpus")


@pytest.fixture(scope="session")
def advser_result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Checked]:
    """Return a function that runs a suite: ``advser_result("demo", only={"model": "mine"})``.

    It takes the arguments of `advser.run`, and runs once per session for the same arguments. The test fails if a job of
    the suite fails.
    """
    options = request.config
    # A test may change the working folder: paths are those of the command line.
    begun = options.invocation_params.dir
    baseline, store = (
        begun / path if path else None for path in map(options.getoption, ("--advser-baseline", "--advser-store"))
    )
    done: dict[str, Checked] = {}

    def result(suite: str | Path = "demo", **arguments: Any) -> Checked:
        from advser.api import run
        from advser.commands.usage import corpora

        key = repr((str(suite), sorted(arguments.items())))
        if key not in done:
            defaults = {
                "store": store,
                "data": {name: begun / folder for name, folder in corpora(options.getoption("--advser-data")).items()},
                "out": tmp_path_factory.mktemp("advser") / "results",
            }
            with _refusals():
                done[key] = Checked(run(suite, **{**defaults, **arguments}), baseline)
        if failures := done[key].run.failures:
            pytest.fail(f"{len(failures)} jobs failed, the first: {failures[0]['reason']}", pytrace=False)
        return done[key]

    return result
