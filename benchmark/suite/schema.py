"""The suite schema: what a run combines, read from YAML."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from advser.models.terms import Domain, WantedPrecision
from advser.results.schema import CHANCE_BASELINES
from advser.suite.exhibits import Exhibit, name_of
from advser.suite.training import Training
from advser.threat.model import Delivery, Norm


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _labels(value: Any) -> Any:
    # YAML reads a bare `true` as a truth value.
    return ["true" if item is True else item for item in _listed(value)]


GivenLabels = Literal["true", "predicted", "soft"]
"""The labels that a suite can give to an attack. Blind attacks are given none, whatever the suite says."""

Objective = Literal["cross-entropy", "margin", "evasion", "adaptive"]
"""The loss that an attack ascends: `advser.threat.objectives.OBJECTIVES`, or the source defense's (`adaptive`)."""

Domains = Annotated[list[Domain], BeforeValidator(_listed), Field(min_length=1)]
Deliveries = Annotated[list[Delivery], BeforeValidator(_listed), Field(min_length=1)]
LabelSources = Annotated[list[GivenLabels], BeforeValidator(_labels), Field(min_length=1)]


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PluginEntry(_Schema):
    """A plugin and its parameters.

    Attributes:
        name: the plugin's name in its registry.
        label: how the boards call it; by default the name. Two entries of one plugin need two labels.
        params: its parameters.
    """

    name: str
    label: str = ""
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @property
    def title(self) -> str:
        """The label, or else the name."""
        return self.label or self.name


class ModelEntry(PluginEntry):
    """A model.

    Attributes:
        training: what its training changes against the suite's.
        defenses: the defenses that it is trained with; none: all of the suite.
    """

    training: dict[str, Any] = Field(default_factory=dict)
    defenses: Annotated[list[str], Field(min_length=1)] | None = None


class AttackEntry(PluginEntry):
    """An attack and where it runs; a parameter that is a list stands for one cell a value.

    Attributes:
        domain: what is perturbed.
        delivery: how a spectrogram attack is judged; ``features``, ``audio`` (re-synthesised) or both.
        labels: which labels the attack is given; ignored by blind attacks.
        objective: the loss that it ascends; ``evasion`` goes for the victim's detector of adversarial input too;
            ``adaptive`` is what the defense of the model that it is crafted on gives (`Defense.adaptive`).
        transfer: whether every other model of the suite is also attacked with the examples.
        surrogates: groups of models, each as ``MODEL`` or ``MODEL/DEFENSE``; the examples are also crafted on each
            group's averaged decision, and judged on the models outside of it. In the waveform domain.
    """

    domain: Domains = ["waveform"]
    delivery: Deliveries = ["audio"]
    labels: LabelSources = ["true"]
    objective: Objective = "cross-entropy"
    transfer: bool = False
    surrogates: list[Annotated[list[str], Field(min_length=1)]] = []


class WorstCase(_Schema):
    """A row for the worst of several attacks, clip by clip: a clip counts with the attack of the lowest margin.

    Attributes:
        name: how the boards call it.
        attacks: titles of the attacks; none: all, and controls within the budget. The clean cell is always among them.
        domain, delivery: of the cells that are taken together.
        epsilon: the largest budget of these cells; none: any.
        norm: of the budgets of these cells; cells without a budget have none.
        labels: which labels these cells were crafted with; none: any.
    """

    name: str = "worst-case"
    attacks: list[str] | None = None
    domain: Domain = "waveform"
    delivery: Delivery = "audio"
    epsilon: float | None = None
    norm: Norm = "linf"
    labels: LabelSources | None = None


class Newcomer(_Schema):
    """How an attack that a ``--plugin`` file brings joins the suite: ``epsilon`` in ``domain``."""

    domain: Domain
    epsilon: float = Field(gt=0)
    delivery: Deliveries = ["audio"]
    labels: LabelSources = ["true"]


INHERITED_NOT = ("parts", "exhibits")
"""Keys of a suite that are not those of each of its parts too."""


class Suite(_Schema):
    """What a run combines: every model × defense × attack on one corpus, or on each of several parts.

    Attributes:
        name: names the results folder.
        part: which part of the named suite this is; empty if it has none.
        title: heading of the boards.
        about: what a reader of the boards must know, in a sentence or two.
        corpus: the corpus.
        task: the column that is recognised.
        classes: the labels, in order; none: all that the corpus has.
        protocol: the split protocol.
        folds: names of the folds to run; none: all.
        seeds: one full run each.
        training: how models are trained; a model entry may override parts.
        models, defenses, attacks: what is combined. The clean cell is always there.
        newcomers: where attacks from ``--plugin`` files join.
        metrics: names of the metrics.
        transcriber: a speech recogniser; ``auto`` chooses, ``none`` leaves word error rates out; both without params.
        attack_precision: of the gradients that attacks take, if they are as strong with those of bf16 (`Attack.bf16`):
            ``fp32``; ``bf16`` (autocast); ``auto``: bf16 where the processor computes in it. Judged is in fp32 always.
        batch_size: clips crafted and judged at once.
        bootstrap: resamples for intervals.
        worst: rows for the worst of several attacks.
        noise: whether each budget that an attack has and no noise of the suite gets its noise
            (`advser.plan.noise_controls`).
        audit: whether trained models are probed too (`advser.stages.probe`); what the results tell is audited always.
        samples: how many clips of each fold's cells are written as sound, to look at and listen to.
        parts: name → what differs there from the keys above; the suite is then run once for each, and not as it is.
        exhibits: tables and figures beside the boards.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str = ""
    about: str = ""
    part: str = ""
    corpus: PluginEntry
    task: str = "emotion"
    classes: list[str] | None = None
    protocol: str
    folds: Annotated[list[str], Field(min_length=1)] | None = None
    seeds: list[int] = Field(default=[0], min_length=1)
    training: Training = Training()
    models: list[ModelEntry] = Field(min_length=1)
    defenses: list[PluginEntry] = Field(min_length=1)
    attacks: list[AttackEntry] = []
    newcomers: list[Newcomer] = []
    metrics: list[PluginEntry] = Field(min_length=1)
    transcriber: PluginEntry = PluginEntry(name="auto")
    attack_precision: WantedPrecision = "auto"
    batch_size: int = Field(32, ge=1)
    bootstrap: int = Field(2000, ge=1)
    worst: list[WorstCase] = []
    noise: bool = True
    audit: bool = True
    samples: int = Field(0, ge=0)
    parts: dict[str, Suite] = {}
    exhibits: list[Exhibit] = []

    @model_validator(mode="before")
    @classmethod
    def _parts_inherit(cls, data: Any) -> Any:
        if not (isinstance(data, dict) and isinstance(data.get("parts"), dict)):
            return data
        common = {key: value for key, value in data.items() if key not in INHERITED_NOT}
        return {**data, "parts": {name: _part(common, name, changes) for name, changes in data["parts"].items()}}

    @property
    def settings(self) -> list[Suite]:
        """The parts, or the suite itself if it has none: what is planned, run and scored."""
        return list(self.parts.values()) or [self]

    @model_validator(mode="after")
    def _exhibits_are_unique(self) -> Self:
        names = [name_of(exhibit) for exhibit in self.exhibits]
        for name in names:
            if names.count(name) > 1 or name in BOARD_NAMES:
                raise ValueError(f"exhibits: the name '{name}' is taken; each needs its own")
        return self

    @model_validator(mode="after")
    def _a_title_means_one_metric(self) -> Self:
        meant: dict[str, PluginEntry] = {}
        for entry in (entry for setting in self.settings for entry in setting.metrics):
            if meant.setdefault(entry.title, entry) != entry:
                raise ValueError(f"metrics: '{entry.title}' means two things in two parts; give one a label")
        return self

    @model_validator(mode="after")
    def _worst_cases_are_told_apart(self) -> Self:
        taken = {"none", *(attack.title for attack in self.attacks)}
        places = [worst.model_dump(exclude={"attacks"}) for worst in self.worst]
        for worst, place in zip(self.worst, places, strict=True):
            if worst.name in taken or places.count(place) > 1:
                raise ValueError(f"worst: '{worst.name}' is taken; each needs a name or a place of its own")
        return self

    @model_validator(mode="after")
    def _titles_are_unique(self) -> Self:
        for kind in ("models", "defenses", "metrics"):
            titles = [entry.title for entry in getattr(self, kind)]
            for title in titles:
                if titles.count(title) > 1:
                    raise ValueError(f"{kind}: '{title}' is listed twice; give one a label")
        if anchors := [model.title for model in self.models if model.title in CHANCE_BASELINES]:
            raise ValueError(f"models: '{anchors[0]}' is the name of an anchor; give it a label")
        defenses = [entry.title for entry in self.defenses]
        for model in self.models:
            for name in model.defenses or []:
                if name not in defenses:
                    raise ValueError(f"models.{model.title}.defenses: got '{name}', expected {', '.join(defenses)}")
        return self

    @model_validator(mode="after")
    def _values_are_unique(self) -> Self:
        for kind in ("classes", "folds", "seeds"):
            values = getattr(self, kind) or []
            for value in values:
                if values.count(value) > 1:
                    raise ValueError(f"{kind}: {value!r} is listed twice")
        return self

    @model_validator(mode="after")
    def _no_entry_stands_for_nothing(self) -> Self:
        for number, attack in enumerate(self.attacks):
            if "none" in (attack.name, attack.title):
                raise ValueError(f"attacks.{number}: got 'none', expected any other; the clean cell is always there")
            if self.noise and attack.title == "noise" != attack.name:
                raise ValueError(f"attacks.{number}.label: got 'noise', which every budget's noise is called")
        if self.transcriber.name in ("auto", "none") and self.transcriber.params:
            raise ValueError(
                f"transcriber.params: got {self.transcriber.params}, expected with '{self.transcriber.name}': none"
            )
        return self


BOARD_NAMES = ("leaderboard", "attacks", "defenses", "models", "transfer", "audit")
"""Names that exhibits cannot have, because boards have them."""


def _part(common: dict[str, Any], name: str, changes: Any) -> Any:
    """Return the data of a part: the suite's, with the changes; those of ``training`` key by key."""
    if isinstance(changes, Suite):
        return changes
    if not isinstance(changes, dict):
        raise ValueError(f"parts.{name}: got {changes!r}, expected a mapping of keys")
    # A suite that was written out, as in ``run.json``, has in each part what the part has anyway.
    own: dict[str, Any] = {"parts": {}, "exhibits": [], "name": common.get("name"), "part": name}
    if taken := [key for key, value in own.items() if changes.get(key, value) != value]:
        raise ValueError(f"parts.{name}: got {taken[0]}, expected any other key of a suite")
    training = {**_plain(common.get("training")), **_plain(changes.get("training"))}
    return {**common, **changes, "part": name, **({"training": training} if training else {})}


def _plain(training: Any) -> dict[str, Any]:
    return training.model_dump() if isinstance(training, Training) else training or {}
