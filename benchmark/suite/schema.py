"""The schema of a suite, which a run reads from YAML."""

from __future__ import annotations

import reprlib
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from advser.models.terms import Domain, WantedPrecision
from advser.results.terms import CHANCE_BASELINES
from advser.suite.exhibits import Exhibit, name_of
from advser.suite.texts import MAXIMAL_NAME, Label, Name, Prose, Title, file_part
from advser.suite.training import Training
from advser.threat.model import Delivery, Norm


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _labels(value: Any) -> Any:
    # YAML reads a bare `true` as a Boolean.
    return ["true" if item is True else item for item in _listed(value)]


GivenLabels = Literal["true", "predicted", "soft"]
"""Labels that a suite can give to an attack. Blind attacks never get labels."""

Objective = Literal["cross-entropy", "margin", "evasion", "adaptive"]
"""The loss that an attack ascends: `advser.threat.objectives.OBJECTIVES`, or the source defense's own (`adaptive`)."""

Domains = Annotated[list[Domain], BeforeValidator(_listed), Field(min_length=1)]
Deliveries = Annotated[list[Delivery], BeforeValidator(_listed), Field(min_length=1)]
LabelSources = Annotated[list[GivenLabels], BeforeValidator(_labels), Field(min_length=1)]


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PluginEntry(_Schema):
    """A plugin and its parameters.

    Attributes:
        name: the plugin's name in its registry.
        label: its name on the boards; by default ``name``. Two entries of one plugin need two labels.
        params: its parameters.
    """

    name: Name
    label: Label = ""
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @property
    def title(self) -> str:
        """The label or, without a label, the name."""
        return self.label or self.name


class ModelEntry(PluginEntry):
    """A model.

    Attributes:
        training: changes to the suite's training settings.
        defenses: the defenses that it is trained with; none: all defenses of the suite.
    """

    training: dict[str, Any] = Field(default_factory=dict)
    defenses: Annotated[list[str], Field(min_length=1)] | None = None


class AttackEntry(PluginEntry):
    """An attack and its settings. A parameter with a list of values gives one cell per value.

    Attributes:
        domain: the perturbed domain.
        delivery: the delivery of a spectrogram attack: ``features``, ``audio`` (re-synthesised) or both.
        labels: the labels that the attack gets; blind attacks ignore them.
        objective: the loss that it ascends; ``evasion`` also attacks the victim's detector of adversarial input;
            ``adaptive`` is the loss of the surrogate's defense (`Defense.adaptive`).
        transfer: whether the examples are also evaluated on every other model of the suite.
        surrogates: groups of models, each as ``MODEL`` or ``MODEL/DEFENSE``; the examples are also crafted on the
            averaged decision of each group, and evaluated on the models outside it. Only in the waveform domain.
    """

    domain: Domains = ["waveform"]
    delivery: Deliveries = ["audio"]
    labels: LabelSources = ["true"]
    objective: Objective = "cross-entropy"
    transfer: bool = False
    surrogates: list[Annotated[list[str], Field(min_length=1)]] = []


class WorstCase(_Schema):
    """A row for the worst of several attacks, clip by clip: the attack with the lowest margin counts.

    Attributes:
        name: its name on the boards.
        attacks: titles of the attacks; none: all, and controls within the budget. The clean cell is always included.
        domain, delivery: domain and delivery of the cells.
        epsilon: the largest budget of the cells; none: any.
        norm: norm of the cells' budgets; cells without a budget have no norm.
        labels: labels that the cells were crafted with; none: any.
    """

    name: Name = "worst-case"
    attacks: list[str] | None = None
    domain: Domain = "waveform"
    delivery: Delivery = "audio"
    epsilon: Annotated[float, Field(ge=0)] | None = None
    norm: Norm = "linf"
    labels: LabelSources | None = None


class Newcomer(_Schema):
    """The settings of an attack from a ``--plugin`` file when it joins the suite: ``epsilon`` in ``domain``."""

    domain: Domain
    epsilon: float = Field(gt=0)
    delivery: Deliveries = ["audio"]
    labels: LabelSources = ["true"]


NOT_INHERITED = ("parts", "exhibits")
"""Keys of a suite that its parts do not inherit."""


class Suite(_Schema):
    """The settings of a run: every model × defense × attack on a corpus, possibly in several parts.

    Attributes:
        name: name of the suite and its results folder.
        part: name of the part; empty if the suite has no parts.
        title: heading of the boards.
        about: note for readers of the boards, in a sentence or two.
        corpus: the corpus.
        task: the column with the labels.
        classes: the labels, in order; none: all labels of the corpus.
        protocol: the split protocol.
        folds: names of the folds to run; none: all.
        seeds: the seeds, each for a full run.
        training: training settings, which a model entry may override.
        models, defenses, attacks: the entries to combine. The clean cell is always included.
        newcomers: settings for attacks from ``--plugin`` files.
        metrics: names of the metrics.
        transcriber: a speech recogniser; ``auto`` selects one, ``none`` leaves out word error rates; both without
            params.
        attack_precision: precision of the gradients of attacks that are as strong in bf16 (`Attack.bf16`): ``fp32``;
            ``bf16`` (autocast); ``auto``: bf16 on processors that compute in it. Examples are evaluated in fp32.
        batch_size: clips that are crafted and evaluated at once.
        bootstrap: resamples for intervals.
        worst: rows for the worst of several attacks.
        noise: whether to add noise at each budget of an attack at which the suite has none
            (`advser.plan.noise_controls`).
        audit: whether to probe trained models (`advser.stages.probes.probe`); the results are always audited.
        timeout: seconds that a job may take.
        samples: number of clips of each fold and cell that are written as sound.
        parts: name → changes to the keys above; the suite is then run once for each part, and not by itself.
        exhibits: tables and figures beside the boards.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=MAXIMAL_NAME)
    title: Title = ""
    about: Prose = ""
    part: Label = ""
    corpus: PluginEntry
    task: Name = "emotion"
    classes: list[Name] | None = None
    protocol: Name
    folds: Annotated[list[str], Field(min_length=1)] | None = None
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(default=[0], min_length=1)
    training: Training = Training()
    models: list[ModelEntry] = Field(min_length=1)
    defenses: list[PluginEntry] = Field(min_length=1)
    attacks: list[AttackEntry] = []
    newcomers: list[Newcomer] = []
    metrics: list[PluginEntry] = Field(min_length=1)
    transcriber: PluginEntry = PluginEntry(name="auto")
    attack_precision: WantedPrecision = "auto"
    batch_size: int = Field(32, ge=1, le=65_536)
    bootstrap: int = Field(2000, ge=1, le=100_000)
    worst: list[WorstCase] = []
    noise: bool = True
    audit: bool = True
    timeout: float = Field(14_400, gt=0, le=31_536_000)
    samples: int = Field(0, ge=0, le=1_000_000)
    parts: dict[Name, Suite] = {}
    exhibits: list[Exhibit] = []

    @model_validator(mode="before")
    @classmethod
    def _parts_inherit(cls, data: Any) -> Any:
        if not (isinstance(data, dict) and isinstance(data.get("parts"), dict)):
            return data
        common = {key: value for key, value in data.items() if key not in NOT_INHERITED}
        return {**data, "parts": {name: _part(common, name, changes) for name, changes in data["parts"].items()}}

    @property
    def settings(self) -> list[Suite]:
        """The parts to run, or the suite itself if it has no parts."""
        return list(self.parts.values()) or [self]

    @model_validator(mode="after")
    def _parts_have_files_of_their_own(self) -> Self:
        by_file: dict[str, str] = {}
        for name in self.parts:
            if (other := by_file.setdefault(file_part(name).lower(), name)) != name:
                raise ValueError(f"parts: got '{other}' and '{name}', whose files have one name, expected other names")
        return self

    @model_validator(mode="after")
    def _exhibits_are_unique(self) -> Self:
        names = [name_of(exhibit) for exhibit in self.exhibits]
        for name in names:
            if names.count(name) > 1 or name in BOARD_NAMES:
                raise ValueError(f"exhibits: the name '{name}' is taken, expected a unique name")
        return self

    @model_validator(mode="after")
    def _a_title_means_one_metric(self) -> Self:
        by_title: dict[str, PluginEntry] = {}
        for entry in (entry for setting in self.settings for entry in setting.metrics):
            if by_title.setdefault(entry.title, entry) != entry:
                raise ValueError(f"metrics: '{entry.title}' is two metrics in two parts, expected a label for one")
        return self

    @model_validator(mode="after")
    def _worst_cases_differ(self) -> Self:
        taken = {"none", *(attack.title for attack in self.attacks)}
        places = [worst.model_dump(exclude={"attacks"}) for worst in self.worst]
        for worst, place in zip(self.worst, places, strict=True):
            if worst.name in taken or places.count(place) > 1:
                raise ValueError(f"worst: '{worst.name}' is taken, expected a unique name or unique settings")
        return self

    @model_validator(mode="after")
    def _titles_are_unique(self) -> Self:
        for kind in ("models", "defenses", "metrics"):
            titles = [entry.title for entry in getattr(self, kind)]
            for title in titles:
                if titles.count(title) > 1:
                    raise ValueError(f"{kind}: '{title}' is listed twice, expected a label for one")
        if taken := [model.title for model in self.models if model.title in CHANCE_BASELINES]:
            raise ValueError(f"models: '{taken[0]}' is the name of a chance baseline, expected a label for the model")
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
                    raise ValueError(f"{kind}: {value!r} is listed twice, expected each once")
        return self

    @model_validator(mode="after")
    def _names_are_not_reserved(self) -> Self:
        for number, attack in enumerate(self.attacks):
            if "none" in (attack.name, attack.title):
                raise ValueError(f"attacks.{number}: got 'none', expected an attack; the clean cell is always included")
            if self.noise and attack.title == "noise" != attack.name:
                raise ValueError(f"attacks.{number}.label: got 'noise', the name of a control, expected another name")
        if self.transcriber.name in ("auto", "none") and self.transcriber.params:
            raise ValueError(
                f"transcriber.params: got {self.transcriber.params}, expected none with '{self.transcriber.name}'"
            )
        return self

    def has_same_settings(self, other: Suite) -> bool:
        """Return whether two suites differ at most in prose: titles, descriptions and notes."""
        return bool(_without_prose(self.model_dump()) == _without_prose(other.model_dump()))


PROSE = frozenset({"about", "title", "notes"})
"""Keys of a suite and its exhibits whose text changes no figure."""


def _without_prose(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_prose(value) for key, value in data.items() if key not in PROSE}
    return [_without_prose(item) for item in data] if isinstance(data, list) else data


BOARD_NAMES = ("leaderboard", "attacks", "defenses", "models", "transfer", "audit")
"""Names of boards, which exhibits cannot have."""


def _part(common: dict[str, Any], name: str, changes: Any) -> Any:
    """Return the data of a part: the suite's with the changes, merged key by key in ``training``."""
    if isinstance(changes, Suite):
        return changes
    if not isinstance(changes, dict):
        raise ValueError(f"parts.{name}: got {changes!r}, expected a mapping of keys")
    # A suite from ``run.json`` has these keys in each part, with these values.
    fixed: dict[str, Any] = {"parts": {}, "exhibits": [], "name": common.get("name"), "part": name}
    if changed := [key for key, value in fixed.items() if changes.get(key, value) != value]:
        raise ValueError(f"parts.{name}: got {changed[0]}, expected any other key of a suite")
    training = {**_plain(common.get("training")), **_plain(changes.get("training"))}
    return {**common, **changes, "part": name, **({"training": training} if training else {})}


def _plain(training: Any) -> dict[str, Any]:
    if isinstance(training, Training):
        return training.model_dump()
    if training is not None and not isinstance(training, dict):
        raise ValueError(f"training: got {reprlib.repr(training)}, expected a mapping of keys")
    return training or {}
