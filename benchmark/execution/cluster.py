"""The jobs of a plan on Dask. Jobs exchange keys of stored artefacts, never arrays."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from advser.errors import InputError
from advser.execution import forkserver as forking
from advser.execution.jobs.deadlines import Deadlines
from advser.execution.jobs.lost_workers import ONE_THREAD_EACH, RESUME, RETRIES, WorkerCounter, outcome_of
from advser.execution.jobs.worker import execute
from advser.execution.schedule import Agenda
from advser.stages.job import Job, Outcome
from advser.store.artefacts import Store
from advser.store.digests import digest

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster


CONNECTING: Final = 10.0
"""Seconds to wait for an answer of a scheduler."""

PATIENCE: Final = 5.0
"""Seconds between two counts of a scheduler's workers."""


class Progress(Protocol):
    """A display of running jobs."""

    def start(self, waiting: Sequence[Job], cached: int, workers: int) -> None:
        """Begin with the jobs to do, the number of cached ones, and the number that run at a time."""

    def done(self, job: Job, outcome: Outcome) -> None:
        """Show a job that ended."""

    def stop(self) -> None:
        """End: no more jobs run."""


@dataclass(frozen=True)
class Workers:
    """The processes that do jobs.

    Attributes:
        count: processes of the local cluster; 0: one per core.
        scheduler: address of a running Dask scheduler; empty: a local cluster.
        device: torch device of the models.
        plugins: the plugin files that every worker loads.
        timeout: seconds that a job may take; 0: as long as the suite says.
    """

    count: int = 0
    scheduler: str = ""
    device: str = "cpu"
    plugins: tuple[Path, ...] = ()
    timeout: float = 0.0


def device_named(name: str) -> str:
    """Return the torch device that ``auto``, ``cpu`` or ``cuda`` names on this machine.

    Raises:
        InputError: if the name is not one of these, or this machine has no such device.
    """
    import torch

    available = ["auto", "cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if name not in available:
        raise InputError(f"--device {name}: got '{name}', expected on this machine {', '.join(available)}")
    return ("cuda" if "cuda" in available else "cpu") if name == "auto" else name


def missing(jobs: Mapping[str, Job], store: Store) -> list[Job]:
    """Return the jobs whose artefact is missing or damaged in the store; ``jobs`` maps keys to jobs."""
    return [job for key, job in jobs.items() if not store.discard_if_damaged(key)]


def run_jobs(jobs: Sequence[Job], cached: int, store: Store, workers: Workers, progress: Progress) -> list[Outcome]:
    """Do all jobs, each after its inputs, and return the outcome of every job.

    A job that takes longer than ``workers.timeout`` fails: its worker is ended, and another one starts.

    Raises:
        InputError: if the scheduler cannot be reached, is lost, has no worker, or has a worker with several threads.
        KeyboardInterrupt: after the workers are stopped. Finished jobs stay in the store.
    """
    if not jobs:
        return []
    with _client(workers, len(jobs)) as (client, count):
        progress.start(jobs, cached, count())
        try:
            outcomes = []
            for job, outcome in _outcomes(client, count, jobs, store, workers):
                progress.done(job, outcome)
                outcomes.append(outcome)
            return outcomes
        finally:
            progress.stop()


def _outcomes(
    client: Client, count: Callable[[], int], jobs: Sequence[Job], store: Store, workers: Workers
) -> Iterator[tuple[Job, Outcome]]:
    """Yield each job with its outcome.

    Dask gets as many jobs as there are workers: given all jobs at once, it leaves most of them with one worker while
    the others idle.
    """
    agenda, root = Agenda(jobs), store.root.absolute()
    running: dict[Future[Outcome], Job] = {}
    deadlines = Deadlines(client, workers.timeout)
    ended: list[tuple[Job, Outcome]] = []
    while True:
        for _ in range(max(count(), 1) - len(running)):
            if (job := agenda.take()) is None:
                break
            # A second run on this scheduler may need the same job, in its own store.
            name = digest([job.key, str(root), *map(str, workers.plugins), workers.device])
            future = client.submit(execute, job, root, workers.plugins, workers.device, key=name)
            running[future] = job
            deadlines.begin(future)
        # The consumer gets outcomes only after new jobs are submitted, so that no worker waits for it.
        yield from ended
        if not running:
            return
        finished = _finished(running, min(PATIENCE, deadlines.left(running)))
        outcomes = [outcome_of(future, running.pop(future)) for future in finished]
        outcomes += [deadlines.end(future, running.pop(future)) for future in deadlines.overdue(running)]
        ended = [pair for outcome in outcomes for pair in agenda.done(outcome)]


def _finished(futures: Iterable[Future[Outcome]], patience: float) -> list[Future[Outcome]]:
    """Wait for a future to end, at most ``patience`` seconds, since workers may join; return all that have ended."""
    from distributed import wait

    try:
        return list(wait(list(futures), timeout=patience, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return []


@contextmanager
def _client(workers: Workers, jobs: int) -> Iterator[tuple[Client, Callable[[], int]]]:
    """Yield a Dask client, and a function that returns the number of workers, which changes with a scheduler's.

    Raises:
        InputError: as `run_jobs`.
    """
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security

    if workers.scheduler:
        with _remote(workers.scheduler) as client_and_count:
            yield client_and_count
        return
    count = min(workers.count or forking.cores(), jobs)
    method = forking.method()
    # Forked workers inherit these variables from the fork server; set here, they would come too late.
    environment = {**forking.ONE_THREAD, **forking.KEEP_MEMORY} if method == "spawn" else {}
    settings = {
        "distributed.worker.multiprocessing-method": method,
        "distributed.scheduler.allowed-failures": RETRIES,
        "distributed.nanny.pre-spawn-environ": environment,
        # Web pages ask nobody for a key.
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    # Dask restarts a dead worker by the same settings, so they hold as long as the cluster.
    with dask.config.set(settings), forking.without_main(), ExitStack() as stack:
        with forking.ignoring_interrupts():
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                # The sockets are open to every user of this machine. This key exists in memory alone.
                security=Security.temporary(),
                # Any free local port: the default port may be taken.
                dashboard_address="localhost:0",
                scheduler_kwargs={"dashboard": False},
                memory_limit=None,
                silence_logs=logging.CRITICAL,
                # Variables that were set after the fork server started. It keeps those that were unset since.
                env={**os.environ, **forking.ONE_THREAD},
            )
            client = stack.enter_context(Client(stack.enter_context(cluster)))
        try:
            yield client, lambda: count
        except KeyboardInterrupt:
            _abandon(cluster)
            raise


def _abandon(cluster: LocalCluster) -> None:
    """Stop the workers within a second. Dask waits four for their jobs, which are done again anyway."""

    async def stop() -> None:
        closing = (nanny.close(timeout=1) for nanny in cluster.workers.values())
        await asyncio.gather(*closing, return_exceptions=True)

    # The rest is stopped with the cluster.
    with suppress(TimeoutError):
        cluster.sync(stop, callback_timeout=5)


@contextmanager
def _remote(address: str) -> Iterator[tuple[Client, Callable[[], int]]]:
    """Yield a client of a running scheduler with at least one worker, and a function that counts its workers."""
    from distributed import Client
    from distributed.client import FuturesCancelledError
    from distributed.comm.core import CommClosedError
    from distributed.utils import silence_logging_cmgr

    try:
        client = Client(address, timeout=CONNECTING)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--scheduler {address}: cannot be reached ({reason}), expected a running scheduler") from None
    # Dask logs many lines about a lost connection; the error below is one line.
    with silence_logging_cmgr(logging.CRITICAL), client:
        counter = WorkerCounter(address, lambda: client.nthreads().values())
        if not counter.count():
            raise InputError(f"--scheduler {address}: got no worker, expected {ONE_THREAD_EACH}")
        try:
            yield client, counter.count
        except (CommClosedError, FuturesCancelledError):
            raise InputError(f"--scheduler {address}: the connection was lost; {RESUME}") from None
