"""What a cell is made of: a corpus, a victim, an attack's configuration, the source that it is crafted on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from advser.attacks.base import Attack, Reading
from advser.metrics.transcribers.base import Transcriber
from advser.models.terms import Domain
from advser.plugins.registries import MODELS
from advser.results.schema import value_text
from advser.stages.job import Job
from advser.suite.schema import AttackEntry, ModelEntry, PluginEntry, Suite
from advser.threat.model import Delivery, Labels, ThreatModel


@dataclass(frozen=True)
class Corpus:
    """What planning knows of a prepared corpus.

    Attributes:
        prepared: the key of the artefact by seed.
        folds: their names.
        language: ISO 639-1.
        clips: the name of each clip, with its samples at 16 kHz.
    """

    prepared: Mapping[int, str]
    folds: tuple[str, ...]
    language: str
    clips: Mapping[str, int] = field(default_factory=dict)


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
    def differentiable(self) -> bool:
        """Whether a white-box attack can be crafted on it."""
        return MODELS.get(self.model.name).differentiable

    @property
    def spectrogram(self) -> bool:
        """Whether it has features that an attack in the spectrogram domain can perturb."""
        return MODELS.get(self.model.name).spectrogram


Source = tuple[Victim, ...]
"""What examples are crafted on: one victim, several (an ensemble of surrogates), or nothing (blind sound)."""


def source_columns(source: Source) -> dict[str, str]:
    """Return the key columns that name a source; of several, the models and their defenses are joined by `` + ``."""
    models = [victim.model.title for victim in source]
    defenses = [victim.defense.title for victim in source]
    return {"source_model": " + ".join(models), "source_defense": " + ".join(defenses)}


@dataclass(frozen=True)
class Configuration:
    """One attack with its parameters, domain and labels.

    Attributes:
        entry: what the suite says.
        attack: the plugin.
        params: its parameters, complete, less those that say where files are (`Attack.places`).
        domain, labels: as a cell has them.
        local: where files are.
        reading: what is in them; None if the attack reads none.
    """

    entry: AttackEntry
    attack: Attack
    params: dict[str, Any]
    domain: Domain
    labels: Labels
    local: dict[str, Any] = field(default_factory=dict)
    reading: Reading | None = None

    @property
    def blind(self) -> bool:
        """Whether the attack asks nothing of any model."""
        return self.attack.access == "blind"

    @property
    def deliveries(self) -> Sequence[Delivery]:
        """How what it makes is judged; sound is only heard."""
        return ["audio"] if self.domain == "waveform" else self.entry.delivery

    @property
    def text(self) -> str:
        """The parameters as the results have them, the objective if it is not the usual one, and what files hold."""
        objective = self.entry.objective
        further: dict[str, str] = {} if objective == "cross-entropy" else {"objective": objective}
        further |= {"contents": self.reading.digest[:12]} if self.reading else {}
        return json.dumps({**self.params, **further}, sort_keys=True)

    def columns(self, threat: ThreatModel) -> dict[str, Any]:
        """Return the key columns of a cell that it is judged in."""
        # Of what the harness holds it to, whatever a plugin says of itself.
        budget = Attack.budget(self.attack, self.domain)
        return {
            "attack": self.entry.title,
            "params": self.text,
            **asdict(threat),
            "norm": budget.norm if budget else "",
            "epsilon": budget.epsilon if budget else None,
            "epsilon_unit": budget.unit if budget else "",
        }


def named(models: Source) -> str:
    """Return for people what models there are: each with its defense."""
    return " + ".join(f"{victim.model.title} / {victim.defense.title}" for victim in models)


def described(row: Configuration, source: Source) -> str:
    """Return for people what is crafted, and on what."""
    on = f" on {named(source)}" if source else ""
    plain = {name: value for name, value in row.params.items() if not isinstance(value, (dict, list))}
    told = {"ε" if name == "epsilon" else name: value for name, value in plain.items() if _told(row.entry, name)}
    told |= {} if row.entry.objective == "cross-entropy" else {"objective": row.entry.objective}
    given = "".join(f" {name}={value_text(value)}" for name, value in told.items())
    labels = "" if row.blind else f" {row.labels} labels"
    return f"{row.entry.title}{given} {row.domain}{labels}{on}"


def _told(entry: AttackEntry, parameter: str) -> bool:
    """Tell whether a title names a parameter: what the suite sets, and the budget."""
    return parameter == "epsilon" or parameter in entry.params


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
    examined: Mapping[str, str]
    transcribed: str | None
    clean_transcribed: str | None


@dataclass(frozen=True)
class Cell:
    """One row of the results: its key columns, and what each fold is scored from."""

    columns: Mapping[str, Any]
    folds: tuple[FoldKeys, ...]


@dataclass(frozen=True)
class Probe:
    """What a trained model tells an audit of itself: the key columns that name it, and the artefact's key."""

    columns: Mapping[str, Any]
    key: str


@dataclass(frozen=True)
class Plan:
    """A suite worked out.

    Attributes:
        suite: the suite.
        jobs: by key, each after those that it reads.
        cells: what the results will have figures of.
        probes: the trained models that an audit asks.
        notes: what was asked for and is left out, in sentences.
        attacks: title of each attack, those that the suite does not list (`advser.plan.noise_controls`) included, with
            its plugin.
    """

    suite: Suite
    jobs: Mapping[str, Job]
    cells: tuple[Cell, ...]
    probes: tuple[Probe, ...] = ()
    notes: tuple[str, ...] = ()
    attacks: Mapping[str, type[Attack]] = field(default_factory=dict)
