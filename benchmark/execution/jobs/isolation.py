"""Isolation: jobs with code of plugin files, each in a process of its own.

`Isolation` forks a spare process before the worker's first job. The spare process has imported the libraries, and has
no thread, no gradient and no plugin. For each job it forks one process, which ends with the job. So the worker itself
never runs a plugin's code, and nothing that a plugin changes outlives its job.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Any, Final

from advser.errors import AdvserError, NotApplicableError, one_line
from advser.execution.jobs.perform import Work
from advser.plugins.registry import raised_in

_MOST: Final = 1 << 20
"""Bytes of a report."""


@dataclass(frozen=True)
class Reported:
    """The end of an isolated job.

    Attributes:
        reason: why it failed or does not apply, in one line; empty if it ended well.
        applies: false if the job has no meaning on its inputs.
        trace: the traceback of an error that AdvSER did not raise on purpose.
    """

    reason: str = ""
    applies: bool = True
    trace: str = ""


def reason_of(error: BaseException) -> str:
    """Return the reason of a failure in one line, with the plugin's line that raised it."""
    if isinstance(error, AdvserError):
        return " ".join(str(error).split()) or type(error).__name__
    text = one_line(error)
    if isinstance(error, PermissionError) and error.filename:
        text = f"opened {error.filename}, expected no file but those that are named in a parameter, by their full path"
    return f"{text}{raised_in(error)}"


class Isolation:
    """A spare process that forks a process for each isolated job; it ends with this process."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        if os.fork() == 0:
            self._connection.close()
            _serve(theirs)
            os._exit(0)
        theirs.close()

    @staticmethod
    def possible() -> bool:
        """Return whether this system can isolate jobs: Linux, where a fork is safe and can be waited for."""
        return sys.platform == "linux"

    def run(self, work: Work) -> Reported:
        """Do a job in a new process, and return its report."""
        self._connection.send(work)
        # Not unpickled: the report comes from a process that runs a plugin's code.
        return Reported(**json.loads(self._connection.recv_bytes()))


def _serve(requests: Connection) -> None:
    """Fork a process for each request, until the worker is gone."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A collection of garbage then leaves out, and does not copy, what each forked process shares with this one.
    gc.freeze()
    while True:
        try:
            work: Work = requests.recv()
        except EOFError:
            return
        requests.send_bytes(_report(work, requests))


def _report(work: Work, requests: Connection) -> bytes:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        requests.close()
        _do(work, writing)
    os.close(writing)
    try:
        status = _wait(child, requests)
        with os.fdopen(reading, "rb") as pipe:
            os.set_blocking(reading, False)
            report = pipe.read(_MOST) or b""
    finally:
        # Processes that the plugin started go with it.
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    return _checked(report) or json.dumps(asdict(Reported(_died(status)))).encode()


def _wait(child: int, requests: Connection) -> int:
    """Wait for the end of the child and return its status; end it if the worker is gone."""
    descriptor = os.pidfd_open(child)
    try:
        while descriptor not in select.select([descriptor, requests.fileno()], [], [])[0]:
            # The worker sends nothing while it waits: its end is closed.
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os._exit(0)
    finally:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _checked(report: bytes) -> bytes:
    """Return a report, or nothing if it is none: a plugin can write to the pipe too."""
    try:
        fields: dict[str, Any] = json.loads(report)
        reported = Reported(**fields)
    except (ValueError, TypeError):
        return b""
    complete = (
        isinstance(reported.reason, str) and isinstance(reported.trace, str) and reported.applies in (True, False)
    )
    return report if complete else b""


def _died(status: int) -> str:
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
    return f"the job's process ended before the job ({how}); its code ends the process, or memory ran out"


def _do(work: Work, pipe: int) -> None:
    """Do a job, write its report, and end the process."""
    os.setpgid(0, 0)
    try:
        import torch

        # The order of floating-point sums, and so every trained weight, depends on the number of threads.
        torch.set_num_threads(1)
        work.perform_confined()
        reported = Reported()
    except NotApplicableError as error:
        reported = Reported(reason_of(error), applies=False)
    except BaseException as error:
        trace = "" if isinstance(error, AdvserError) else traceback.format_exc()
        reported = Reported(reason_of(error), trace=trace)
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(pipe, json.dumps(asdict(reported)).encode()[:_MOST])
    os._exit(0)
