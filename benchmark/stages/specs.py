"""What decides the result of each stage's jobs: one frozen, typed specification per stage.

A specification is plain data. It travels to workers, into the artefact's manifest and into the job's key, and seeds are
derived from it (`advser.stages.seeds`).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from advser.models.terms import Domain, Precision
from advser.suite.training import Training
from advser.threat.budget import Budget
from advser.threat.model import Access, Delivery, Labels

# Specifications are in every job's key as data.
__affects_results__ = False


class Spec(BaseModel):
    """Base of specifications.

    Attributes:
        stage: name of the stage, a key of `advser.stages.STAGES`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    stage: ClassVar[str]

    def plain(self) -> dict[str, Any]:
        """Return the specification as plain JSON data."""
        return self.model_dump(mode="json")


def _drop_empty_contents(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != "contents" or value}


class PluginSpec(BaseModel):
    """A plugin by its name and its complete parameters.

    Attributes:
        name: in its registry.
        params: as plain JSON data.
        contents: digest of the files that decide what the plugin computes; empty without files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    params: dict[str, Any]
    contents: str = ""

    @model_serializer(mode="wrap")
    def _without_empty_contents(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _drop_empty_contents(handler(self))


class PrepareSpec(Spec):
    """Specification of a prepared corpus.

    Attributes:
        corpus: the corpus.
        digest: of the corpus' files.
        task: what clips are labelled by.
        classes: the classes that are kept; None: all.
        protocol: how folds are made.
        seed: of the protocol; 0 for protocols that draw nothing.
    """

    stage: ClassVar[str] = "prepare"

    corpus: PluginSpec
    digest: str
    task: str
    classes: list[str] | None
    protocol: str
    seed: int


class TrainSpec(Spec):
    """Specification of a trained model.

    Attributes:
        model, defense: the plugins.
        training: how the model is trained; its precision is settled.
        fold: name of the fold.
        seed: of initial weights, order of clips, and what the defense draws.
        device: type of the torch device.
    """

    stage: ClassVar[str] = "train"

    model: PluginSpec
    defense: PluginSpec
    training: Training
    fold: str
    seed: int
    device: str = "cpu"


class CraftSpec(Spec):
    """Specification of perturbed clips.

    Attributes:
        attack: the attack.
        domain: what it perturbs.
        labels: the labels that it is given.
        access: what it may read of its source.
        objective: the loss that it ascends: a key of `advser.threat.objectives.OBJECTIVES`, or ``adaptive``.
        precision: of its gradients.
        budget: the bound that the harness enforces; None without one.
        batch_size: clips per batch.
        fold: name of the fold.
        seed: of what the attack draws.
        device: type of the torch device.
        contents: digest of the files that the attack reads; empty without any.
    """

    stage: ClassVar[str] = "craft"

    attack: PluginSpec
    domain: Domain
    labels: Labels
    access: Access
    objective: str
    precision: Precision
    budget: Budget | None
    batch_size: int
    fold: str
    seed: int
    device: str = "cpu"
    contents: str = ""

    @model_serializer(mode="wrap")
    def _without_empty_contents(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _drop_empty_contents(handler(self))


class LearnSpec(CraftSpec):
    """Specification of the trained network of a `LearnedAttack`."""

    stage: ClassVar[str] = "learn"


class PredictSpec(Spec):
    """Specification of a victim's logits.

    Attributes:
        delivery: whether the victim classifies the stored sound or the stored features.
        budget: the bound on the stored sound, which is checked again; None without one.
        batch_size: clips per batch.
        fold: name of the fold.
        device: type of the torch device.
    """

    stage: ClassVar[str] = "predict"

    delivery: Delivery
    budget: Budget | None = None
    batch_size: int
    fold: str
    device: str = "cpu"


class MeasureSpec(Spec):
    """Specification of a metric that compares perturbed with clean sound: the metric, and the name of the fold."""

    stage: ClassVar[str] = "measure"

    metric: PluginSpec
    fold: str


class TranscribeSpec(Spec):
    """Specification of transcripts.

    Attributes:
        transcriber: the recogniser.
        model: the recogniser's fingerprint.
        language: ISO 639-1.
        fold: name of the fold.
    """

    stage: ClassVar[str] = "transcribe"

    transcriber: PluginSpec
    model: str
    language: str
    fold: str


class ExamineSpec(Spec):
    """Specification of a metric that needs the victim."""

    stage: ClassVar[str] = "examine"

    metric: PluginSpec
    batch_size: int
    fold: str
    device: str = "cpu"


class ProbeSpec(Spec):
    """Specification of the probes of a trained model; ``fit_on`` names the clips that it was fitted on."""

    stage: ClassVar[str] = "probe"

    fold: str
    fit_on: str
    device: str = "cpu"


class TrainedModel(BaseModel):
    """What stored weights belong to: the plugins that made them, and the number of classes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: PluginSpec
    defense: PluginSpec
    classes: int
