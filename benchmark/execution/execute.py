"""A prepared run of a suite: do the jobs, score the cells, write the results."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from advser.audit.audit import Audit, audit
from advser.audit.evidence import VICTIM, Evidence, cells_of
from advser.errors import InputError
from advser.execution.cluster import run_jobs
from advser.execution.prepare import Prepared, gradient_precisions
from advser.execution.progress import LiveProgress, PlainProgress
from advser.execution.request import PAGE, Request
from advser.execution.samples import write_samples
from advser.plan.cells import Plan, Speech
from advser.plan.jobs import adaptable_by
from advser.plugins.fingerprint import code_fingerprint
from advser.plugins.registries import METRICS
from advser.results.folder import Results
from advser.scoring.score import Scorer
from advser.stages.job import Job, Outcome
from advser.stages.prepare import load_prepared
from advser.stages.probes.probe import FINDINGS
from advser.stages.specs import TrainSpec
from advser.store.artefacts import Store
from advser.store.digests import digest
from advser.store.provenance import provenance
from advser.suite.schema import Suite


@dataclass(frozen=True)
class Report:
    """The end of a run.

    Attributes:
        results: the results.
        directory: the results folder.
        computed: number of jobs done; the others were in the store.
        failures: outcomes of the failed jobs, root causes only.
        written: whether the results are new; if not, the folder already held them, with their boards.
        audit: answers of the checks; empty if the results are not new.
    """

    results: Results
    directory: Path
    computed: int
    failures: tuple[Outcome, ...]
    written: bool = True
    audit: Audit = field(default_factory=lambda: Audit({}))


def carry_out(request: Request, prepared: Prepared, console: Console) -> Report:
    """Do the jobs, score the cells, and write the results folder (without the boards).

    If the folder already holds results of the same artefacts and the same code, read them instead.
    """
    start = time.time()
    directory, state = request.folder(prepared.suite), _state(prepared, request.drawn_by)
    if not prepared.waiting and (cached := _cached_results(directory, state)) is not None:
        return Report(cached, directory, 0, (), written=False)
    store = Store(request.store)
    progress = LiveProgress(console) if console.is_terminal else PlainProgress(console)
    stored = len(prepared.jobs) - len(prepared.waiting)
    workers = replace(request.workers, timeout=request.workers.timeout or prepared.suite.timeout)
    outcomes = run_jobs(prepared.waiting, stored, store, workers, progress)
    # A job whose input failed has the status failed, and was not tried.
    computed = sum(outcome.seconds > 0 for outcome in outcomes)
    failed = {outcome.key: outcome for outcome in outcomes if outcome.status == "failed"}
    scored = [Scorer(part.plan, store, failed, part.speech).score() for part in prepared.parts]
    tables = {
        name: pd.concat([getattr(part, name) for part in scored], ignore_index=True)
        for name in ("table", "examples", "ranks", "pooled")
    }
    audited = audit(_evidence(prepared, tables["examples"], store, failed))
    failures = _root_causes(failed.values())
    done = {"total": len(prepared.jobs), "computed": computed, "seconds": round(time.time() - start, 1)}
    run = _description(request, prepared) | {
        "state": state,
        "audit": audited.record,
        "jobs": done,
        "failures": [asdict(outcome) for outcome in failures],
    }
    results = Results(run=run, **tables)
    # The page is written last. Without it the folder does not count as finished, so no old board outlives new results.
    (directory / PAGE).unlink(missing_ok=True)
    results.save(directory)
    write_samples([part.plan for part in prepared.parts], store, tables["examples"], directory)
    return Report(results, directory, computed, failures, audit=audited)


def _description(request: Request, prepared: Prepared) -> dict[str, Any]:
    """Return the keys of ``run.json`` that describe a run, independent of its outcome."""
    return provenance() | {
        "suite": prepared.suite.model_dump(mode="json"),
        "notes": list(prepared.notes),
        "metrics": {name: style for part in prepared.parts for name, style in _metrics(part.plan.suite).items()},
        "precision": _precision(prepared.jobs.values()),
        "suite_file": path.name if (path := Path(request.suite)).is_file() else "",
        "external": [folder.resolve().name for folder in request.external],
        "only": dict(request.only),
        "set": list(request.changes),
        "plugins": [path.name for path in request.workers.plugins],
        "plugin_files": dict(prepared.plugin_files),
        "transcribers": {part.plan.suite.part: _transcriber(part.speech) for part in prepared.parts},
    }


def _root_causes(failed: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """Return one outcome for each reason of a failure, with a traceback if any outcome has one."""
    reasons: dict[str, Outcome] = {}
    for outcome in failed:
        if outcome.reason not in reasons or outcome.trace:
            reasons[outcome.reason] = outcome
    return tuple(reasons.values())


def _precision(jobs: Iterable[Job]) -> dict[str, Any]:
    """Return the precision of training, and that of each attack's gradients, with ``auto`` resolved."""
    jobs = list(jobs)
    trained = {job.spec.training.precision for job in jobs if isinstance(job.spec, TrainSpec)}
    return {"training": ", ".join(sorted(trained)), "attacks": gradient_precisions(jobs)}


def _evidence(prepared: Prepared, examples: pd.DataFrame, store: Store, failed: Mapping[str, Outcome]) -> Evidence:
    plans = [part.plan for part in prepared.parts]
    worst = [(plan.suite.part, declared.name) for plan in plans for declared in plan.suite.worst]
    attacks = {(plan.suite.part, *place): facts for plan in plans for place, facts in plan.attacks.items()}
    probes = [({key: probe.columns[key] for key in VICTIM}, probe.key) for plan in plans for probe in plan.probes]
    adaptable = {
        (plan.suite.part, entry.title) for plan in plans for entry in plan.suite.defenses if adaptable_by(entry.name)
    }
    return Evidence(
        cells_of(examples, worst, attacks),
        [(victim, store.get(key).json(FINDINGS)) for victim, key in probes if key in store],
        {plan.suite.part: _classes(plan, store) for plan in plans},
        frozenset(adaptable),
        [(victim, failed[key].reason) for victim, key in probes if key in failed],
    )


def _classes(plan: Plan, store: Store) -> int:
    return len(load_prepared(store.get(plan.cells[0].folds[0].prepared)).classes)


def _transcriber(speech: Speech) -> dict[str, Any]:
    engine = speech.transcriber
    params = {} if engine is None else engine.model_dump(mode="json", exclude=set(engine.places))
    return {"name": speech.name, "params": params, "model": speech.model, "reason": speech.reason}


def _metrics(suite: Suite) -> dict[str, dict[str, Any]]:
    """Return the title, unit and decimals of each metric of the suite."""
    formats = {}
    for entry in suite.metrics:
        metric = METRICS.get(entry.name)
        formats[entry.title] = {"title": entry.label or metric.title, "unit": metric.unit, "decimals": metric.decimals}
    return formats


def _state(prepared: Prepared, drawn_by: str) -> str:
    """Hash the sources of a results folder: the cells' artefacts, the suite, the notes, and the code after the jobs.

    The code counts by its contents, not by the names of its modules.
    """
    metrics = {entry.name for part in prepared.parts for entry in part.plan.suite.metrics}
    code = [
        code_fingerprint(Scorer.__module__),
        code_fingerprint(audit.__module__),
        drawn_by,
        *(METRICS.fingerprint(name) for name in sorted(metrics)),
    ]
    cells = [asdict(cell) for part in prepared.parts for cell in part.plan.cells]
    probes = [probe.key for part in prepared.parts for probe in part.plan.probes]
    suite = prepared.suite.model_dump(mode="json")
    return digest({"cells": cells, "probes": probes, "suite": suite, "notes": prepared.notes, "code": code})


def _cached_results(directory: Path, state: str) -> Results | None:
    """Return the results that the folder holds if they are of this state, complete, and shown on their page.

    Results with failures are scored again: the artefacts may be in the store by now.
    """
    if not (directory / PAGE).is_file():
        return None
    try:
        results = Results.load(directory)
    except InputError:
        return None
    complete = not results.run["failures"] and not (results.table["status"] == "failed").any()
    return results if complete and results.run.get("state") == state else None
