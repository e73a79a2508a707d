"""The suite schema: what a run combines, read from YAML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from advser.errors import InputError
from advser.parameters import explain
from advser.threat import Delivery, Domain
from advser.training import Training


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _labels(value: Any) -> Any:
    # YAML reads a bare `true` as a truth value.
    return ["true" if item is True else item for item in _listed(value)]


GivenLabels = Literal["true", "predicted", "soft"]
"""The labels that a suite can give to an attack. Blind attacks are given none, whatever the suite says."""

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
        transfer: whether every other model of the suite is also attacked with the examples.
    """

    domain: Domains = ["waveform"]
    delivery: Deliveries = ["audio"]
    labels: LabelSources = ["true"]
    transfer: bool = False


class Newcomer(_Schema):
    """How an attack that a ``--plugin`` file brings joins the suite: ``epsilon`` in ``domain``."""

    domain: Domain
    epsilon: float = Field(gt=0)
    delivery: Deliveries = ["audio"]
    labels: LabelSources = ["true"]


class Suite(_Schema):
    """What a run combines: every model × defense × attack on one corpus.

    Attributes:
        name: names the results folder.
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
        batch_size: clips crafted and judged at once.
        bootstrap: resamples for intervals.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str = ""
    about: str = ""
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
    batch_size: int = Field(32, ge=1)
    bootstrap: int = Field(2000, ge=1)

    @model_validator(mode="after")
    def _titles_are_unique(self) -> Self:
        for kind in ("models", "defenses", "metrics"):
            titles = [entry.title for entry in getattr(self, kind)]
            for title in titles:
                if titles.count(title) > 1:
                    raise ValueError(f"{kind}: '{title}' is listed twice; give one a label")
        defenses = [entry.title for entry in self.defenses]
        for model in self.models:
            for name in model.defenses or []:
                if name not in defenses:
                    raise ValueError(f"models.{model.title}.defenses: found '{name}', allowed: {', '.join(defenses)}")
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
                raise ValueError(f"attacks.{number}: found 'none', allowed: any other; the clean cell is always there")
        if self.transcriber.name in ("auto", "none") and self.transcriber.params:
            raise ValueError(
                f"transcriber.params: found {self.transcriber.params}, allowed with '{self.transcriber.name}': none"
            )
        return self


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads 1e-3 as a number, as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def shipped() -> list[str]:
    """Return the names of the suites that come with AdvSER."""
    folder = resources.files("advser.suites")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load(name: str, changes: Sequence[str] = ()) -> Suite:
    """Read a suite and apply ``--set`` changes.

    Args:
        name: a shipped suite's name, or the path of a YAML file.
        changes: texts ``key.path=value``; a list's entry is meant by its number, label or name, and values are YAML.

    Raises:
        InputError: if it is missing, is no YAML, or does not fit the schema.
    """
    where, text = _text(name)
    try:
        data = yaml.load(text, _Loader)  # noqa: S506 (a safe loader)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise InputError(f"{where}: found {type(data).__name__}, allowed: a mapping of keys")
    for change in changes:
        _apply(data, change)
    try:
        return Suite.model_validate(data)
    except ValidationError as error:
        raise InputError(explain(error, where, Suite)) from None


def source(name: str) -> str:
    """Return the YAML text of a shipped suite, or of a file.

    Raises:
        InputError: if it is missing or unreadable.
    """
    return _text(name)[1]


def _text(name: str) -> tuple[str, str]:
    if name in shipped():
        return f"suite {name}", (resources.files("advser.suites") / f"{name}.yaml").read_text(encoding="utf-8")
    path = Path(name)
    if not path.is_file():
        raise InputError(f"suite '{name}': neither a file nor a shipped suite (shipped: {', '.join(shipped())})")
    try:
        return f"suite {path}", path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"suite {path}: unreadable: {error}") from None


def _apply(data: dict[str, Any], change: str) -> None:
    path, equals, text = change.partition("=")
    if not equals or not path:
        raise InputError(f"--set {change}: found no '=', allowed: KEY=VALUE, e.g. training.iterations=100")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 (a safe loader)
    except yaml.YAMLError:
        raise InputError(f"--set {change}: the value is not YAML") from None
    *parents, last = path.split(".")
    place: Any = data
    for depth, part in enumerate(parents):
        place = _child(place, parents[:depth], part, change)
    if isinstance(place, list):
        place[_position(place, parents, last, change)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise InputError(f"--set {change}: '{last}' has no keys above it to stand in")


def _child(place: Any, above: Sequence[str], part: str, change: str) -> Any:
    if isinstance(place, list):
        index = _position(place, above, part, change)
        if isinstance(place[index], str):
            place[index] = {"name": place[index]}
        return place[index]
    if isinstance(place, dict):
        return place.setdefault(part, {})
    raise InputError(f"--set {change}: '{part}' has no keys above it to stand in")


def _position(entries: list[Any], above: Sequence[str], part: str, change: str) -> int:
    names = [
        str(entry.get("label") or entry.get("name")) if isinstance(entry, dict) else str(entry) for entry in entries
    ]
    if part.isdigit() and int(part) < len(entries):
        return int(part)
    if names.count(part) > 1:
        allowed = [".".join([*above, str(index)]) for index, name in enumerate(names) if name == part]
        raise InputError(f"--set {change}: '{part}' is listed {len(allowed)} times, allowed: {', '.join(allowed)}")
    if part in names:
        return names.index(part)
    raise InputError(f"--set {change}: no entry '{part}' (found: {', '.join(names) or 'none'})")
