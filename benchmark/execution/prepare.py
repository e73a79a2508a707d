"""What a run is to do, before it is done: the suite read, the corpus prepared, the jobs planned."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from advser.audit.split_checks import split_findings
from advser.corpora.protocols import is_speaker_independent
from advser.errors import InputError
from advser.execution.cluster import missing
from advser.execution.request import Request
from advser.metrics.transcribers.choice import choose
from advser.plan.added_plugins import with_added_plugins
from advser.plan.cells import Corpus, Plan, Speech
from advser.plan.exhibit_checks import check
from advser.plan.jobs import prepare_job
from advser.plan.planner import NothingSelectedError, make_plan
from advser.plugins.parameters import build, validated
from advser.plugins.registries import ATTACKS, CORPORA, TRANSCRIBERS, load_plugin_files
from advser.plugins.registry import plugin_files
from advser.results.selection import matching
from advser.stages.job import Job, Task
from advser.stages.prepare import load_prepared
from advser.stages.prepare import prepare as prepare_corpus
from advser.stages.specs import CraftSpec, PrepareSpec
from advser.store.artefacts import Store
from advser.suite.loading import load
from advser.suite.schema import Suite


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


def prepare(request: Request) -> Prepared:
    """Read the suite and the corpus, and work out what is to be done.

    Raises:
        InputError: if anything of the input is unusable.
    """
    load_plugin_files(request.workers.plugins)
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
        InputError: as `advser.suite.loading.load` and `advser.plan.added_plugins.with_added_plugins`.
    """
    suite = load(name, changes)
    if not suite.parts:
        return with_added_plugins(suite, external)
    parts = {name: with_added_plugins(part, external) for name, part in suite.parts.items()}
    return suite.model_copy(update={"parts": parts})


def _planned(suite: Suite, request: Request, store: Store) -> tuple[Planned, ...]:
    """Plan all parts of which ``--only`` leaves something."""
    names = [setting.part for setting in suite.settings]
    chosen = [setting for setting in suite.settings if matching(setting.part, request.only.get("part", "*"))]
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


def gradient_precisions(jobs: Iterable[Job]) -> dict[str, str]:
    """Return the precision that each attack that takes gradients is to take them in, by its name."""
    found: dict[str, set[str]] = {}
    for spec in (job.spec for job in jobs if job.stage == "craft"):
        assert isinstance(spec, CraftSpec)
        if ATTACKS.get(spec.attack.name).access == "white-box":
            found.setdefault(spec.attack.name, set()).add(spec.precision)
    return {name: ", ".join(sorted(precisions)) for name, precisions in found.items()}


def _rounded(plan: Plan) -> Iterator[str]:
    """Tell which attacks have gradients that another processor may not give them."""
    if names := [name for name, precision in gradient_precisions(plan.jobs.values()).items() if "bf16" in precision]:
        yield f"Gradients in bfloat16: {', '.join(names)}. What they find is judged in float32."


def _plugin_digests(plugins: Sequence[Path]) -> dict[str, str]:
    files = {name: file for path in plugins for name, file in plugin_files(path).items()}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def _writable(folder: Path) -> None:
    """Find out before hours of work whether a folder can be written to; leave nothing behind."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        # Tried rather than asked: to root, all permissions are granted, also on what cannot be written to.
        Path(tempfile.mkdtemp(prefix=".advser-", dir=existing)).rmdir()
    except OSError:
        raise InputError(f"{folder}: got {existing}, expected a folder that can be written to") from None


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
            assert isinstance(job.spec, PrepareSpec)
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
    if not is_speaker_independent(suite.protocol):
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
