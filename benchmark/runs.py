"""One run of a suite from start to end: prepare, plan, do the jobs, score, write the results."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from advser.audit import Audit, audit
from advser.corpora.protocols import speaker_independent
from advser.declarations import check
from advser.errors import InputError
from advser.evidence import VICTIM, Evidence, cells_of
from advser.job import Job, Outcome, Task
from advser.jobs import Corpus, Speech, adaptable_by, prepare_job
from advser.newcomers import with_newcomers
from advser.parameters import build, validated
from advser.plan import NothingSelectedError, Plan, make_plan
from advser.plugins import ATTACKS, CORPORA, METRICS, REGISTRIES, TRANSCRIBERS
from advser.progress import LiveProgress, PlainProgress
from advser.provenance import provenance
from advser.registry import load_plugin_file, plugin_files, plugin_names
from advser.request import PAGE, Request
from advser.results import Results
from advser.runner import missing, run_jobs
from advser.samples import write_samples
from advser.sanity.splits import split_findings
from advser.score import Scorer
from advser.sources import code_fingerprint
from advser.stages.prepare import load_prepared
from advser.stages.prepare import prepare as prepare_corpus
from advser.stages.probe import FINDINGS
from advser.store import Store, digest
from advser.suite import Suite, load
from advser.transcribers.choice import choose


@dataclass(frozen=True)
class Planned:
    """One part of a suite, or all of one that has no parts: planned, and not yet carried out."""

    plan: Plan
    speech: Speech
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """A run that is planned and not yet carried out.

    Attributes:
        suite: the suite as it is run.
        parts: what is planned of it.
        waiting: the jobs to do.
        notes: what every board of the run must say.
        plugin_files: SHA-256 of the plugin files and of the modules beside them, by their paths from their folders.
    """

    suite: Suite
    parts: tuple[Planned, ...]
    waiting: tuple[Job, ...]
    notes: tuple[str, ...]
    plugin_files: Mapping[str, str]

    @property
    def jobs(self) -> dict[str, Job]:
        """All jobs by key, those that are in the store too."""
        return {key: job for part in self.parts for key, job in part.plan.jobs.items()}

    @property
    def cells(self) -> int:
        """How many rows the results will have, those for the worst of several attacks aside."""
        return sum(len(part.plan.cells) for part in self.parts)


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


def prepare(request: Request) -> Prepared:
    """Read the suite and the corpus, and work out what is to be done.

    Raises:
        InputError: if anything of the input is unusable.
    """
    for plugin in request.workers.plugins:
        if not plugin_names(load_plugin_file(plugin), REGISTRIES.values()):
            raise InputError(
                f"plugin file {plugin}: found no plugin, allowed: a class under a decorator (@advser.attack)"
            )
    changed = (request.suite, request.changes)
    suite = joined(*changed, request.external) if request.joining else load(*changed)
    if not request.changes:
        check(suite)
    for folder in (request.store, request.folder(suite)):
        _writable(folder)
    store = Store(request.store)
    store.sweep()
    parts = _planned(suite, request, store)
    jobs = {key: job for part in parts for key, job in part.plan.jobs.items()}
    notes = (*_cuts(request), *dict.fromkeys(_told(parts)))
    return Prepared(suite, parts, tuple(missing(jobs, store)), notes, _plugin_digests(request.workers.plugins))


def joined(name: str, changes: Sequence[str] = (), external: Sequence[Path] = ()) -> Suite:
    """Return a suite, changed, with the plugins of this process and the folders of sound that join it.

    Raises:
        InputError: as `advser.suite.load` and `advser.newcomers.with_newcomers`.
    """
    suite = load(name, changes)
    if not suite.parts:
        return with_newcomers(suite, external)
    parts = {name: with_newcomers(part, external) for name, part in suite.parts.items()}
    return suite.model_copy(update={"parts": parts})


def _planned(suite: Suite, request: Request, store: Store) -> tuple[Planned, ...]:
    """Plan all parts of which ``--only`` leaves something."""
    names = [setting.part for setting in suite.settings]
    chosen = [setting for setting in suite.settings if fnmatchcase(setting.part, request.only.get("part", "*"))]
    if not chosen:
        raise InputError(f"--only part={request.only['part']}: no such part (parts: {', '.join(names)})")
    parts: list[Planned] = []
    nothing: list[NothingSelectedError] = []
    for setting in chosen:
        try:
            parts.append(_plan_one(setting, request, store))
        except NothingSelectedError as error:
            nothing.append(error)
    if not parts:
        raise nothing[0]
    return tuple(parts)


def _plan_one(suite: Suite, request: Request, store: Store) -> Planned:
    directory = _directory(suite, request.data)
    keys = {seed: _prepare_corpus(prepare_job(suite, seed, directory), store) for seed in suite.seeds}
    prepared = load_prepared(store.get(keys[suite.seeds[0]]))
    speech = _speech(suite, prepared.language, prepared.sentences, request.workers.device)
    clips = dict(zip(prepared.rows["clip"], prepared.clips.lengths.tolist(), strict=True))
    corpus = Corpus(keys, tuple(prepared.folds), prepared.language, clips)
    plan = make_plan(suite, corpus, speech, request.only, request.workers.device)
    shared = [f"Split: {finding}" for finding in split_findings(prepared)]
    return Planned(plan, speech, (*_notes(suite, speech, directory), *shared, *plan.notes, *_rounded(plan)))


def _told(parts: Sequence[Planned]) -> Iterator[str]:
    """Yield the notes of all parts; one that holds for some of them only says for which."""
    for part in parts:
        for note in part.notes:
            here = [other.plan.suite.part for other in parts if note in other.notes]
            yield note if len(here) == len(parts) else f"{', '.join(here)}: {note}"


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
    reasons: dict[str, Outcome] = {}
    for outcome in failed.values():
        if outcome.reason not in reasons or outcome.trace:
            reasons[outcome.reason] = outcome
    run = provenance() | {
        "suite": prepared.suite.model_dump(mode="json"),
        "notes": list(prepared.notes),
        "state": state,
        "metrics": {name: shown for part in prepared.parts for name, shown in _described(part.plan.suite).items()},
        "audit": audited.record,
        "precision": _precision(prepared.jobs.values()),
        "suite_file": path.name if (path := Path(request.suite)).is_file() else "",
        "external": [folder.resolve().name for folder in request.external],
        "only": dict(request.only),
        "set": list(request.changes),
        "plugins": [path.name for path in request.workers.plugins],
        "plugin_files": dict(prepared.plugin_files),
        "transcribers": {part.plan.suite.part: _transcriber(part.speech) for part in prepared.parts},
        "jobs": {"total": len(prepared.jobs), "computed": computed, "seconds": round(time.time() - start, 1)},
        "failures": [asdict(outcome) for outcome in reasons.values()],
    }
    results = Results(run=run, **tables)
    # The page is written last: without it the folder does not count as finished, so no old board outlives new results.
    (directory / PAGE).unlink(missing_ok=True)
    results.save(directory)
    write_samples([part.plan for part in prepared.parts], store, tables["examples"], directory)
    return Report(results, directory, computed, tuple(reasons.values()), audit=audited)


def _precision(jobs: Iterable[Job]) -> dict[str, Any]:
    """Return what ``auto`` came to here: what models were trained in, and what attacks had their gradients in."""
    jobs = list(jobs)
    trained = {job.spec["training"]["precision"] for job in jobs if job.stage == "train"}
    return {"training": ", ".join(sorted(trained)), "attacks": _of_gradients(jobs)}


def _of_gradients(jobs: Iterable[Job]) -> dict[str, str]:
    """Return the precision that each attack that takes gradients is to take them in, by its name."""
    found: dict[str, set[str]] = {}
    for spec in (job.spec for job in jobs if job.stage == "craft"):
        if ATTACKS.get(name := spec["attack"]["name"]).access == "white-box":
            found.setdefault(name, set()).add(spec["precision"])
    return {name: ", ".join(sorted(precisions)) for name, precisions in found.items()}


def _rounded(plan: Plan) -> Iterator[str]:
    """Tell which attacks have gradients that another processor may not give them."""
    if names := [name for name, precision in _of_gradients(plan.jobs.values()).items() if "bf16" in precision]:
        yield f"Gradients in bfloat16: {', '.join(names)}. What they find is judged in float32."


def _plugin_digests(plugins: Sequence[Path]) -> dict[str, str]:
    files = {name: file for path in plugins for name, file in plugin_files(path).items()}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


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


def _described(suite: Suite) -> dict[str, dict[str, Any]]:
    """Return how each metric of the suite is shown."""
    found = {}
    for entry in suite.metrics:
        metric = METRICS.get(entry.name)
        found[entry.title] = {"title": entry.label or metric.title, "unit": metric.unit, "decimals": metric.decimals}
    return found


def _state(prepared: Prepared) -> str:
    """Hash what the results folder is made from: the cells' artefacts, suite, notes, and the code from there on."""
    code = [code_fingerprint(module) for module in ("advser.score", "advser.audit", "advser.leaderboards.write")]
    metrics = {entry.name for part in prepared.parts for entry in part.plan.suite.metrics}
    code += [METRICS.fingerprint(name) for name in sorted(metrics)]
    code += [template.read_text(encoding="utf-8") for template in _templates()]
    cells = [asdict(cell) for part in prepared.parts for cell in part.plan.cells]
    probes = [probe.key for part in prepared.parts for probe in part.plan.probes]
    suite = prepared.suite.model_dump(mode="json")
    return digest({"cells": cells, "probes": probes, "suite": suite, "notes": prepared.notes, "code": code})


def _templates() -> list[Traversable]:
    found = resources.files("advser.leaderboards").iterdir()
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


def _writable(folder: Path) -> None:
    """Find out before hours of work whether a folder can be written to; leave nothing behind."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        # Tried rather than asked: to root, all permissions are granted, also on what cannot be written to.
        Path(tempfile.mkdtemp(prefix=".advser-", dir=existing)).rmdir()
    except OSError:
        raise InputError(f"{folder}: found {existing}, allowed: a folder that can be written to") from None


def _directory(suite: Suite, data: Mapping[str, Path]) -> Path | None:
    for name, directory in data.items():
        CORPORA.get(name)
        if not directory.is_dir():
            raise InputError(f"--data {name}={directory}: not a directory")
    name = suite.corpus.name
    if name in data:
        return data[name]
    return build(CORPORA.get(name), suite.corpus.params, f"corpus '{name}'").fetch()


def _prepare_corpus(job: Job, store: Store) -> str:
    """Prepare in this process: folds must be known to plan, and bad data must be told before anything starts."""
    if not store.discard_if_damaged(job.key):
        with store.create(job.key, job.record()) as folder:
            prepare_corpus(Task(job.spec, {}, folder, local=job.local))
    return job.key


def _speech(suite: Suite, language: str, sentences: Sequence[str], device: str) -> Speech:
    entry = suite.transcriber
    if not sentences:
        return Speech(None, "none", "the corpus does not tell what is said")
    if entry.name == "none":
        return Speech(None, "none", "the suite asks for no transcriber")
    if entry.name == "auto":
        chosen = choose(language)
        if chosen.transcriber is None:
            return Speech(None, chosen.name, chosen.reason)
        model = chosen.transcriber.fingerprint(language)
        return Speech(chosen.transcriber.on(device), chosen.name, chosen.reason, model)
    plugin = TRANSCRIBERS.get(entry.name)
    where = f"transcriber '{entry.name}'"
    transcriber = build(plugin, validated(plugin, entry.params, where), where).on(device)
    if reason := transcriber.unavailable(language):
        return Speech(None, entry.name, reason)
    return Speech(transcriber, entry.name, "", transcriber.fingerprint(language))


def _cuts(request: Request) -> Iterator[str]:
    """Tell in what a run departs from its suite: such boards are not the suite's."""
    changes = [f"--set {change}" for change in request.changes]
    changes += [f"--only {key}={glob}" for key, glob in request.only.items()]
    changes += [f"--plugin {path.name}" for path in request.workers.plugins]
    changes += [f"--external {folder.resolve().name}" for folder in request.external]
    if changes:
        yield f"Changed against the suite as it is shipped: {', '.join(changes)}."


def _notes(suite: Suite, speech: Speech, directory: Path | None) -> list[str]:
    corpus = build(CORPORA.get(suite.corpus.name), suite.corpus.params, f"corpus '{suite.corpus.name}'")
    notes = [suite.about] if suite.about else []
    notes += [f"Corpus: {finding}" for finding in corpus.findings(directory)]
    notes += [corpus.caveat] if corpus.caveat else []
    if not speaker_independent(suite.protocol):
        notes.append(f"Protocol '{suite.protocol}' is speaker-dependent: never ranked with speaker-independent runs.")
    if speech.transcriber is None:
        notes.append(f"No word error rates: {speech.reason}.")
    elif speech.transcriber.closed_text:
        notes += [corpus.caveat_of_words] if corpus.caveat_of_words else []
        notes.append(
            f"WER and CER by {speech.name}, closed-text: its language model knows the sentences of the corpus; "
            "not comparable with open-vocabulary error rates."
        )
    else:
        notes.append(f"WER and CER by {speech.name}, open vocabulary.")
    return notes
