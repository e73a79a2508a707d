"""The process that workers are forked from: it imports what they need once for all, while the run is still planned."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

ONE_THREAD: Final = {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1}
"""For libraries that would otherwise start a pool of threads in every worker."""

KEEP_MEMORY: Final = {"MALLOC_TRIM_THRESHOLD_": 2**34, "MALLOC_MMAP_THRESHOLD_": 2**32}
"""Dask makes glibc return freed memory at once; a training step then asks for all its activations anew each time, which
took half as long again on two cores."""

IMPORTED: Final = ("distributed", "advser.stages.train", "advser.stages.craft", "advser.stages.judge")
"""What every worker needs sooner or later; nothing of it starts a thread or asks for a GPU when it is imported."""


def method() -> str:
    """Return how workers are started here (``multiprocessing``): forked from a clean process, where there is such."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def begin() -> None:
    """Have the process started that workers are forked from, if there is none yet; it ends with this one.

    It goes on by itself: by the time that it is asked for workers, it may still import.
    """
    if method() != "forkserver":
        return
    from multiprocessing import forkserver

    multiprocessing.set_forkserver_preload([*IMPORTED])
    with ignoring_interrupts(), _set({**ONE_THREAD, **KEEP_MEMORY}):
        forkserver.ensure_running()


@contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Let processes that are started meanwhile inherit that Ctrl-C is not for them: this one stops them in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _set(variables: Mapping[str, int]) -> Iterator[None]:
    """Let processes that are started meanwhile inherit these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: str(value) for name, value in variables.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
