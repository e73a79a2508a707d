"""Runs a plan's jobs on Dask; jobs hand on keys of stored artefacts, never arrays."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from advser.errors import InputError
from advser.execution import forkserver as forking
from advser.execution.schedule import Agenda
from advser.execution.worker import execute
from advser.stages.job import Job, Outcome
from advser.store.artefacts import Store
from advser.store.digests import digest

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster


PATIENCE: Final = 5.0
"""Seconds after which it is asked whether workers have joined."""

ALONE: Final = 60.0
"""Seconds that a scheduler may be without a worker: one that died may be started anew."""

RESUMED: Final = "what was finished is in the store, and the same command goes on from there"

FIT: Final = "workers with one (dask worker --nthreads 1)"


class Progress(Protocol):
    """What is told while jobs run."""

    def start(self, waiting: Sequence[Job], cached: int, workers: int) -> None:
        """Begin: the jobs to do, how many need not be done, and how many run at a time."""

    def done(self, job: Job, outcome: Outcome) -> None:
        """One job has ended."""

    def stop(self) -> None:
        """No more jobs run."""


@dataclass(frozen=True)
class Workers:
    """Where jobs run.

    Attributes:
        count: processes of the local cluster; 0: one a core.
        scheduler: address of a running Dask scheduler; empty: a local cluster.
        device: torch device of the models.
        plugins: plugin files that every worker loads.
    """

    count: int = 0
    scheduler: str = ""
    device: str = "cpu"
    plugins: tuple[Path, ...] = ()


def device_named(name: str) -> str:
    """Return the torch device that ``auto``, ``cpu`` or ``cuda`` means here.

    Raises:
        InputError: if it is not there, or the name is another.
    """
    import torch

    there = ["auto", "cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if name not in there:
        raise InputError(f"--device {name}: got '{name}', expected here: {', '.join(there)}")
    return ("cuda" if "cuda" in there else "cpu") if name == "auto" else name


def missing(jobs: Mapping[str, Job], store: Store) -> list[Job]:
    """Return the jobs, of ``jobs`` by key, whose artefact is not in the store, or is damaged there."""
    return [job for key, job in jobs.items() if not store.discard_if_damaged(key)]


def run_jobs(jobs: Sequence[Job], cached: int, store: Store, workers: Workers, progress: Progress) -> list[Outcome]:
    """Do all jobs, each after those that it reads from.

    Returns:
        The outcome of every job.

    Raises:
        InputError: if the scheduler cannot be reached or is lost, has no worker, or one that runs several jobs at once.
        KeyboardInterrupt: after the workers have been stopped. What was finished stays in the store.
    """
    if not jobs:
        return []
    with _client(workers, len(jobs)) as (client, count):
        progress.start(jobs, cached, count())
        try:
            found = []
            for job, outcome in _outcomes(client, count, jobs, store, workers):
                progress.done(job, outcome)
                found.append(outcome)
            return found
        finally:
            progress.stop()


def _outcomes(
    client: Client, count: Callable[[], int], jobs: Sequence[Job], store: Store, workers: Workers
) -> Iterator[tuple[Job, Outcome]]:
    """Yield how each job ended.

    A worker has one job at a time, and Dask no choice: given all jobs at once, it leaves most of them with one worker
    while the others idle.
    """
    agenda, root = Agenda(jobs), store.root.absolute()
    at_work: dict[Future[Outcome], Job] = {}
    ended: list[tuple[Job, Outcome]] = []
    while True:
        for _ in range(max(count(), 1) - len(at_work)):
            if (job := agenda.take()) is None:
                break
            asked = job, root, workers.plugins, workers.device
            # Another run on this scheduler may have the same job to do, in another store.
            name = digest([job.key, str(root), *map(str, workers.plugins), workers.device])
            at_work[client.submit(execute, *asked, key=name)] = job
        # Only now: whoever is told of an outcome keeps no worker waiting.
        yield from ended
        if not at_work:
            return
        outcomes = [_outcome(future, at_work.pop(future)) for future in _finished(at_work)]
        ended = [told for outcome in outcomes for told in agenda.done(outcome)]


def _finished(futures: Iterable[Future[Outcome]]) -> list[Future[Outcome]]:
    """Return the futures that have ended, once one has, or none after a while: workers may have joined a scheduler."""
    from distributed import wait

    try:
        return list(wait(list(futures), timeout=PATIENCE, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return []


def _outcome(future: Future[Outcome], job: Job) -> Outcome:
    """Return how a job ended; that workers die under it is the one failure that `execute` cannot report."""
    from distributed import KilledWorker

    error = future.exception() if future.status == "error" else None
    if isinstance(error, KilledWorker):
        died = f"each of {error.allowed_failures + 1} workers died under it; it ends them itself, or memory ran out"
        return Outcome(job.key, "failed", f"{job.title}: {died}")
    return Outcome(job.key, "failed", f"{job.title}: {error}") if error else future.result()


@contextmanager
def _client(workers: Workers, jobs: int) -> Iterator[tuple[Client, Callable[[], int]]]:
    """Yield a Dask client, and what tells the number of workers: of a scheduler's, it may change.

    Raises:
        InputError: as `run_jobs`.
    """
    import dask
    from distributed import Client, LocalCluster

    if workers.scheduler:
        with _remote(workers.scheduler) as found:
            yield found
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(workers.count or cores, jobs)
    method = forking.method()
    # For workers that are forked it would be too late; the process that they are forked from has these already.
    spawned_with = {**forking.ONE_THREAD, **forking.KEEP_MEMORY} if method == "spawn" else {}
    settings = {
        "distributed.worker.multiprocessing-method": method,
        "distributed.nanny.pre-spawn-environ": spawned_with,
    }
    # A worker that dies is started anew, by the same settings.
    with dask.config.set(settings), forking.without_main(), ExitStack() as stack:
        with forking.ignoring_interrupts():
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                # A free port of this machine alone; the default one may be taken.
                dashboard_address="localhost:0",
                memory_limit=None,
                silence_logs=logging.CRITICAL,
                # What was set since the process was started that workers are forked from; what was unset stays there.
                env={**os.environ, **forking.ONE_THREAD},
            )
            client = stack.enter_context(Client(stack.enter_context(cluster)))
        try:
            yield client, lambda: count
        except KeyboardInterrupt:
            _abandon(cluster)
            raise


def _abandon(cluster: LocalCluster) -> None:
    """Stop the workers within a second, where Dask waits four for what they are at: it is done again."""

    async def stop() -> None:
        closing = (nanny.close(timeout=1) for nanny in cluster.workers.values())
        await asyncio.gather(*closing, return_exceptions=True)

    # What is not stopped by then is stopped with the cluster.
    with suppress(TimeoutError):
        cluster.sync(stop, callback_timeout=5)


@contextmanager
def _remote(address: str) -> Iterator[tuple[Client, Callable[[], int]]]:
    """Yield a client of a running scheduler, which has a worker, and what tells the number of its workers."""
    from distributed import Client
    from distributed.client import FuturesCancelledError
    from distributed.comm.core import CommClosedError
    from distributed.utils import silence_logging_cmgr

    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"--scheduler {address}: cannot be reached ({' '.join(str(error).split())})") from None
    # Of a lost connection Dask logs much; what is raised says it in one line.
    with silence_logging_cmgr(logging.CRITICAL), client:
        fit = _FitWorkers(address, lambda: client.nthreads().values())
        if not fit.count():
            raise InputError(f"--scheduler {address}: got no worker, expected {FIT}")
        try:
            yield client, fit.count
        except (CommClosedError, FuturesCancelledError):
            raise InputError(f"--scheduler {address}: the connection was lost; {RESUMED}") from None


class _FitWorkers:
    """Counts the workers of a scheduler, and sees that they are fit.

    Args:
        address: the scheduler's.
        threads: tells the number of threads of each worker.
    """

    def __init__(self, address: str, threads: Callable[[], Iterable[int]]) -> None:
        self._address = address
        self._threads = threads
        self._seen = time.monotonic()

    def count(self) -> int:
        """Return how many there are; for a while it may be none.

        Raises:
            InputError: if there was none for `ALONE`, or one has several threads. Training and some measures draw from
                global generators, which jobs in one process would share.
        """
        threads = list(self._threads())
        if unfit := sorted({count for count in threads if count != 1}):
            found = f"workers with {', '.join(map(str, unfit))} threads"
            raise InputError(f"--scheduler {self._address}: got {found}, expected {FIT}")
        now = time.monotonic()
        if threads:
            self._seen = now
        elif now - self._seen > ALONE:
            raise InputError(f"--scheduler {self._address}: no worker for {ALONE:.0f} s; {RESUMED}")
        return len(threads)
