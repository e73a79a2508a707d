"""The fork server: the process that workers are forked from. It imports their libraries while the run is planned."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Variables for libraries that would otherwise start a pool of threads in every worker."""

KEEP_MEMORY: Final = {"MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_MMAP_THRESHOLD_": str(2**32)}
"""Variables that let glibc keep freed memory. Dask makes it return memory at once; each training step then allocates
all its activations again, which took 50 % longer on two cores."""

_CLEAN: Final = {"PYTHONHASHSEED": "6640", "PYTHONSAFEPATH": "1"}
"""Variables that give sets the order of workers that Dask spawns, and let no file of the current folder shadow a
library."""

IMPORTED: Final = (
    "distributed", "torch", "pandas", "pyarrow.parquet", "pydantic", "safetensors.torch", "soundfile", "torch._dynamo",
)  # fmt: skip
"""Libraries that workers need; optimisers of torch import the last. None starts a thread or uses a GPU when imported.

AdvSER's own modules are not among them: their sources may change while the process lives."""


def begin() -> None:
    """Start the fork server in the background; it ends with this process.

    Only on Linux, since the system libraries of macOS do not survive a fork, and only if this process has no fork
    server yet.
    """
    if sys.platform != "linux" or _server() is not None:
        return
    from multiprocessing import forkserver

    multiprocessing.set_forkserver_preload([*IMPORTED])
    with ignoring_interrupts(), _set({**ONE_THREAD, **KEEP_MEMORY, **_CLEAN}):
        forkserver.ensure_running()
    if server := _server():
        _begun.add(server)
        # While it imports it does not notice that this process ended, and keeps its output open: end it here.
        atexit.register(_end, server)


def method() -> str:
    """Return the start method of workers (``multiprocessing``): ``forkserver`` if `begin` started one here."""
    return "forkserver" if _server() in _begun else "spawn"


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_begun: Final[set[int]] = set()
"""Process id of the fork server that `begin` started; empty if it started none."""


def _server() -> int | None:
    from multiprocessing import forkserver

    pid: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)
    return pid


def _end(server: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(server, signal.SIGKILL)


@contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Let processes that start meanwhile ignore Ctrl-C: this process stops them in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def without_main() -> Iterator[None]:
    """Let processes that any thread starts meanwhile not import the script of this process.

    They need only AdvSER and its plugin files. A script that calls `advser.run` without a test of ``__name__`` would
    run again in each of them, and a script from standard input has no file. Meanwhile ``__main__`` has neither
    ``__file__`` nor ``__spec__``.
    """
    main = sys.modules["__main__"]
    spec, file = main.__spec__, vars(main).pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        # Calls may overlap: only the first has values to restore.
        if spec is not None:
            main.__spec__ = spec
        if file is not None:
            main.__file__ = file


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    """Let processes that start meanwhile inherit these variables, except those that are set already."""
    missing = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]
