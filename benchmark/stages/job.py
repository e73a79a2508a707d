"""A job: one call of a stage, and the key of the artefact that it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from advser.store.artefacts import Artefact
from advser.store.digests import digest

if TYPE_CHECKING:
    # Specifications hold budgets, and these import torch.
    from advser.stages.specs import Spec

__affects_results__ = False

S = TypeVar("S", bound="Spec", covariant=True)


@dataclass(frozen=True)
class Job:
    """One piece of work, described so completely that equal keys mean equal results.

    Attributes:
        spec: the stage, and all that decides its result.
        inputs: role → key of the artefacts that it reads.
        code: name → fingerprint of the stage's and the plugins' code.
        title: for people.
        local: paths on this machine (the corpus folder, a recogniser's model). They do not affect the key: ``spec`` has
            the digests of the files' contents.
    """

    spec: Spec
    inputs: Mapping[str, str]
    code: Mapping[str, str]
    title: str
    local: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        """Name of the stage that does the job."""
        return self.spec.stage

    @cached_property
    def key(self) -> str:
        """The artefact's key: a hash of stage, specification, inputs and code."""
        return digest(self._parts)

    @property
    def _parts(self) -> dict[str, Any]:
        return {"stage": self.stage, "spec": self.spec.plain(), "inputs": self.inputs, "code": self.code}

    def record(self) -> dict[str, Any]:
        """Return what the artefact's manifest records of the job."""
        return {"job": self._parts, "title": self.title}


@dataclass(frozen=True)
class Task(Generic[S]):
    """What a stage gets: a job's specification, the artefacts that it reads, and where and with what to work.

    Attributes:
        spec: as in `Job`.
        inputs: role → artefact.
        into: the empty folder to write to.
        device: a torch device.
        local: as in `Job`.
        admit_plugins: loads the job's plugin files; a stage calls it before it uses a plugin, and after it has read
            what no plugin may see. From then on the process can read little else (`advser.execution.jobs.confinement`).
        admit_attack: as `admit_plugins`, for a process that has no model; None: the attack runs in this process.
    """

    spec: S
    inputs: Mapping[str, Artefact]
    into: Path
    device: str = "cpu"
    local: Mapping[str, Any] = field(default_factory=dict)
    admit_plugins: Callable[[], None] = lambda: None
    admit_attack: Callable[[], None] | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        key: the job's key.
        status: ``ok``; ``not-applicable`` if it has no meaning on its inputs, which the store keeps too; or ``failed``.
        reason: why it is not ok, in one line.
        trace: the traceback, for the run's record; empty for errors that AdvSER raises on purpose.
        seconds: wall time.
    """

    key: str
    status: Literal["ok", "failed", "not-applicable"]
    reason: str = ""
    trace: str = ""
    seconds: float = 0.0
