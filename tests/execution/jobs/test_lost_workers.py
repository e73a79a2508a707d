"""Jobs whose workers died."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from distributed import KilledWorker
from jobs import craft_spec

from advser.execution.jobs.lost_workers import outcome_of
from advser.stages.job import Job, Outcome

JOB = Job(craft_spec("none", {}), {}, {}, "craft none")
DONE = Outcome(JOB.key, "ok")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KilledWorker("craft", None, 3), "craft none: each of 4 workers died; the job ends them itself"),
        (MemoryError("out of it"), "craft none: out of it"),
        (None, ""),
    ],
)
def test_the_death_of_workers_is_the_reason_of_a_failure(error: Exception | None, reason: str) -> None:
    future: Any = SimpleNamespace(status="error" if error else "finished", exception=lambda: error, result=lambda: DONE)
    outcome = outcome_of(future, JOB)
    assert outcome.status == ("failed" if error else "ok")
    assert outcome.reason.startswith(reason)
