"""One job in a worker process, from stored artefacts to a stored artefact."""

from __future__ import annotations

import importlib
import shutil
import time
import traceback
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from advser.errors import AdvserError, NotApplicableError
from advser.execution.jobs.isolation import Isolation, Reported, reason_of
from advser.execution.jobs.perform import TEMPORARY, Work
from advser.plugins.fingerprint import code_fingerprint
from advser.plugins.registry import load_plugin_file
from advser.stages import STAGES
from advser.stages.job import Job, Outcome
from advser.store.artefacts import Artefact, Store


class IsolatedError(AdvserError):
    """The failure of a job in a process of its own.

    Attributes:
        trace: its traceback; empty for errors that AdvSER raises on purpose.
    """

    def __init__(self, reported: Reported) -> None:
        super().__init__(reported.reason)
        self.trace = reported.trace


@cache
def isolation() -> Isolation:
    """Return this worker's `Isolation`. The first call must come before the first job: gradients survive no fork."""
    # Once here, rather than in the process of each job.
    for stage in STAGES.values():
        module = stage.partition(":")[0]
        importlib.import_module(module)
        code_fingerprint(module)
    # Most models need it, and with it torchaudio.
    importlib.import_module("advser.models.frontends")
    return Isolation()


def execute(job: Job, store: Path, plugins: Sequence[Path], device: str) -> Outcome:
    """Do one job. Errors become an outcome, not an exception, so that the other jobs go on.

    A job with code from ``plugins`` or from another distribution runs in a process of its own (`Isolation`).

    Args:
        job: the job.
        store: the store's root.
        plugins: plugin files to load first.
        device: a torch device.
    """
    start = time.perf_counter()
    try:
        reason = _do(job, Store(store), plugins, device)
    except IsolatedError as error:
        return Outcome(job.key, "failed", f"{job.title}: {error}", error.trace, time.perf_counter() - start)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        trace = "" if isinstance(error, AdvserError) else traceback.format_exc()
        message = f"{job.title}: {reason_of(error)}"
        return Outcome(job.key, "failed", message, trace, time.perf_counter() - start)
    return Outcome(job.key, "not-applicable" if reason else "ok", reason, seconds=time.perf_counter() - start)


def _do(job: Job, store: Store, plugins: Sequence[Path], device: str) -> str:
    """Do the job; return why it is not applicable to its inputs, or an empty text. Both are stored."""
    import torch

    # The order of floating-point sums, and so every trained weight, depends on the number of threads.
    torch.set_num_threads(1)
    if Isolation.possible():
        isolation()
    inputs = {role: store.get(key) for role, key in job.inputs.items()}
    start = time.perf_counter()
    record = job.record()
    with store.create(job.key, record) as folder:
        try:
            _refuse_inapplicable(inputs.values())
            _perform(Work(job, inputs, folder, tuple(plugins), device))
        except NotApplicableError as error:
            record["not_applicable"] = reason_of(error)
        finally:
            shutil.rmtree(folder / TEMPORARY, ignore_errors=True)
        record["seconds"] = time.perf_counter() - start
    return store.get(job.key).not_applicable


def _perform(work: Work) -> None:
    if not work.needs_plugin_files():
        work.check_code()
        work.perform()
    elif Isolation.possible():
        reported = isolation().run(work)
        if not reported.applies:
            raise NotApplicableError(reported.reason)
        if reported.reason:
            raise IsolatedError(reported)
    else:
        for plugin in work.plugins:
            load_plugin_file(plugin)
        work.check_code()
        work.perform()


def _refuse_inapplicable(inputs: Iterable[Artefact]) -> None:
    for artefact in inputs:
        if artefact.not_applicable:
            raise NotApplicableError(artefact.not_applicable)
