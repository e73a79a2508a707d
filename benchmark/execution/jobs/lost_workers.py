"""Workers that die: what happens to their jobs, and how long a run waits for new workers.

Dask restarts a dead worker of a local cluster, and gives its job to another worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from advser.errors import InputError
from advser.stages.job import Job, Outcome

if TYPE_CHECKING:
    from distributed import Future

RETRIES: Final = 3
"""How often a job whose worker died is done again, by another worker; a cluster of its own has its own setting."""

GRACE: Final = 60.0
"""Seconds that a scheduler may have no worker: a dead worker may be restarted."""

RESUME: Final = "finished jobs are in the store, the same command continues from there"

ONE_THREAD_EACH: Final = "workers with one (dask worker --nthreads 1)"


def outcome_of(future: Future[Outcome], job: Job) -> Outcome:
    """Return a job's outcome. The death of its workers is the only failure that `execute` cannot report."""
    from distributed import KilledWorker

    error = future.exception() if future.status == "error" else None
    if isinstance(error, KilledWorker):
        deaths = f"each of {error.allowed_failures + 1} workers died; the job ends them itself, or memory ran out"
        return Outcome(job.key, "failed", f"{job.title}: {deaths}")
    return Outcome(job.key, "failed", f"{job.title}: {error}") if error else future.result()


class WorkerCounter:
    """Counts the workers of a scheduler, and refuses workers with several threads.

    Args:
        address: the scheduler's address.
        threads: returns the number of threads of each worker.
    """

    def __init__(self, address: str, threads: Callable[[], Iterable[int]]) -> None:
        self._address = address
        self._threads = threads
        self._last_worker = time.monotonic()

    def count(self) -> int:
        """Return the number of workers, which may be 0 for a while.

        Raises:
            InputError: if there was no worker for `GRACE` seconds, or a worker has several threads. Training and some
                metrics draw from global generators, which jobs in one process would share.
        """
        threads = list(self._threads())
        if unfit := sorted({count for count in threads if count != 1}):
            numbers = ", ".join(map(str, unfit))
            raise InputError(
                f"--scheduler {self._address}: got workers with {numbers} threads, expected {ONE_THREAD_EACH}"
            )
        now = time.monotonic()
        if threads:
            self._last_worker = now
        elif now - self._last_worker > GRACE:
            raise InputError(f"--scheduler {self._address}: got no worker for {GRACE:.0f} s; {RESUME}")
        return len(threads)
