"""The jobs of a suite: what each is called, what decides its result, and what it reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from advser.attacks.base import Attack
from advser.corpora.protocols import speaker_independent
from advser.defenses.base import AttackReference, Defense
from advser.errors import InputError
from advser.fingerprints import fingerprints
from advser.job import Job
from advser.metrics.base import ClipMetric
from advser.parameters import Parameters, build, explain, validated
from advser.plugins import CORPORA, DEFENSES, METRICS, MODELS
from advser.suite import AttackEntry, ModelEntry, PluginEntry, Suite
from advser.threat import Delivery, Domain, Labels, ThreatModel, unit_of
from advser.training import Training
from advser.transcribers.base import Transcriber


@dataclass(frozen=True)
class Corpus:
    """What planning knows of a prepared corpus: the key of the artefact by seed, the fold names, and the language."""

    prepared: Mapping[int, str]
    folds: tuple[str, ...]
    language: str


@dataclass(frozen=True)
class Speech:
    """The transcriber that a run uses, or the reason why there is none; ``model`` is its `Transcriber.fingerprint`."""

    transcriber: Transcriber | None
    name: str
    reason: str
    model: str = ""


@dataclass(frozen=True)
class Victim:
    """A model, trained with a defense; also the source of examples for others."""

    model: ModelEntry
    defense: PluginEntry

    @property
    def columns(self) -> dict[str, str]:
        """The key columns that name it as the victim."""
        return {"model": self.model.title, "defense": self.defense.title}

    @property
    def source_columns(self) -> dict[str, str]:
        """The key columns that name it as the source."""
        return {"source_model": self.model.title, "source_defense": self.defense.title}


@dataclass(frozen=True)
class Configuration:
    """One attack with its parameters, domain and labels."""

    entry: AttackEntry
    attack: Attack
    params: dict[str, Any]
    domain: Domain
    labels: Labels

    @property
    def blind(self) -> bool:
        """Whether the attack asks nothing of any model."""
        return self.attack.access == "blind"

    @property
    def deliveries(self) -> Sequence[Delivery]:
        """How what it makes is judged; sound is only heard."""
        return ["audio"] if self.domain == "waveform" else self.entry.delivery

    def columns(self, threat: ThreatModel) -> dict[str, Any]:
        """Return the key columns of a cell that it is judged in."""
        budget = self.attack.budget(self.domain)
        return {
            "attack": self.entry.title,
            "params": json.dumps(self.params, sort_keys=True),
            **asdict(threat),
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
    return Job("prepare", spec, {}, code, f"prepare {name} {suite.protocol}", {"directory": directory})


def _code(stage: str, packages: Sequence[str] = (), **plugins: Sequence[str]) -> dict[str, str]:
    """Return the fingerprints of a stage, of the plugins that a job of it runs, and of the packages that these use."""
    uses = [f"{kind}:{name}" for kind, names in plugins.items() for name in names]
    return fingerprints(stage, [*uses, *(f"package:{package}" for package in packages)])


def inner_attacks(plugin: Parameters) -> tuple[str, ...]:
    """Return the names of the attacks that a plugin's fields refer to, alone or in tuples, and of those within them."""
    fields = [getattr(plugin, name) for name in type(plugin).model_fields]
    listed = [item for field in fields for item in (field if isinstance(field, tuple) else (field,))]
    references = [item for item in listed if isinstance(item, AttackReference)]
    return tuple(name for one in references for name in (one.name, *inner_attacks(one.build())))


def _refuse_features(victim: Victim, defense: Defense) -> None:
    """Raise InputError if training would perturb a spectrogram that the model does not have."""
    in_spectrogram = getattr(defense, "domain", None) == "spectrogram" and inner_attacks(defense)
    if in_spectrogram and not MODELS.get(victim.model.name).spectrogram:
        raise InputError(
            f"defense '{victim.defense.title}': domain: found 'spectrogram', allowed with model "
            f"'{victim.model.title}', whose features are no spectrogram: waveform"
        )


def bf16_pays(device: str) -> bool:
    """Tell whether the processor of ``device`` computes in bfloat16 natively."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


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
        spec = {
            "model": {
                "name": model.name,
                "params": validated(MODELS.get(model.name), model.params, f"model '{model.title}'"),
            },
            "defense": {"name": defense.name, "params": defense_params},
            "training": self._training(model).model_dump(mode="json"),
            "fold": fold,
            "seed": seed,
            "device": torch.device(self.device).type,
        }
        code = _code("train", models=[model.name], defenses=[defense.name], attacks=inner_attacks(built))
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

    def craft(self, seed: int, fold: str, row: Configuration, source: Victim | None) -> str:
        """Return the key of crafted examples; ``source`` is None for blind attacks on sound."""
        spec = {
            "attack": {"name": row.entry.name, "params": row.params},
            "domain": row.domain,
            "labels": row.labels,
            "batch_size": self.suite.batch_size,
            "fold": fold,
            "seed": seed,
            "device": torch.device(self.device).type,
        }
        inputs = {"prepared": self.corpus.prepared[seed]}
        if source is not None:
            inputs["source"] = self.train(seed, fold, source)
        code = _code("craft", attacks=[row.entry.name, *inner_attacks(row.attack)])
        on = f" on {source.model.title} / {source.defense.title}" if source else ""
        epsilon = getattr(row.attack, "epsilon", None)
        size = "" if epsilon is None else f" ε={epsilon:g}"
        title = f"craft {row.entry.title}{size} {row.domain} {row.labels}{on}, fold {fold}"
        return self._add(Job("craft", spec, inputs, code, title))

    def predict(self, seed: int, fold: str, crafted: str, trained: str, victim: Victim, delivery: Delivery) -> str:
        """Return the key of a victim's logits on crafted examples."""
        device = torch.device(self.device).type
        spec = {"delivery": delivery, "batch_size": self.suite.batch_size, "fold": fold, "device": device}
        inputs = {"prepared": self.corpus.prepared[seed], "crafted": crafted, "victim": trained}
        title = f"judge {victim.model.title} / {victim.defense.title} on {self._short(crafted)}"
        return self._add(Job("predict", spec, inputs, _code("predict"), title))

    def measure(self, seed: int, fold: str, crafted: str) -> dict[str, str]:
        """Return metric title → key of what each clip metric measured."""
        inputs = {"prepared": self.corpus.prepared[seed], "crafted": crafted}
        found = {}
        for entry in self.suite.metrics:
            if issubclass(METRICS.get(entry.name), ClipMetric):
                params = validated(METRICS.get(entry.name), entry.params, f"metric '{entry.title}'")
                spec = {"metric": {"name": entry.name, "params": params}, "fold": fold}
                title = f"measure {entry.title} of {self._short(crafted)}"
                code = _code("measure", METRICS.get(entry.name).packages, metrics=[entry.name])
                found[entry.title] = self._add(Job("measure", spec, inputs, code, title))
        return found

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
        code = _code("transcribe", engine.packages, transcribers=[self.speech.name])
        local = engine.model_dump(mode="json", include=set(engine.places))
        return self._add(Job("transcribe", spec, inputs, code, title, local))

    def _short(self, crafted: str) -> str:
        return self.jobs[crafted].title.removeprefix("craft ")
