"""The time limit of jobs: a job that takes longer is ended with its worker."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from advser.stages.job import Job, Outcome

if TYPE_CHECKING:
    from distributed import Client, Future

RESTARTING: Final = 30.0
"""Seconds to wait for the worker that replaces an ended one."""


class Deadlines:
    """Remembers since when each job runs, and ends jobs that take too long.

    Args:
        client: of the cluster.
        limit: seconds that a job may take; 0: any number.
    """

    def __init__(self, client: Client, limit: float) -> None:
        self._client = client
        self._limit = limit or math.inf
        self._begun: dict[Any, float] = {}

    def begin(self, future: Future[Outcome]) -> None:
        """Start the clock of a job."""
        self._begun[future.key] = time.monotonic()

    def left(self, futures: Iterable[Future[Outcome]]) -> float:
        """Return the seconds until the first deadline of some jobs, at least 0.1."""
        passed = max((time.monotonic() - self._begun[future.key] for future in futures), default=0.0)
        return max(0.1, self._limit - passed)

    def overdue(self, futures: Iterable[Future[Outcome]]) -> list[Future[Outcome]]:
        """Return those of some jobs that take too long."""
        now = time.monotonic()
        return [future for future in futures if now - self._begun[future.key] > self._limit]

    def end(self, future: Future[Outcome], job: Job) -> Outcome:
        """End a job with its worker, which also ends native code and endless loops; return the failure."""
        workers = [worker for worker, keys in self._client.processing().items() if future.key in keys]
        future.cancel()
        self._client.restart_workers(workers, timeout=RESTARTING, raise_for_error=False)
        reason = f"{job.title}: takes longer than {self._limit:g} s, the timeout of a job"
        return Outcome(job.key, "failed", reason, seconds=self._limit)
