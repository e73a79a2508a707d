"""One job in a worker process, from stored artefacts to a stored artefact."""

from __future__ import annotations

import importlib
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from advser.errors import AdvserError, ContractError, NotApplicableError
from advser.plugins.registry import load_plugin_file
from advser.stages import STAGES
from advser.stages.fingerprints import fingerprints
from advser.stages.job import Job, Outcome, Task
from advser.store.artefacts import Artefact, Store


def execute(job: Job, store: Path, plugins: Sequence[Path], device: str) -> Outcome:
    """Do one job. Errors become an outcome, not an exception, so that the other jobs go on.

    Args:
        job: the job.
        store: the store's root.
        plugins: plugin files to load first.
        device: a torch device.
    """
    start = time.perf_counter()
    try:
        reason = _do(job, Store(store), plugins, device)
    except (Exception, SystemExit) as error:
        trace = "" if isinstance(error, AdvserError) else traceback.format_exc()
        text = " ".join(str(error).split())
        reason = text if isinstance(error, AdvserError) else f"{type(error).__name__}: {text}"
        message = f"{job.title}: {reason}{raised_in(error, plugins)}"
        return Outcome(job.key, "failed", message, trace, time.perf_counter() - start)
    return Outcome(job.key, "not-applicable" if reason else "ok", reason, seconds=time.perf_counter() - start)


def raised_in(error: BaseException, plugins: Sequence[Path]) -> str:
    """Return `` (FILE:LINE)``, the last line of a plugin file in an error's traceback; empty if there is none."""
    names = {str(path.resolve()) for path in plugins}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in names]
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def _do(job: Job, store: Store, plugins: Sequence[Path], device: str) -> str:
    """Do the job; return why it is not applicable to its inputs, or an empty text. Both are stored."""
    import torch

    # The order of floating-point sums, and so every trained weight, depends on the number of threads.
    torch.set_num_threads(1)
    for plugin in plugins:
        load_plugin_file(plugin)
    local = fingerprints(job.stage, [name for name in job.code if name != "stage"])
    if local != job.code:
        differing = ", ".join(sorted(name for name in job.code if local.get(name) != job.code[name]))
        raise ContractError(f"worker: got another version of {differing}, expected the same code on all workers")
    module, _, name = STAGES[job.stage].partition(":")
    stage = getattr(importlib.import_module(module), name)
    inputs = {role: store.get(key) for role, key in job.inputs.items()}
    start = time.perf_counter()
    record = job.record()
    with store.create(job.key, record) as folder:
        try:
            _refuse_inapplicable(inputs.values())
            stage(Task(job.spec, inputs, folder, device, job.local))
        except NotApplicableError as error:
            record["not_applicable"] = str(error)
        record["seconds"] = time.perf_counter() - start
    return store.get(job.key).not_applicable


def _refuse_inapplicable(inputs: Iterable[Artefact]) -> None:
    for artefact in inputs:
        if artefact.not_applicable:
            raise NotApplicableError(artefact.not_applicable)
