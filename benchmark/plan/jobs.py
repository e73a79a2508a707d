"""The jobs of a suite: what decides the result of each, what it reads, and its title."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import ValidationError

from advser.attacks.learned import LearnedAttack
from advser.attacks.reference import references_within
from advser.corpora.protocols import is_speaker_independent
from advser.defenses.base import Defense
from advser.errors import InputError
from advser.metrics.base import ClipMetric, Metric, ModelMetric
from advser.models.precision import settled
from advser.plan.cells import Configuration, Corpus, Source, Speech, Victim, described, title_of
from advser.plan.named_files import specified
from advser.plan.trainable import refuse_descent, refuse_features
from advser.plugins.parameters import Parameters, build, explain, plain, validated
from advser.plugins.registries import ATTACKS, CORPORA, DEFENSES, METRICS, MODELS
from advser.results.schema import CLEAN
from advser.stages.fingerprints import fingerprints
from advser.stages.job import Job
from advser.stages.specs import (
    CraftSpec,
    ExamineSpec,
    LearnSpec,
    MeasureSpec,
    PluginSpec,
    PredictSpec,
    PrepareSpec,
    ProbeSpec,
    TrainSpec,
    TranscribeSpec,
)
from advser.suite.schema import AttackEntry, ModelEntry, Suite
from advser.suite.training import Training
from advser.threat.model import Delivery
from advser.threat.objectives import ADAPTIVE

MEASURED: Final = (ClipMetric, ModelMetric)
"""Metrics that have a value for each clip, in a column of their own."""


def prepare_job(suite: Suite, seed: int, directory: Path | None) -> Job:
    """Return the job that prepares the corpus; ``directory`` has its files (None: it is embedded)."""
    name = suite.corpus.name
    corpus = build(CORPORA.get(name), suite.corpus.params, f"corpus '{name}'")
    spec = PrepareSpec(
        corpus=PluginSpec(name=name, params=plain(corpus)),
        digest=corpus.digest(directory),
        task=suite.task,
        classes=suite.classes,
        protocol=suite.protocol,
        seed=0 if is_speaker_independent(suite.protocol) else seed,
    )
    code = fingerprints("prepare", [f"corpora:{name}"])
    return Job(spec, {}, code, f"prepare {name} {suite.protocol}", {"directory": directory})


def inner_attacks(plugin: Parameters) -> tuple[str, ...]:
    """Return the names of the attacks that a plugin's fields refer to, alone or in tuples, at any depth."""
    return tuple(reference.name for reference in references_within(plugin))


def adaptable_by(defense: str) -> bool:
    """Return whether a defense gives an attacker who knows it a loss of its own (`Defense.adaptive`)."""
    return DEFENSES.get(defense).adaptive is not Defense.adaptive


def no_meaning(metric: type[Metric], columns: Mapping[str, Any], *, differentiable: bool) -> str:
    """Return why a metric has no meaning on a cell, from what it needs; empty if it has one.

    Args:
        metric: the metric.
        columns: the cell's key columns.
        differentiable: whether the victim is.
    """
    clean = columns["attack"] == CLEAN
    needs_sound = issubclass(metric, MEASURED) or bool({"audio", "transcripts"} & metric.needs)
    reasons = {
        "clean row": clean and "attack" in metric.needs,
        "not a transfer row": "source" in metric.needs and columns["access"] != "transfer",
        "describes the model, not an attack": not clean and "clean" in metric.needs,
        "features are no sound": needs_sound and columns["delivery"] == "features",
        "the model has no gradient": issubclass(metric, ModelMetric) and not differentiable,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _objective(entry: AttackEntry, source: Source) -> str:
    """Return the loss that an attack ascends on a source.

    ``adaptive`` is cross-entropy on several surrogates, and for a defense without a loss of its own: equal work then
    has equal keys.
    """
    if entry.objective != ADAPTIVE:
        return entry.objective
    return ADAPTIVE if len(source) == 1 and adaptable_by(source[0].defense.name) else "cross-entropy"


@dataclass(frozen=True)
class _Recipe:
    """How a victim is trained, whatever the fold and the seed."""

    model: PluginSpec
    defense: PluginSpec
    training: Training
    code: Mapping[str, str]


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
    _recipes: dict[tuple[str, str], _Recipe] = field(default_factory=dict)
    _contents: dict[str, str] = field(default_factory=dict)
    _trained: dict[tuple[int, str, str, str], str] = field(default_factory=dict)
    _codes: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)

    @property
    def _device_type(self) -> str:
        return torch.device(self.device).type

    def _code(self, stage: str, **plugins: Sequence[str]) -> dict[str, str]:
        """Return the fingerprints of a stage, of the plugins that its job runs, and of the packages that they use."""
        uses = tuple(f"{kind}:{name}" for kind, names in plugins.items() for name in names)
        if (stage, *uses) not in self._codes:
            self._codes[stage, *uses] = fingerprints(stage, uses)
        return self._codes[stage, *uses]

    def _add(self, job: Job) -> str:
        return self.jobs.setdefault(job.key, job).key

    def train(self, seed: int, fold: str, victim: Victim) -> str:
        """Return the key of a trained model.

        Raises:
            InputError: if the model cannot be trained with the defense.
        """
        place = (seed, fold, victim.model.title, victim.defense.title)
        if place not in self._trained:
            recipe = self._recipe(victim)
            spec = TrainSpec(
                model=recipe.model,
                defense=recipe.defense,
                training=recipe.training,
                fold=fold,
                seed=seed,
                device=self._device_type,
            )
            title = f"train {title_of((victim,))}, {self._run(seed, fold)}"
            self._trained[place] = self._add(Job(spec, {"prepared": self.corpus.prepared[seed]}, recipe.code, title))
        return self._trained[place]

    def _recipe(self, victim: Victim) -> _Recipe:
        place = (victim.model.title, victim.defense.title)
        if place not in self._recipes:
            self._recipes[place] = self._new_recipe(victim)
        return self._recipes[place]

    def _new_recipe(self, victim: Victim) -> _Recipe:
        model, entry = victim.model, victim.defense
        defense = build(DEFENSES.get(entry.name), entry.params, f"defense '{entry.title}'")
        refuse_features(victim, defense)
        refuse_descent(victim, defense)
        params = validated(MODELS.get(model.name), model.params, f"model '{model.title}'")
        # Before the model's files are hashed, which may download them: a missing package is reported at once.
        code = self._code("train", models=[model.name], defenses=[entry.name], attacks=inner_attacks(defense))
        if model.title not in self._contents:
            self._contents[model.title] = MODELS.get(model.name).fingerprint(params)
        return _Recipe(
            specified(MODELS, model.name, params, self._contents[model.title]),
            specified(DEFENSES, entry.name, plain(defense)),
            self._training(model),
            code,
        )

    def _training(self, model: ModelEntry) -> Training:
        merged = self.suite.training.model_dump() | model.training
        try:
            training = Training.model_validate(merged)
        except ValidationError as error:
            raise InputError(explain(error, f"models.{model.title}.training", Training)) from None
        return training.model_copy(update={"precision": settled(training.precision, self.device)})

    def craft(self, seed: int, fold: str, row: Configuration, source: Source) -> str:
        """Return the key of perturbed clips; ``source`` is empty for blind attacks on sound."""
        spec = self._craft_spec(seed, fold, row, source)
        inputs = {"prepared": self.corpus.prepared[seed], **self._models(seed, fold, "source", source)}
        attacks = [row.entry.name, *inner_attacks(row.attack)]
        title = f"{described(row, source)}, {self._run(seed, fold, with_seed=row.entry.name != CLEAN)}"
        if isinstance(row.attack, LearnedAttack):
            learning = LearnSpec(**dict(spec))
            learn = Job(learning, inputs, self._code("learn", attacks=attacks), f"learn {title}")
            inputs = {**inputs, "network": self._add(learn)}
        return self._add(Job(spec, inputs, self._code("craft", attacks=attacks), f"craft {title}", row.local))

    def _craft_spec(self, seed: int, fold: str, row: Configuration, source: Source) -> CraftSpec:
        contents = row.reading.digest if row.reading else ""
        return CraftSpec(
            attack=specified(ATTACKS, row.entry.name, row.params),
            domain=row.domain,
            labels=row.labels,
            access=row.attack.access,
            objective=_objective(row.entry, source),
            precision=settled(self.suite.attack_precision, self.device) if row.attack.bf16 else "fp32",
            budget=row.budget,
            batch_size=self.suite.batch_size,
            fold=fold,
            # Clean clips are the same whatever is drawn: they are measured and transcribed once for all seeds.
            seed=0 if row.entry.name == CLEAN else seed,
            device=self._device_type,
            contents=contents,
        )

    def _models(self, seed: int, fold: str, role: str, models: Source) -> dict[str, str]:
        """Return role → key of trained models: ``role`` for the first, ``role.1`` and so on for the others."""
        keys = [self.train(seed, fold, victim) for victim in models]
        return {f"{role}.{number}" if number else role: key for number, key in enumerate(keys)}

    def predict(self, seed: int, fold: str, crafted: str, victim: Source, delivery: Delivery) -> str:
        """Return the key of a victim's logits on perturbed clips; of several models the averaged logits."""
        bounded = self.jobs[crafted].spec
        assert isinstance(bounded, CraftSpec)
        spec = PredictSpec(
            delivery=delivery,
            budget=bounded.budget if bounded.domain == "waveform" else None,
            batch_size=self.suite.batch_size,
            fold=fold,
            device=self._device_type,
        )
        inputs = {
            "prepared": self.corpus.prepared[seed],
            "crafted": crafted,
            **self._models(seed, fold, "victim", victim),
        }
        title = f"judge {title_of(victim)} as {delivery} on {self._short(crafted, seed)}"
        return self._add(Job(spec, inputs, self._code("predict"), title))

    def measure(self, fold: str, crafted: str, victim: Victim, columns: Mapping[str, Any]) -> dict[str, str]:
        """Return metric title → key of the values of each clip metric in a cell."""
        inputs = {"prepared": self.corpus.prepared[columns["seed"]], "crafted": crafted}
        keys = {}
        for title, metric in self._metrics_of(ClipMetric, columns, victim):
            spec = MeasureSpec(metric=metric, fold=fold)
            code = self._code("measure", metrics=[metric.name])
            keys[title] = self._add(Job(spec, inputs, code, f"measure {title} of {self._short(crafted)}"))
        return keys

    def examine(self, fold: str, crafted: str, victim: Victim, columns: Mapping[str, Any]) -> dict[str, str]:
        """Return metric title → key of the values of each metric that needs the victim, in a cell."""
        seed = columns["seed"]
        inputs = {"prepared": self.corpus.prepared[seed], "crafted": crafted}
        keys = {}
        for title, metric in self._metrics_of(ModelMetric, columns, victim):
            spec = ExamineSpec(metric=metric, batch_size=self.suite.batch_size, fold=fold, device=self._device_type)
            roles = {**inputs, "victim": self.train(seed, fold, victim)}
            code = self._code("examine", metrics=[metric.name])
            described_job = f"measure {title} of {title_of((victim,))} on {self._short(crafted, seed)}"
            keys[title] = self._add(Job(spec, roles, code, described_job))
        return keys

    @cached_property
    def _metrics(self) -> dict[str, PluginSpec]:
        """The suite's metrics by title, validated."""
        specs = {}
        for entry in self.suite.metrics:
            metric = build(METRICS.get(entry.name), entry.params, f"metric '{entry.title}'")
            specs[entry.title] = specified(METRICS, entry.name, plain(metric))
        return specs

    def _metrics_of(
        self, kind: type[Any], columns: Mapping[str, Any], victim: Victim
    ) -> Iterator[tuple[str, PluginSpec]]:
        """Yield title and specification of the metrics of a kind that have a meaning on a cell."""
        for title, spec in self._metrics.items():
            metric = METRICS.get(spec.name)
            if issubclass(metric, kind) and not no_meaning(metric, columns, differentiable=victim.differentiable):
                yield title, spec

    def probe(self, seed: int, fold: str, victim: Victim) -> str:
        """Return the key of the probes of a trained model."""
        spec = ProbeSpec(fold=fold, fit_on=self._recipe(victim).training.fit_on, device=self._device_type)
        inputs = {"prepared": self.corpus.prepared[seed], "victim": self.train(seed, fold, victim)}
        title = f"probe {title_of((victim,))}, {self._run(seed, fold)}"
        return self._add(Job(spec, inputs, self._code("probe", models=[victim.model.name]), title))

    def transcribe(self, seed: int, fold: str, crafted: str) -> str | None:
        """Return the key of the transcripts; None if no metric needs any, or there is no transcriber."""
        needed = any("transcripts" in METRICS.get(entry.name).needs for entry in self.suite.metrics)
        if self.speech.transcriber is None or not needed:
            return None
        engine = self.speech.transcriber
        places = set(engine.places)
        spec = TranscribeSpec(
            transcriber=PluginSpec(name=self.speech.name, params=engine.model_dump(mode="json", exclude=places)),
            model=self.speech.model,
            language=self.corpus.language,
            fold=fold,
        )
        inputs = {"prepared": self.corpus.prepared[seed], "crafted": crafted}
        code = self._code("transcribe", transcribers=[self.speech.name])
        local = engine.model_dump(mode="json", include=places)
        return self._add(Job(spec, inputs, code, f"transcribe {self._short(crafted)}", local))

    def _run(self, seed: int, fold: str, *, with_seed: bool = True) -> str:
        return f"fold {fold}" + (f", seed {seed}" if with_seed and len(self.suite.seeds) > 1 else "")

    def _short(self, crafted: str, seed: int | None = None) -> str:
        """Return the title of perturbed clips; of clean clips, which all seeds share, with the judging model's seed."""
        job = self.jobs[crafted]
        title = job.title.removeprefix("craft ")
        shared = isinstance(job.spec, CraftSpec) and job.spec.attack.name == CLEAN and len(self.suite.seeds) > 1
        return f"{title}, seed {seed}" if shared and seed is not None else title
