"""AdvSER in pytest: the fixture ``advser_result`` runs suites, which ``--advser-baseline`` is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from advser.api import Run

NO_BASELINE = "no baseline to hold it against (--advser-baseline DIR)"


@dataclass(frozen=True, eq=False)
class Checked:
    """What a suite came to, for a test to judge.

    Attributes:
        run: the results.
        baseline: the results folder that it is held against; None: none was given.
    """

    run: Run
    baseline: Path | None

    def figure(self, metric: str, **where: str | float) -> float:
        """Return one figure, as `advser.api.Run.figure` does."""
        return self.run.figure(metric, **where)

    def assert_no_regression(self, fail_on: Mapping[str, float] | None = None) -> None:
        """Fail the test if a figure is worse than in the baseline, as ``advser compare`` judges it; skip without one.

        Args:
            fail_on: metric → the largest change for the worse that passes, with its sign (``{"uar": -0.02}``).

        Raises:
            InputError: if the two cannot be compared.
        """
        from advser.api import load
        from advser.leaderboards.boards.comparison import board, lines
        from advser.leaderboards.formats.render import render

        if self.baseline is None:
            pytest.skip(NO_BASELINE)
        before = load(self.baseline)
        comparison = self.run.compare(before, fail_on)
        if comparison.failures:
            told = board(comparison, lines(comparison, before.results, self.run.results), f"Against {self.baseline}")
            pytest.fail(render(told, "terminal"), pytrace=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add AdvSER's options."""
    group = parser.getgroup("advser", "AdvSER")
    group.addoption("--advser-baseline", metavar="DIR", help="results folder that runs are held against")
    group.addoption("--advser-store", metavar="DIR", help="artefact store (default: that of the command line)")
    group.addoption("--advser-data", metavar="CORPUS=DIR", action="append", default=[], help="where a corpus is")


@pytest.fixture(scope="session")
def advser_result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Checked]:
    """Run a suite, once a session for the same arguments: ``advser_result("demo", only={"model": "mine"})``.

    Takes the arguments of `advser.run`. A test fails if any cell of the suite fails.
    """
    options = request.config
    baseline = options.getoption("--advser-baseline")
    done: dict[str, Checked] = {}

    def result(suite: str | Path = "demo", **given: Any) -> Checked:
        from advser.api import run
        from advser.commands.usage import corpora

        key = repr((str(suite), sorted(given.items())))
        if key not in done:
            usual = {
                "store": options.getoption("--advser-store"),
                "data": corpora(options.getoption("--advser-data")),
                "out": tmp_path_factory.mktemp("advser") / "results",
            }
            done[key] = Checked(run(suite, **{**usual, **given}), Path(baseline) if baseline else None)
        if failures := done[key].run.failures:
            pytest.fail(f"{len(failures)} jobs failed, the first: {failures[0]['reason']}", pytrace=False)
        return done[key]

    return result
