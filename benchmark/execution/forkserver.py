"""The process that workers are forked from: it imports what they need once for all, while the run is still planned."""

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
"""For libraries that would otherwise start a pool of threads in every worker."""

KEEP_MEMORY: Final = {"MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_MMAP_THRESHOLD_": str(2**32)}
"""Dask makes glibc return freed memory at once; a training step then asks for all its activations anew each time, which
took half as long again on two cores."""

_CLEAN: Final = {"PYTHONHASHSEED": "6640", "PYTHONSAFEPATH": "1"}
"""Sets have the order that they have in workers that Dask spawns; no file of the current folder takes the place of a
library's."""

IMPORTED: Final = ("distributed", "torch", "pandas", "pyarrow.parquet", "pydantic", "safetensors.torch", "soundfile")
"""What every worker needs sooner or later. None of these starts a thread or asks for a GPU when it is imported.

Nor is one of them AdvSER's, whose sources may change while the process lives."""


def begin() -> None:
    """Start the process that workers are forked from; it ends with this one.

    It goes on by itself: when it is asked for workers, it may still import. On Linux alone, since the system libraries
    of macOS do not survive a fork; and not if this process has such a process already, which was started otherwise.
    """
    if sys.platform != "linux" or _server() is not None:
        return
    from multiprocessing import forkserver

    multiprocessing.set_forkserver_preload([*IMPORTED])
    with ignoring_interrupts(), _set({**ONE_THREAD, **KEEP_MEMORY, **_CLEAN}):
        forkserver.ensure_running()
    if server := _server():
        _begun.add(server)
        # Only when it has imported all does it look whether this process still is; till then it holds its output open.
        atexit.register(_end, server)


def method() -> str:
    """Return how workers are to be started (``multiprocessing``): forked, if `begin` was called in this process."""
    return "forkserver" if _server() in _begun else "spawn"


_begun: Final[set[int]] = set()
"""The process that `begin` started, if it did."""


def _server() -> int | None:
    from multiprocessing import forkserver

    found: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)
    return found


def _end(server: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(server, signal.SIGKILL)


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
def without_main() -> Iterator[None]:
    """Let processes that are started meanwhile, by whichever thread, not import the script that this one runs.

    Their jobs are AdvSER's and its plugin files'. A script that calls `advser.run` would start its run once more in
    each, unless it asks for its own ``__name__``; one that is read from standard input is not to be found. Meanwhile
    the script's module has neither file nor spec.
    """
    main = sys.modules["__main__"]
    spec, file = main.__spec__, vars(main).pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        # Several may overlap: who found nothing restores nothing.
        if spec is not None:
            main.__spec__ = spec
        if file is not None:
            main.__file__ = file


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    """Let processes that are started meanwhile inherit these variables, but for those that are set already."""
    missing = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]
