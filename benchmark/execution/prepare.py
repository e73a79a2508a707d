"""Preparation of a run: read the suite, prepare the corpus, plan the jobs."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from advser.audit.split_checks import copy_findings, split_findings
from advser.corpora.base import shortlist
from advser.corpora.protocols import is_speaker_independent
from advser.errors import InputError
from advser.execution.cluster import missing
from advser.execution.request import Request
from advser.metrics.normalisation import UNSPACED
from advser.metrics.transcribers.choice import choose
from advser.plan.added_plugins import with_added_plugins
from advser.plan.cells import Corpus, Plan, Speech
from advser.plan.exhibit_checks import check
from advser.plan.jobs import prepare_job
from advser.plan.planner import NothingSelectedError, make_plan
from advser.plugins.parameters import build
from advser.plugins.registries import ATTACKS, CORPORA, TRANSCRIBERS, load_plugin_files
from advser.plugins.registry import plugin_files
from advser.results.selection import matching
from advser.stages.job import Job, Task
from advser.stages.prepare import Prepared as PreparedCorpus
from advser.stages.prepare import load_prepared
from advser.stages.prepare import prepare as prepare_corpus
from advser.stages.specs import CraftSpec, PrepareSpec
from advser.store.artefacts import Store
from advser.suite.loading import load
from advser.suite.schema import Suite


@dataclass(frozen=True)
class Planned:
    """A planned part of a suite, or a whole suite without parts.

    Attributes:
        plan: its cells and jobs.
        speech: the transcriber, or why there is none.
        notes: the notes that its boards show.
    """

    plan: Plan
    speech: Speech
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """A run that is planned and not yet carried out.

    Attributes:
        suite: the suite with all changes.
        parts: its selected parts.
        waiting: the jobs that are not in the store.
        notes: the notes that every board of the run shows.
        plugin_files: path from the plugin file's folder → SHA-256, of plugin files and of the modules beside them.
    """

    suite: Suite
    parts: tuple[Planned, ...]
    waiting: tuple[Job, ...]
    notes: tuple[str, ...]
    plugin_files: Mapping[str, str]

    @property
    def jobs(self) -> dict[str, Job]:
        """All jobs by key, including those in the store."""
        return {key: job for part in self.parts for key, job in part.plan.jobs.items()}

    @property
    def cells(self) -> int:
        """The number of cells in the results, without those of worst cases."""
        return sum(len(part.plan.cells) for part in self.parts)


def prepare(request: Request) -> Prepared:
    """Read the suite and the corpus, and plan the jobs.

    Raises:
        InputError: if any input is unusable.
    """
    load_plugin_files(request.workers.plugins)
    changed = (request.suite, request.changes)
    suite = joined(*changed, request.external) if request.joining else load(*changed)
    # A changed suite may leave its own exhibits without cells.
    if not request.changes:
        check(suite)
    for folder in (request.store, request.folder(suite)):
        _writable(folder)
    store = Store(request.store)
    store.sweep()
    parts = _planned(suite, request, store)
    jobs = {key: job for part in parts for key, job in part.plan.jobs.items()}
    notes = (*_cuts(request), *dict.fromkeys(_part_notes(parts)))
    return Prepared(suite, parts, tuple(missing(jobs, store)), notes, _plugin_digests(request.workers.plugins))


def joined(name: str, changes: Sequence[str] = (), external: Sequence[Path] = ()) -> Suite:
    """Return a suite with its changes, the plugins that this process registered, and folders of adversarial audio.

    Raises:
        InputError: as `advser.suite.loading.load` and `advser.plan.added_plugins.with_added_plugins`.
    """
    suite = load(name, changes)
    if not suite.parts:
        return with_added_plugins(suite, external)
    parts = {name: with_added_plugins(part, external) for name, part in suite.parts.items()}
    return suite.model_copy(update={"parts": parts})


def _planned(suite: Suite, request: Request, store: Store) -> tuple[Planned, ...]:
    """Plan all parts in which ``--only`` selects cells."""
    names = [setting.part for setting in suite.settings]
    chosen = [setting for setting in suite.settings if matching(setting.part, request.only.get("part", "*"))]
    if not chosen:
        pattern = request.only["part"]
        raise InputError(f"--only part={pattern}: got part '{pattern}', expected {', '.join(names)}")
    parts: list[Planned] = []
    errors: list[NothingSelectedError] = []
    for setting in chosen:
        try:
            parts.append(_plan_part(setting, request, store))
        except NothingSelectedError as error:
            errors.append(error)
    if not parts:
        raise errors[0]
    return tuple(parts)


def _plan_part(suite: Suite, request: Request, store: Store) -> Planned:
    directory = _directory(suite, request.data)
    keys = {seed: _prepare_corpus(prepare_job(suite, seed, directory), store) for seed in suite.seeds}
    prepared = load_prepared(store.get(keys[suite.seeds[0]]))
    speech = _speech(suite, prepared.language, prepared.sentences, request.workers.device)
    clips = dict(zip(prepared.rows["clip"], prepared.clips.lengths.tolist(), strict=True))
    corpus = Corpus(keys, tuple(prepared.folds), prepared.language, clips)
    plan = make_plan(suite, corpus, speech, request.only, request.workers.device)
    shared = [f"Split: {finding}" for finding in split_findings(prepared)]
    of_corpus = (*_clipped_note(prepared), *(f"Corpus: {finding}" for finding in copy_findings(prepared)), *shared)
    return Planned(plan, speech, (*_notes(suite, speech, directory), *of_corpus, *plan.notes, *_bf16_note(plan)))


def _part_notes(parts: Sequence[Planned]) -> Iterator[str]:
    """Yield the notes of all parts. A note that only some parts have begins with their names."""
    for part in parts:
        for note in part.notes:
            names = [other.plan.suite.part for other in parts if note in other.notes]
            yield note if len(names) == len(parts) else f"{', '.join(names)}: {note}"


def gradient_precisions(jobs: Iterable[Job]) -> dict[str, str]:
    """Return white-box attack → precision of its gradients; several precisions are joined by commas."""
    precisions: dict[str, set[str]] = {}
    for spec in (job.spec for job in jobs if job.stage == "craft"):
        assert isinstance(spec, CraftSpec)
        if ATTACKS.get(spec.attack.name).access == "white-box":
            precisions.setdefault(spec.attack.name, set()).add(spec.precision)
    return {name: ", ".join(sorted(of_attack)) for name, of_attack in precisions.items()}


def _bf16_note(plan: Plan) -> Iterator[str]:
    """Yield a note on the attacks whose gradients are in bfloat16, which may differ on other processors."""
    if names := [name for name, precision in gradient_precisions(plan.jobs.values()).items() if "bf16" in precision]:
        yield f"Gradients in bfloat16: {', '.join(names)}. Their examples are evaluated in float32."


def _clipped_note(corpus: PreparedCorpus) -> Iterator[str]:
    """Yield a note on the clips whose files exceed full scale, and so are clipped."""
    if corpus.clipped:
        names = shortlist(corpus.clipped, 3)
        yield f"Corpus: {len(corpus.clipped)} of {len(corpus.rows)} clips exceed full scale and are clipped: {names}."


def _plugin_digests(plugins: Sequence[Path]) -> dict[str, str]:
    files = {name: file for path in plugins for name, file in plugin_files(path).items()}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def _writable(folder: Path) -> None:
    """Raise InputError if a folder cannot be written to, before hours of work. Leave nothing behind."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        # Write: root has all permissions, even on a read-only file system.
        Path(tempfile.mkdtemp(prefix=".advser-", dir=existing)).rmdir()
    except OSError:
        raise InputError(f"{folder}: got {existing}, expected a folder that can be written to") from None


def _directory(suite: Suite, data: Mapping[str, Path]) -> Path | None:
    for name, directory in data.items():
        CORPORA.get(name)
        if not directory.is_dir():
            raise InputError(f"--data {name}={directory}: got no such directory, expected the corpus")
    name = suite.corpus.name
    if name in data:
        return data[name]
    return build(CORPORA.get(name), suite.corpus.params, f"corpus '{name}'").fetch()


def _prepare_corpus(job: Job, store: Store) -> str:
    """Prepare in this process: the plan needs the folds, and bad data is reported before any job starts."""
    if not store.discard_if_damaged(job.key):
        with store.create(job.key, job.record()) as folder:
            assert isinstance(job.spec, PrepareSpec)
            prepare_corpus(Task(job.spec, {}, folder, local=job.local))
    return job.key


def _speech(suite: Suite, language: str, sentences: Sequence[str], device: str) -> Speech:
    entry = suite.transcriber
    if not sentences:
        return Speech(None, "none", "the corpus has no texts")
    if entry.name == "none":
        return Speech(None, "none", "the suite has no transcriber")
    if entry.name == "auto":
        chosen = choose(language)
        if chosen.transcriber is None:
            return Speech(None, chosen.name, chosen.reason)
        model = chosen.transcriber.fingerprint(language)
        return Speech(chosen.transcriber.on(device), chosen.name, chosen.reason, model)
    plugin = TRANSCRIBERS.get(entry.name)
    where = f"transcriber '{entry.name}'"
    transcriber = build(plugin, entry.params, where).on(device)
    if reason := transcriber.unavailable(language):
        return Speech(None, entry.name, reason)
    return Speech(transcriber, entry.name, "", transcriber.fingerprint(language))


def _cuts(request: Request) -> Iterator[str]:
    """Yield a note on the options that change the suite: its boards are not those of the suite."""
    changes = [f"--set {change}" for change in request.changes]
    changes += [f"--only {key}={glob}" for key, glob in request.only.items()]
    changes += [f"--plugin {path.name}" for path in request.workers.plugins]
    changes += [f"--external {folder.resolve().name}" for folder in request.external]
    if changes:
        yield f"Differs from the suite: {', '.join(changes)}."


def _notes(suite: Suite, speech: Speech, directory: Path | None) -> list[str]:
    corpus = build(CORPORA.get(suite.corpus.name), suite.corpus.params, f"corpus '{suite.corpus.name}'")
    notes = [suite.about] if suite.about else []
    notes += [f"Corpus: {finding}" for finding in corpus.findings(directory)]
    notes += [corpus.caveat] if corpus.caveat else []
    if not is_speaker_independent(suite.protocol):
        notes.append(f"Protocol '{suite.protocol}' is speaker-dependent: not ranked with speaker-independent runs.")
    if speech.transcriber is None:
        notes.append(f"No word error rates: {speech.reason}.")
    elif speech.transcriber.closed_text:
        notes += [corpus.caveat_of_words] if corpus.caveat_of_words else []
        notes.append(
            f"WER and CER by {speech.name}, closed-text: its language model is built from the sentences of the corpus. "
            "Not comparable with open-vocabulary error rates."
        )
    else:
        notes.append(f"WER and CER by {speech.name}, open vocabulary.")
    if speech.transcriber is not None and corpus.language in UNSPACED:
        notes.append(f"No word error rates: language '{corpus.language}' writes no spaces between words. CER applies.")
    return notes
