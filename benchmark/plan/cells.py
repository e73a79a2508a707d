"""What a plan consists of: corpora, victims, configurations of attacks, sources, cells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from advser.attacks.base import Attack, Reading
from advser.attacks.reference import references_within
from advser.metrics.transcribers.base import Transcriber
from advser.models.terms import Domain
from advser.plugins.registries import MODELS
from advser.plugins.roles import Role, field_with_role, roles
from advser.results.schema import value_text
from advser.stages.job import Job
from advser.suite.schema import AttackEntry, ModelEntry, PluginEntry, Suite
from advser.threat.budget import Budget
from advser.threat.model import Delivery, Labels, ThreatModel


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus, as the planner needs it.

    Attributes:
        prepared: seed → key of the artefact.
        folds: names of the folds.
        language: ISO 639-1.
        clips: the name of each clip, with its number of samples at 16 kHz.
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
    """A model trained with a defense; it may also be the source of examples for other victims."""

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
"""The models that examples are crafted on: one victim, several (an ensemble of surrogates), or none (blind sound)."""


def source_columns(source: Source) -> dict[str, str]:
    """Return the key columns that name a source; of several, the models and their defenses are joined by `` + ``."""
    models = [victim.model.title for victim in source]
    defenses = [victim.defense.title for victim in source]
    return {"source_model": " + ".join(models), "source_defense": " + ".join(defenses)}


@dataclass(frozen=True)
class AttackFacts:
    """The facts about an attack that the audit needs.

    Attributes:
        attack: the plugin, validated.
        params: its parameters as the results have them.
        inner: the attacks that it refers to, at any depth.
    """

    attack: Attack
    params: Mapping[str, Any]
    inner: tuple[Attack, ...] = ()

    @classmethod
    def of(cls, attack: Attack, params: Mapping[str, Any]) -> AttackFacts:
        """Return the facts about an attack with parameters as the results have them."""
        return cls(attack, params, tuple(reference.build() for reference in references_within(attack)))

    @property
    def steps(self) -> int:
        """The declared gradient steps, or the largest number among the attacks within; 1 without any."""
        return max(_declared_steps(attack) or 1 for attack in (self.attack, *self.inner))

    @property
    def roles(self) -> Mapping[str, Role]:
        """The role of each parameter that has one, those of the attacks within included."""
        return {name: role for attack in (self.attack, *self.inner) for name, role in roles(type(attack)).items()}

    def is_iterative(self, *, several_passes: bool) -> bool:
        """Return whether the attack takes several gradient steps.

        Args:
            several_passes: whether it took more than one white-box backward pass for a clip.
        """
        if len(self.inner) > 1:
            return True
        if len(self.inner) == 1:
            # The attack around it may repeat backward passes without a further step, as EOT does.
            return _may_take_steps(self.inner[0])
        return _may_take_steps(self.attack) or several_passes


def _declared_steps(attack: Attack) -> int | None:
    """Return the value of the parameter that is the number of gradient steps; None if the attack has none."""
    name = field_with_role(type(attack), "steps")
    return None if name is None else int(getattr(attack, name))


def _may_take_steps(attack: Attack) -> bool:
    """Return whether an attack declares more than one step, or nothing about its steps."""
    return not attack.single_step and _declared_steps(attack) not in (0, 1)


@dataclass(frozen=True)
class Configuration:
    """One attack with its parameters, domain and labels.

    Attributes:
        entry: the suite's entry.
        attack: the plugin, validated.
        params: its complete parameters as plain data, without paths of files (`Attack.places`).
        domain, labels: key columns of its cells.
        budget: the bound that the harness enforces; None without one.
        local: the paths of files.
        reading: the contents of the files; None for an attack that reads none.
    """

    entry: AttackEntry
    attack: Attack
    params: dict[str, Any]
    domain: Domain
    labels: Labels
    budget: Budget | None
    local: dict[str, Any] = field(default_factory=dict)
    reading: Reading | None = None

    @property
    def blind(self) -> bool:
        """Whether the attack reads nothing of any model."""
        return self.attack.access == "blind"

    @property
    def deliveries(self) -> Sequence[Delivery]:
        """How its examples are judged; waveforms only as sound."""
        return ["audio"] if self.domain == "waveform" else self.entry.delivery

    @property
    def text(self) -> str:
        """The results' column ``params``: the JSON text of `facts`' parameters."""
        return json.dumps(self.facts.params, sort_keys=True)

    @property
    def facts(self) -> AttackFacts:
        """The facts that the audit needs: parameters, with an unusual objective and the digest of files."""
        objective = self.entry.objective
        further: dict[str, str] = {} if objective == "cross-entropy" else {"objective": objective}
        further |= {"contents": self.reading.digest[:12]} if self.reading else {}
        return AttackFacts.of(self.attack, {**self.params, **further})

    def columns(self, threat: ThreatModel) -> dict[str, Any]:
        """Return the key columns of a cell under a threat model."""
        return {
            "attack": self.entry.title,
            "params": self.text,
            **asdict(threat),
            "norm": self.budget.norm if self.budget else "",
            "epsilon": self.budget.epsilon if self.budget else None,
            "epsilon_unit": self.budget.unit if self.budget else "",
        }


def title_of(models: Source) -> str:
    """Return the title of trained models: each with its defense."""
    return " + ".join(f"{victim.model.title} / {victim.defense.title}" for victim in models)


def described(row: Configuration, source: Source) -> str:
    """Return the title of perturbed clips: the attack with the parameters that the suite sets, and its source."""
    on = f" on {title_of(source)}" if source else ""
    epsilon = field_with_role(type(row.attack), "budget")
    shown = {
        "ε" if name == epsilon else name: value
        for name, value in row.params.items()
        if not isinstance(value, (dict, list)) and (name == epsilon or name in row.entry.params)
    }
    shown |= {} if row.entry.objective == "cross-entropy" else {"objective": row.entry.objective}
    settings = "".join(f" {name}={value_text(value)}" for name, value in shown.items())
    labels = "" if row.blind else f" {row.labels} labels"
    return f"{row.entry.title}{settings} {row.domain}{labels}{on}"


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
    """The probes of a trained model: the key columns that name it, and the artefact's key."""

    columns: Mapping[str, Any]
    key: str


@dataclass(frozen=True)
class Plan:
    """The cells and jobs of a suite.

    Attributes:
        suite: the suite.
        jobs: by key, each after those that it reads.
        cells: the rows of the results.
        probes: of the trained models that the audit probes.
        notes: sentences about what is left out.
        attacks: title and ``params`` of each attack → its facts, noise controls included.
    """

    suite: Suite
    jobs: Mapping[str, Job]
    cells: tuple[Cell, ...]
    probes: tuple[Probe, ...] = ()
    notes: tuple[str, ...] = ()
    attacks: Mapping[tuple[str, str], AttackFacts] = field(default_factory=dict)
