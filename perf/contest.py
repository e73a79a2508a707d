"""Time comparisons of functions, each in its own processes with the settings of real use."""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

from advser.execution.forkserver import KEEP_MEMORY, ONE_THREAD

Candidates = Mapping[str, Callable[[], object]]
SHORTEST = 0.1
"""Seconds: faster functions are called several times in a row, as a run processes batches."""
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Team:
    """Candidates that run in the same processes.

    Attributes:
        make: returns the candidates, in each process; a function of a module.
        arguments: arguments of ``make``.
        processes: number of processes that do the same work at the same time, as the workers of a run do.
        environment: environment variables of the processes.
        threads: threads of PyTorch in each process; 0: PyTorch's default.
    """

    make: Callable[..., Candidates]
    arguments: tuple[Any, ...]
    processes: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int = 0


def as_workers(make: Callable[..., Candidates], *arguments: object) -> Team:
    """Return a team in the settings of a run's workers: one process per core, with one thread each."""
    return replace(as_one_worker(make, *arguments), processes=CORES)


def as_one_worker(make: Callable[..., Candidates], *arguments: object) -> Team:
    """Return a team in the settings of a single worker: one process with one thread."""
    settings = {name: str(value) for name, value in {**ONE_THREAD, **KEEP_MEMORY}.items()}
    return Team(make, arguments, 1, settings, threads=1)


def as_script(make: Callable[..., Candidates], *arguments: object) -> Team:
    """Return a team in the settings of a user's script: one process, with PyTorch's default number of threads."""
    return Team(make, arguments, 1, {}, threads=0)


def contest(teams: Sequence[Team], rounds: int) -> dict[str, float]:
    """Return the median seconds of each candidate, divided by its number of processes.

    Candidates take turns, in a different order each round, so that a slower machine affects all equally. First calls do
    not count; they determine how often each candidate is called in a row.
    """
    with ExitStack() as stack:
        callers: dict[str, Callable[[int], float]] = {}
        for team in teams:
            callers |= stack.enter_context(_playing(team))
        names = list(callers)
        times = {name: _repetitions(call) for name, call in callers.items()}
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                seconds[name].append(callers[name](times[name]))
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def _repetitions(call: Callable[[int], float]) -> int:
    """Return how often a candidate is called in a row; the first call may take longer than all others."""
    first = call(1)
    return math.ceil(SHORTEST / (call(1) if first < 10 * SHORTEST else first))


@contextmanager
def _playing(team: Team) -> Iterator[dict[str, Callable[[int], float]]]:
    """Yield a function per candidate: it makes a number of calls in all processes, and returns seconds per call."""
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    with _variables(team.environment):
        for _ in range(team.processes):
            own_end, process_end = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(process_end, team), daemon=True)
            process.start()
            pipes.append(own_end)
            processes.append(process)
    names: list[str]
    names, *_ = [pipe.recv() for pipe in pipes]

    def caller(name: str) -> Callable[[int], float]:
        def call(times: int) -> float:
            start = time.perf_counter()
            for pipe in pipes:
                pipe.send((name, times))
            for pipe in pipes:
                pipe.recv()
            return (time.perf_counter() - start) / len(pipes) / times

        return call

    try:
        yield {name: caller(name) for name in names}
    finally:
        for process in processes:
            process.terminate()
            process.join()


@contextmanager
def _variables(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes started meanwhile, and unset those for numbers of threads."""
    before = dict(os.environ)
    for name in ONE_THREAD:
        os.environ.pop(name, None)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(pipe: Connection, team: Team) -> None:
    import torch

    if team.threads:
        torch.set_num_threads(team.threads)
    candidates = team.make(*team.arguments)
    pipe.send(list(candidates))
    while True:
        name, times = pipe.recv()
        for _ in range(times):
            candidates[name]()
        pipe.send(None)
