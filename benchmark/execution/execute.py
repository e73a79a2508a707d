"""One run of a suite, once it is prepared: do the jobs, score, write the results."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
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
from advser.stages.probe import FINDINGS
from advser.stages.specs import TrainSpec
from advser.store.artefacts import Store
from advser.store.digests import digest
from advser.store.provenance import provenance
from advser.suite.schema import Suite


@dataclass(frozen=True)
class Report:
    """How a run ended.

    Attributes:
        results: what was found.
        directory: where it was written.
        computed: number of jobs done; the others were in the store.
        failures: outcomes of the jobs that failed, root causes only.
        written: whether the results are new; if not, the folder held them already, with their boards.
        audit: what the checks said; empty if the results are not new.
    """

    results: Results
    directory: Path
    computed: int
    failures: tuple[Outcome, ...]
    written: bool = True
    audit: Audit = field(default_factory=lambda: Audit({}))


def carry_out(request: Request, prepared: Prepared, console: Console) -> Report:
    """Do the jobs, score the cells, and write the results folder (without the boards).

    If the folder already holds the results of the same artefacts, made by the same code, they are read instead.
    """
    start = time.time()
    directory, state = request.folder(prepared.suite), _state(prepared)
    if not prepared.waiting and (found := _as_before(directory, state)) is not None:
        return Report(found, directory, 0, (), written=False)
    store = Store(request.store)
    progress = LiveProgress(console) if console.is_terminal else PlainProgress(console)
    cached = len(prepared.jobs) - len(prepared.waiting)
    outcomes = run_jobs(prepared.waiting, cached, store, request.workers, progress)
    # A job whose input failed is told as failed without being tried.
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
    run = _described(request, prepared) | {
        "state": state,
        "audit": audited.record,
        "jobs": done,
        "failures": [asdict(outcome) for outcome in failures],
    }
    results = Results(run=run, **tables)
    # The page is written last: without it the folder does not count as finished, so no old board outlives new results.
    (directory / PAGE).unlink(missing_ok=True)
    results.save(directory)
    write_samples([part.plan for part in prepared.parts], store, tables["examples"], directory)
    return Report(results, directory, computed, failures, audit=audited)


def _described(request: Request, prepared: Prepared) -> dict[str, Any]:
    """Return what a run was, whatever came of it."""
    return provenance() | {
        "suite": prepared.suite.model_dump(mode="json"),
        "notes": list(prepared.notes),
        "metrics": {name: shown for part in prepared.parts for name, shown in _metrics(part.plan.suite).items()},
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
    """Return one outcome for each reason of a failure, that which tells where it happened if any does."""
    reasons: dict[str, Outcome] = {}
    for outcome in failed:
        if outcome.reason not in reasons or outcome.trace:
            reasons[outcome.reason] = outcome
    return tuple(reasons.values())


def _precision(jobs: Iterable[Job]) -> dict[str, Any]:
    """Return what ``auto`` came to here: what models were trained in, and what attacks had their gradients in."""
    jobs = list(jobs)
    trained = {job.spec.training.precision for job in jobs if isinstance(job.spec, TrainSpec)}
    return {"training": ", ".join(sorted(trained)), "attacks": gradient_precisions(jobs)}


def _evidence(prepared: Prepared, examples: pd.DataFrame, store: Store, failed: Mapping[str, Outcome]) -> Evidence:
    plans = [part.plan for part in prepared.parts]
    worst = [(plan.suite.part, declared.name) for plan in plans for declared in plan.suite.worst]
    attacks = {(plan.suite.part, title): plugin for plan in plans for title, plugin in plan.attacks.items()}
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
    """Return how each metric of the suite is shown."""
    found = {}
    for entry in suite.metrics:
        metric = METRICS.get(entry.name)
        found[entry.title] = {"title": entry.label or metric.title, "unit": metric.unit, "decimals": metric.decimals}
    return found


def _state(prepared: Prepared) -> str:
    """Hash what the results folder is made from: the cells' artefacts, suite, notes, and the code from there on."""
    code = [
        code_fingerprint(module)
        for module in ("advser.scoring.score", "advser.audit.audit", "advser.leaderboards.write")
    ]
    metrics = {entry.name for part in prepared.parts for entry in part.plan.suite.metrics}
    code += [METRICS.fingerprint(name) for name in sorted(metrics)]
    code += [template.read_text(encoding="utf-8") for template in _templates()]
    cells = [asdict(cell) for part in prepared.parts for cell in part.plan.cells]
    probes = [probe.key for part in prepared.parts for probe in part.plan.probes]
    suite = prepared.suite.model_dump(mode="json")
    return digest({"cells": cells, "probes": probes, "suite": suite, "notes": prepared.notes, "code": code})


def _templates() -> list[Traversable]:
    found = resources.files("advser.leaderboards.page").iterdir()
    return sorted((item for item in found if item.name.endswith(".j2")), key=lambda item: item.name)


def _as_before(directory: Path, state: str) -> Results | None:
    """Return the results that the folder holds, if they are of this state, complete, and shown on their page.

    What failed then may be in the store by now: such results are scored again.
    """
    if not (directory / PAGE).is_file():
        return None
    try:
        results = Results.load(directory)
    except InputError:
        return None
    complete = not results.run["failures"] and not (results.table["status"] == "failed").any()
    return results if complete and results.run.get("state") == state else None
