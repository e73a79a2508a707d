"""The jobs of a suite: what each is called, what decides its result, and what it reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from advser.attacks.learned import LearnedAttack
from advser.attacks.reference import AttackReference
from advser.corpora.protocols import is_speaker_independent
from advser.defenses.base import Defense
from advser.errors import InputError
from advser.metrics.base import ClipMetric, Metric, ModelMetric
from advser.models.precision import settled
from advser.plan.cells import Configuration, Corpus, Source, Speech, Victim, described, named
from advser.plugins.parameters import Parameters, build, explain, validated
from advser.plugins.registries import CORPORA, DEFENSES, METRICS, MODELS
from advser.results.schema import CLEAN
from advser.stages.fingerprints import fingerprints
from advser.stages.job import Job
from advser.suite.schema import AttackEntry, ModelEntry, PluginEntry, Suite
from advser.suite.training import Training
from advser.threat.model import Delivery
from advser.threat.objectives import ADAPTIVE


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
        "seed": 0 if is_speaker_independent(suite.protocol) else seed,
    }
    code = fingerprints("prepare", [f"corpora:{name}"])
    return Job("prepare", spec, {}, code, f"prepare {name} {suite.protocol}", {"directory": directory})


def inner_attacks(plugin: Parameters) -> tuple[str, ...]:
    """Return the names of the attacks that a plugin's fields refer to, alone or in tuples, and of those within them."""
    fields = [getattr(plugin, name) for name in type(plugin).model_fields]
    listed = [item for field in fields for item in (field if isinstance(field, tuple) else (field,))]
    references = [item for item in listed if isinstance(item, AttackReference)]
    return tuple(name for one in references for name in (one.name, *inner_attacks(one.build())))


def _refuse_features(victim: Victim, defense: Defense) -> None:
    """Raise InputError if training would perturb a spectrogram that the model does not have."""
    in_spectrogram = getattr(defense, "domain", None) == "spectrogram"
    if in_spectrogram and not victim.spectrogram:
        raise InputError(
            f"defense '{victim.defense.title}': domain: got 'spectrogram', expected with model "
            f"'{victim.model.title}', whose features are no spectrogram: waveform"
        )


def _refuse_descent(victim: Victim) -> None:
    """Raise InputError if a model without gradients is to be trained by a defense."""
    if not victim.differentiable and victim.defense.name != "none":
        raise InputError(
            f"model '{victim.model.title}': defense '{victim.defense.title}': got a defense, expected for a model "
            "without gradients: none (say 'defenses: [none]' in the model's entry)"
        )


def _objective(entry: AttackEntry, source: Source) -> str:
    """Return the loss that an attack ascends on a source.

    ``adaptive`` is cross-entropy on several surrogates, and where the defense has no loss of its own: said so, equal
    work is done once.
    """
    if entry.objective != ADAPTIVE:
        return entry.objective
    return ADAPTIVE if len(source) == 1 and adaptable_by(source[0].defense.name) else "cross-entropy"


def adaptable_by(defense: str) -> bool:
    """Tell whether a defense gives an attacker who knows it a loss of its own (`Defense.adaptive`)."""
    return DEFENSES.get(defense).adaptive is not Defense.adaptive


MEASURED = (ClipMetric, ModelMetric)
"""Metrics that have a value for each clip in a column of their own."""


def no_meaning(metric: type[Metric], columns: Mapping[str, Any], *, differentiable: bool) -> str:
    """Return why a metric has no meaning on a cell, as what it needs says; empty if it has one.

    Args:
        metric: the metric.
        columns: the cell's key columns.
        differentiable: whether the victim is.
    """
    clean = columns["attack"] == CLEAN
    heard = issubclass(metric, MEASURED) or bool({"audio", "transcripts"} & metric.needs)
    reasons = {
        "clean row": clean and "attack" in metric.needs,
        "not a transfer row": "source" in metric.needs and columns["access"] != "transfer",
        "tells of the model, not of an attack": not clean and "clean" in metric.needs,
        "features are no sound": heard and columns["delivery"] == "features",
        "the model has no gradient": issubclass(metric, ModelMetric) and not differentiable,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


@dataclass
class JobBook:
    """Collects the jobs of one run, each once, under its key; every method returns keys.

    Attributes:
        suite: the suite.
        corpus: the prepared corpus.
        speech: the transcriber.
        device: the torch device that models run on.
        jobs: key → job, each after those that it reads.
    """

    suite: Suite
    corpus: Corpus
    speech: Speech
    device: str
    jobs: dict[str, Job] = field(default_factory=dict)
    _trained: dict[tuple[int, str, str, str], str] = field(default_factory=dict)
    _fingerprints: dict[str, str] = field(default_factory=dict)
    _codes: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)

    def _code(self, stage: str, **plugins: Sequence[str]) -> dict[str, str]:
        """Return the fingerprints of a stage, of the plugins that a job of it runs, and of the packages that they use.

        They are found once for all jobs of a kind.
        """
        uses = tuple(f"{kind}:{name}" for kind, names in plugins.items() for name in names)
        if (stage, *uses) not in self._codes:
            self._codes[stage, *uses] = fingerprints(stage, uses)
        return self._codes[stage, *uses]

    def _add(self, job: Job) -> str:
        return self.jobs.setdefault(job.key, job).key

    def train(self, seed: int, fold: str, victim: Victim) -> str:
        """Return the key of a trained model."""
        place = (seed, fold, victim.model.title, victim.defense.title)
        if place not in self._trained:
            self._trained[place] = self._add(self._training_job(seed, fold, victim))
        return self._trained[place]

    def _training_job(self, seed: int, fold: str, victim: Victim) -> Job:
        model, defense = victim.model, victim.defense
        defense_class = DEFENSES.get(defense.name)
        defense_params = validated(defense_class, defense.params, f"defense '{defense.title}'")
        built = build(defense_class, defense_params, f"defense '{defense.title}'")
        _refuse_features(victim, built)
        _refuse_descent(victim)
        params = validated(MODELS.get(model.name), model.params, f"model '{model.title}'")
        # Before the model's files are hashed, which may fetch them: what is not installed is told at once.
        code = self._code("train", models=[model.name], defenses=[defense.name], attacks=inner_attacks(built))
        spec = {
            "model": {"name": model.name, "params": params, **self._contents(model.name, params)},
            "defense": {"name": defense.name, "params": defense_params},
            "training": self._training(model).model_dump(mode="json"),
            "fold": fold,
            "seed": seed,
            "device": torch.device(self.device).type,
        }
        title = f"train {model.title} / {defense.title}, {self._run(seed, fold)}"
        return Job("train", spec, {"prepared": self.corpus.prepared[seed]}, code, title)

    def _contents(self, name: str, params: dict[str, Any]) -> dict[str, str]:
        """Return the fingerprint of a model's files under ``contents``, if it has any; each is hashed once."""
        place = json.dumps([name, params], sort_keys=True)
        if place not in self._fingerprints:
            self._fingerprints[place] = MODELS.get(name).fingerprint(params)
        return {"contents": self._fingerprints[place]} if self._fingerprints[place] else {}

    def _training(self, model: ModelEntry) -> Training:
        merged = self.suite.training.model_dump() | model.training
        try:
            training = Training.model_validate(merged)
        except ValidationError as error:
            raise InputError(explain(error, f"models.{model.title}.training", Training)) from None
        return training.model_copy(update={"precision": settled(training.precision, self.device)})

    def craft(self, seed: int, fold: str, row: Configuration, source: Source) -> str:
        """Return the key of crafted examples; ``source`` is empty for blind attacks on sound."""
        spec = {
            "attack": {"name": row.entry.name, "params": row.params},
            "domain": row.domain,
            "labels": row.labels,
            "objective": _objective(row.entry, source),
            "precision": settled(self.suite.attack_precision, self.device) if row.attack.bf16 else "fp32",
            "batch_size": self.suite.batch_size,
            "fold": fold,
            # Clean clips are the same whatever is drawn: they are measured and transcribed once for all seeds.
            "seed": 0 if row.entry.name == CLEAN else seed,
            "device": torch.device(self.device).type,
            **({"contents": row.reading.digest} if row.reading else {}),
        }
        inputs = {"prepared": self.corpus.prepared[seed], **self._models(seed, fold, "source", source)}
        attacks = [row.entry.name, *inner_attacks(row.attack)]
        title = f"{described(row, source)}, {self._run(seed, fold, told=row.entry.name != CLEAN)}"
        if isinstance(row.attack, LearnedAttack):
            learn = Job("learn", spec, inputs, self._code("learn", attacks=attacks), f"learn {title}")
            inputs = {**inputs, "network": self._add(learn)}
        return self._add(Job("craft", spec, inputs, self._code("craft", attacks=attacks), f"craft {title}", row.local))

    def _models(self, seed: int, fold: str, role: str, models: Source) -> dict[str, str]:
        """Return role → key of trained models: ``role`` for the first, ``role.1`` and so on for the others."""
        keys = [self.train(seed, fold, victim) for victim in models]
        return {f"{role}.{number}" if number else role: key for number, key in enumerate(keys)}

    def predict(self, seed: int, fold: str, crafted: str, victim: Source, delivery: Delivery) -> str:
        """Return the key of a victim's logits on crafted examples; of several models the averaged ones."""
        device = torch.device(self.device).type
        spec = {"delivery": delivery, "batch_size": self.suite.batch_size, "fold": fold, "device": device}
        inputs = {
            "prepared": self.corpus.prepared[seed],
            "crafted": crafted,
            **self._models(seed, fold, "victim", victim),
        }
        title = f"judge {named(victim)} as {delivery} on {self._short(crafted, seed)}"
        return self._add(Job("predict", spec, inputs, self._code("predict"), title))

    def examine(self, fold: str, crafted: str, victim: Victim, columns: Mapping[str, Any]) -> dict[str, str]:
        """Return metric title → key of what each metric that asks the victim itself found in a cell."""
        seed, device = columns["seed"], torch.device(self.device).type
        found = {}
        for entry in self._meant(ModelMetric, columns, victim):
            params = validated(METRICS.get(entry.name), entry.params, f"metric '{entry.title}'")
            spec = {
                "metric": {"name": entry.name, "params": params},
                "batch_size": self.suite.batch_size,
                "fold": fold,
                "device": device,
            }
            inputs = {
                "prepared": self.corpus.prepared[seed],
                "crafted": crafted,
                "victim": self.train(seed, fold, victim),
            }
            title = f"measure {entry.title} of {named((victim,))} on {self._short(crafted, seed)}"
            code = self._code("examine", metrics=[entry.name])
            found[entry.title] = self._add(Job("examine", spec, inputs, code, title))
        return found

    def probe(self, seed: int, fold: str, victim: Victim) -> str:
        """Return the key of what a trained model tells an audit of itself."""
        spec = {
            "fold": fold,
            "fit_on": self._training(victim.model).fit_on,
            "device": torch.device(self.device).type,
        }
        inputs = {"prepared": self.corpus.prepared[seed], "victim": self.train(seed, fold, victim)}
        title = f"probe {named((victim,))}, {self._run(seed, fold)}"
        return self._add(Job("probe", spec, inputs, self._code("probe", models=[victim.model.name]), title))

    def measure(self, fold: str, crafted: str, victim: Victim, columns: Mapping[str, Any]) -> dict[str, str]:
        """Return metric title → key of what each clip metric measured in a cell."""
        inputs = {"prepared": self.corpus.prepared[columns["seed"]], "crafted": crafted}
        found = {}
        for entry in self._meant(ClipMetric, columns, victim):
            params = validated(METRICS.get(entry.name), entry.params, f"metric '{entry.title}'")
            spec = {"metric": {"name": entry.name, "params": params}, "fold": fold}
            title = f"measure {entry.title} of {self._short(crafted)}"
            code = self._code("measure", metrics=[entry.name])
            found[entry.title] = self._add(Job("measure", spec, inputs, code, title))
        return found

    def _meant(self, kind: type[Any], columns: Mapping[str, Any], victim: Victim) -> Iterator[PluginEntry]:
        """Yield the suite's metrics of a kind that have a meaning on a cell."""
        for entry in self.suite.metrics:
            metric = METRICS.get(entry.name)
            if issubclass(metric, kind) and not no_meaning(metric, columns, differentiable=victim.differentiable):
                yield entry

    def transcribe(self, seed: int, fold: str, crafted: str) -> str | None:
        """Return the key of the transcripts; None if no metric needs any, or no transcriber is there."""
        needed = any("transcripts" in METRICS.get(entry.name).needs for entry in self.suite.metrics)
        if self.speech.transcriber is None or not needed:
            return None
        engine = self.speech.transcriber
        params = engine.model_dump(mode="json", exclude=set(engine.places))
        spec = {
            "transcriber": {"name": self.speech.name, "params": params},
            "model": self.speech.model,
            "language": self.corpus.language,
            "fold": fold,
        }
        inputs = {"prepared": self.corpus.prepared[seed], "crafted": crafted}
        title = f"transcribe {self._short(crafted)}"
        code = self._code("transcribe", transcribers=[self.speech.name])
        local = engine.model_dump(mode="json", include=set(engine.places))
        return self._add(Job("transcribe", spec, inputs, code, title, local))

    def _run(self, seed: int, fold: str, *, told: bool = True) -> str:
        return f"fold {fold}" + (f", seed {seed}" if told and len(self.suite.seeds) > 1 else "")

    def _short(self, crafted: str, seed: int | None = None) -> str:
        """Return what was crafted, in words; of clean clips, which all seeds share, with the seed of who hears them."""
        title = self.jobs[crafted].title.removeprefix("craft ")
        shared = self.jobs[crafted].spec["attack"]["name"] == CLEAN and len(self.suite.seeds) > 1
        return f"{title}, seed {seed}" if shared and seed is not None else title
