"""From a suite to its cells (the rows of the results) and the jobs that they need, none of them twice."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from advser.attacks.base import Attack
from advser.corpora.protocols import speaker_independent
from advser.errors import InputError
from advser.job import Job
from advser.metrics.base import ClipMetric, Metric
from advser.parameters import build, explain, validated
from advser.plugins import ATTACKS, CORPORA, DEFENSES, METRICS, MODELS, TRANSCRIBERS
from advser.registry import Registry, code_fingerprint
from advser.stages import STAGES
from advser.suite import AttackEntry, ModelEntry, PluginEntry, Suite
from advser.threat import Delivery, Domain, Labels, unit_of
from advser.training import Training
from advser.transcribers.base import Transcriber

FILTERS = ("seed", "fold", "model", "defense", "attack", "domain", "delivery", "labels", "access", "source_model",
           "source_defense")  # fmt: skip
"""What ``--only`` can select by."""


@dataclass(frozen=True)
class FoldKeys:
    """Keys of the artefacts that one fold of a cell is scored from; None where there is none."""

    fold: str
    prepared: str
    crafted: str
    predicted: str
    clean_predicted: str
    source_predicted: str | None
    measured: Mapping[str, str]
    transcribed: str | None
    clean_transcribed: str | None


@dataclass(frozen=True)
class Cell:
    """One row of the results: its key columns, and what each fold is scored from."""

    columns: Mapping[str, Any]
    folds: tuple[FoldKeys, ...]


@dataclass(frozen=True)
class Plan:
    """A suite worked out: jobs by key (each after those that it reads) and cells."""

    suite: Suite
    jobs: Mapping[str, Job]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Corpus:
    """What planning knows of a prepared corpus: the key of the artefact by seed, the fold names, and the language."""

    prepared: Mapping[int, str]
    folds: tuple[str, ...]
    language: str


@dataclass(frozen=True)
class Speech:
    """The transcriber that a run uses, or the reason why there is none."""

    transcriber: Transcriber | None
    name: str
    reason: str


@dataclass(frozen=True)
class _Victim:
    model: ModelEntry
    defense: PluginEntry

    @property
    def columns(self) -> dict[str, str]:
        return {"model": self.model.title, "defense": self.defense.title}

    @property
    def source_columns(self) -> dict[str, str]:
        return {"source_model": self.model.title, "source_defense": self.defense.title}


NO_SOURCE = {"source_model": "", "source_defense": ""}


@dataclass(frozen=True)
class _Row:
    """One attack configuration: entry, parameters, and where it stands."""

    entry: AttackEntry
    attack: Attack
    params: dict[str, Any]
    domain: Domain
    labels: Labels

    @property
    def blind(self) -> bool:
        return self.attack.access == "blind"

    def columns(self, delivery: Delivery) -> dict[str, Any]:
        budget = self.attack.budget(self.domain)
        return {
            "attack": self.entry.title,
            "params": json.dumps(self.params, sort_keys=True),
            "domain": self.domain,
            "delivery": delivery,
            "labels": self.labels,
            "norm": budget.norm if budget else "",
            "epsilon": budget.epsilon if budget else None,
            "epsilon_unit": unit_of(self.domain) if budget else "",
        }


def prepare_job(suite: Suite, seed: int, directory: Path | None) -> Job:
    """Return the job that prepares the corpus; ``directory`` is where its files are (None: embedded)."""
    name = suite.corpus.name
    corpus_class = CORPORA.get(name)
    params = validated(corpus_class, suite.corpus.params, f"corpus '{name}'")
    corpus = build(corpus_class, params, f"corpus '{name}'")
    spec = {
        "corpus": {"name": name, "params": params},
        "digest": corpus.digest(directory),
        "task": suite.task,
        "classes": suite.classes,
        "protocol": suite.protocol,
        "seed": 0 if speaker_independent(suite.protocol) else seed,
    }
    code = _code("prepare", corpora=[name])
    return Job("prepare", spec, {}, code, f"prepare {name} {suite.protocol}", directory)


def make_plan(suite: Suite, corpus: Corpus, speech: Speech, only: Mapping[str, str], device: str) -> Plan:
    """Work out cells and jobs.

    Args:
        suite: the suite, with newcomers in it (`with_newcomers`).
        corpus: the prepared corpus.
        speech: the transcriber.
        only: column → glob; cells that do not match are left out (but for the clean ones, the reference of all).
        device: the torch device that models run on.

    Raises:
        InputError: if a plugin is unknown, its parameters are wrong, or an entry asks for what does not exist.
    """
    return _Planner(suite, corpus, speech, only, device).plan()


def with_newcomers(suite: Suite) -> Suite:
    """Add the plugins that this process registered by decorator and that the suite does not name yet."""
    models = [ModelEntry(name=name) for name in _new(MODELS, suite.models)]
    defenses = [PluginEntry(name=name) for name in _new(DEFENSES, suite.defenses)]
    metrics = [PluginEntry(name=name) for name in _new(METRICS, suite.metrics)]
    attacks = [entry for name in _new(ATTACKS, suite.attacks) for entry in _newcomer_attack(suite, name)]
    return suite.model_copy(
        update={
            "models": suite.models + models,
            "defenses": suite.defenses + defenses,
            "metrics": suite.metrics + metrics,
            "attacks": suite.attacks + attacks,
        }
    )


def _new(registry: Registry[Any], entries: Sequence[PluginEntry]) -> list[str]:
    named = {entry.name for entry in entries}
    return [name for name in registry.decorated() if name not in named]


def _newcomer_attack(suite: Suite, name: str) -> list[AttackEntry]:
    plugin = ATTACKS.get(name)
    return [
        AttackEntry(
            name=name,
            params={"epsilon": place.epsilon} if "epsilon" in plugin.model_fields else {},
            domain=[place.domain],
            delivery=place.delivery,
            labels=place.labels,
        )
        for place in suite.newcomers
        if place.domain in plugin.domains
    ]


def _code(stage: str, **plugins: Sequence[str]) -> dict[str, str]:
    """Return the fingerprints of a stage and of the plugins that a job of it runs."""
    registries: dict[str, Registry[Any]] = {
        "models": MODELS, "attacks": ATTACKS, "defenses": DEFENSES, "corpora": CORPORA, "metrics": METRICS,
        "transcribers": TRANSCRIBERS,
    }  # fmt: skip
    found = {"stage": code_fingerprint(STAGES[stage].partition(":")[0])}
    for kind, names in plugins.items():
        found |= {f"{kind}:{name}": registries[kind].fingerprint(name) for name in names}
    return found


def _grid(params: Mapping[str, Any], plugin: type[Attack]) -> Iterator[dict[str, Any]]:
    """Expand parameters given as lists, unless the plugin's parameter is itself a list."""
    spread = {
        name: value if isinstance(value, list) and not _takes_list(plugin, name) else [value]
        for name, value in params.items()
    }
    for values in itertools.product(*spread.values()):
        yield dict(zip(spread, values, strict=True))


def _takes_list(plugin: type[Attack], name: str) -> bool:
    field_info = plugin.model_fields.get(name)
    return field_info is not None and any(word in str(field_info.annotation) for word in ("list", "tuple", "Sequence"))


def bf16_pays(device: str) -> bool:
    """Tell whether the processor of ``device`` computes in bfloat16 natively."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@dataclass
class _Planner:
    suite: Suite
    corpus: Corpus
    speech: Speech
    only: Mapping[str, str]
    device: str
    jobs: dict[str, Job] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    trained: dict[tuple[int, str, str, str], str] = field(default_factory=dict)

    def plan(self) -> Plan:
        for key in self.only:
            if key not in FILTERS:
                raise InputError(f"--only {key}: found '{key}', allowed: {', '.join(FILTERS)}")
        for entry in self.suite.metrics:
            where = f"metric '{entry.name}'"
            self.metrics[entry.title] = build(METRICS.get(entry.name), entry.params, where)
        victims = [
            victim
            for victim in itertools.starmap(_Victim, itertools.product(self.suite.models, self.suite.defenses))
            if self._selected(victim.columns)
            and (victim.model.defenses is None or victim.defense.title in victim.model.defenses)
        ]
        rows = [row for entry in self._attack_entries() for row in self._rows(entry)]
        cells = [cell for seed in self.suite.seeds for cell in self._cells(seed, victims, rows)]
        if not cells:
            asked = " ".join(f"{key}={glob}" for key, glob in self.only.items())
            raise InputError(f"--only {asked}: no cell of suite '{self.suite.name}' matches")
        return Plan(self.suite, self.jobs, tuple(cells))

    def _attack_entries(self) -> list[AttackEntry]:
        return [entry for entry in self.suite.attacks if entry.title != "none"]

    def _selected(self, columns: Mapping[str, Any]) -> bool:
        return all(
            fnmatchcase(str(columns[key]), glob) or self._is_newcomer(key, str(columns[key]))
            for key, glob in self.only.items()
            if key in columns
        )

    def _is_newcomer(self, key: str, title: str) -> bool:
        """A ``--plugin`` file's own plugins are meant to run, whatever ``--only`` says of their kind."""
        registries: dict[str, Registry[Any]] = {"attack": ATTACKS, "defense": DEFENSES, "model": MODELS}
        return key in registries and title in registries[key].decorated()

    @cached_property
    def _folds(self) -> list[str]:
        chosen = self.suite.folds or list(self.corpus.folds)
        for fold in chosen:
            if fold not in self.corpus.folds:
                raise InputError(f"folds: found '{fold}', allowed: {', '.join(self.corpus.folds)}")
        return [fold for fold in chosen if self._selected({"fold": fold})]

    def _rows(self, entry: AttackEntry) -> list[_Row]:
        plugin = ATTACKS.get(entry.name)
        rows = []
        for domain in entry.domain:
            if domain not in plugin.domains:
                raise InputError(f"attack '{entry.name}': domain: found {domain}, allowed: {', '.join(plugin.domains)}")
            labels: Sequence[Labels] = ["none"] if plugin.access == "blind" else entry.labels
            for params, given in itertools.product(_grid(entry.params, plugin), labels):
                complete = validated(plugin, params, f"attack '{entry.title}'")
                attack = build(plugin, complete, f"attack '{entry.title}'")
                rows.append(_Row(entry, attack, complete, domain, given))
        return rows

    def _cells(self, seed: int, victims: list[_Victim], rows: list[_Row]) -> Iterator[Cell]:
        for victim in victims:
            yield self._cell(seed, victim, self._clean, "audio", None)
        for row, victim in itertools.product(rows, victims):
            if row.domain == "spectrogram" and not MODELS.get(victim.model.name).spectrogram:
                continue
            deliveries: list[Delivery] = ["audio"] if row.domain == "waveform" else row.entry.delivery
            for delivery in deliveries:
                for source in self._sources(victim, row, delivery, victims):
                    if self._selected(self._columns(seed, victim, row, delivery, source)):
                        yield self._cell(seed, victim, row, delivery, source)

    @cached_property
    def _clean(self) -> _Row:
        return self._rows(AttackEntry(name="none"))[0]

    def _sources(
        self, victim: _Victim, row: _Row, delivery: Delivery, victims: list[_Victim]
    ) -> Iterator[_Victim | None]:
        """Yield what the examples are crafted on: the victim itself (nothing, for blind sound), then other models."""
        yield None if row.blind and row.domain == "waveform" else victim
        if row.entry.transfer and not row.blind:
            for other in victims:
                # Features fit another model only if its front end is the same.
                if other != victim and (delivery == "audio" or other.model == victim.model):
                    yield other

    def _columns(
        self, seed: int, victim: _Victim, row: _Row, delivery: Delivery, source: _Victim | None
    ) -> dict[str, Any]:
        suite = self.suite
        return {
            "suite": suite.name,
            "corpus": suite.corpus.title,
            "task": suite.task,
            "protocol": suite.protocol,
            "split": "test",
            "seed": seed,
            **victim.columns,
            **row.columns(delivery),
            "access": row.attack.access if source in (victim, None) else "transfer",
            **(source.source_columns if source and not row.blind else NO_SOURCE),
        }

    def _cell(self, seed: int, victim: _Victim, row: _Row, delivery: Delivery, source: _Victim | None) -> Cell:
        folds = [self._fold(seed, fold, victim, row, delivery, source) for fold in self._folds]
        return Cell(self._columns(seed, victim, row, delivery, source), tuple(folds))

    def _fold(
        self, seed: int, fold: str, victim: _Victim, row: _Row, delivery: Delivery, source: _Victim | None
    ) -> FoldKeys:
        trained = self._train(seed, fold, victim)
        crafted = self._craft(seed, fold, row, source)
        clean = self._craft(seed, fold, self._clean, None)
        heard = delivery == "audio"
        return FoldKeys(
            fold=fold,
            prepared=self.corpus.prepared[seed],
            crafted=crafted,
            predicted=self._predict(seed, fold, crafted, trained, victim, delivery),
            clean_predicted=self._predict(seed, fold, clean, trained, victim, "audio"),
            source_predicted=(
                self._predict(seed, fold, crafted, self._train(seed, fold, source), source, delivery)
                if source is not None and source != victim
                else None
            ),
            measured=self._measure(seed, fold, crafted) if heard else {},
            transcribed=self._transcribe(seed, fold, crafted) if heard else None,
            clean_transcribed=self._transcribe(seed, fold, clean) if heard else None,
        )

    def _add(self, job: Job) -> str:
        return self.jobs.setdefault(job.key, job).key

    def _train(self, seed: int, fold: str, victim: _Victim) -> str:
        place = (seed, fold, victim.model.title, victim.defense.title)
        if place not in self.trained:
            self.trained[place] = self._add(self._training_job(seed, fold, victim))
        return self.trained[place]

    def _training_job(self, seed: int, fold: str, victim: _Victim) -> Job:
        model, defense = victim.model, victim.defense
        defense_class = DEFENSES.get(defense.name)
        defense_params = validated(defense_class, defense.params, f"defense '{defense.title}'")
        inner = build(defense_class, defense_params, f"defense '{defense.title}'").attacks()
        spec = {
            "model": {
                "name": model.name,
                "params": validated(MODELS.get(model.name), model.params, f"model '{model.title}'"),
            },
            "defense": {"name": defense.name, "params": defense_params},
            "training": self._training(model).model_dump(mode="json"),
            "fold": fold,
            "seed": seed,
        }
        code = _code("train", models=[model.name], defenses=[defense.name], attacks=inner)
        title = f"train {model.title} / {defense.title}, fold {fold}"
        return Job("train", spec, {"prepared": self.corpus.prepared[seed]}, code, title)

    def _training(self, model: ModelEntry) -> Training:
        merged = self.suite.training.model_dump() | model.training
        try:
            training = Training.model_validate(merged)
        except ValidationError as error:
            raise InputError(explain(error, f"models.{model.title}.training", Training)) from None
        if training.precision != "auto":
            return training
        return training.model_copy(update={"precision": "bf16" if bf16_pays(self.device) else "fp32"})

    def _craft(self, seed: int, fold: str, row: _Row, source: _Victim | None) -> str:
        spec = {
            "attack": {"name": row.entry.name, "params": row.params},
            "domain": row.domain,
            "labels": row.labels,
            "batch_size": self.suite.batch_size,
            "fold": fold,
            "seed": seed,
        }
        inputs = {"prepared": self.corpus.prepared[seed]}
        if source is not None:
            inputs["source"] = self._train(seed, fold, source)
        code = _code("craft", attacks=[row.entry.name])
        on = f" on {source.model.title} / {source.defense.title}" if source else ""
        epsilon = getattr(row.attack, "epsilon", None)
        size = "" if epsilon is None else f" ε={epsilon:g}"
        title = f"craft {row.entry.title}{size} {row.domain} {row.labels}{on}, fold {fold}"
        return self._add(Job("craft", spec, inputs, code, title))

    def _predict(self, seed: int, fold: str, crafted: str, trained: str, victim: _Victim, delivery: Delivery) -> str:
        spec = {"delivery": delivery, "batch_size": self.suite.batch_size, "fold": fold}
        inputs = {"prepared": self.corpus.prepared[seed], "crafted": crafted, "victim": trained}
        title = f"judge {victim.model.title} / {victim.defense.title} on {self._short(crafted)}"
        return self._add(Job("predict", spec, inputs, _code("predict"), title))

    def _measure(self, seed: int, fold: str, crafted: str) -> dict[str, str]:
        inputs = {"prepared": self.corpus.prepared[seed], "crafted": crafted}
        found = {}
        for entry in self.suite.metrics:
            if isinstance(self.metrics[entry.title], ClipMetric):
                params = validated(METRICS.get(entry.name), entry.params, f"metric '{entry.title}'")
                spec = {"metric": {"name": entry.name, "params": params}, "fold": fold}
                title = f"measure {entry.title} of {self._short(crafted)}"
                code = _code("measure", metrics=[entry.name])
                found[entry.title] = self._add(Job("measure", spec, inputs, code, title))
        return found

    def _transcribe(self, seed: int, fold: str, crafted: str) -> str | None:
        needed = any("transcripts" in metric.needs for metric in self.metrics.values())
        if self.speech.transcriber is None or not needed:
            return None
        params = self.speech.transcriber.model_dump(mode="json")
        spec = {"transcriber": {"name": self.speech.name, "params": params}, "fold": fold}
        inputs = {"prepared": self.corpus.prepared[seed], "crafted": crafted}
        title = f"transcribe {self._short(crafted)}"
        code = _code("transcribe", transcribers=[self.speech.name])
        return self._add(Job("transcribe", spec, inputs, code, title))

    def _short(self, crafted: str) -> str:
        return self.jobs[crafted].title.removeprefix("craft ")
