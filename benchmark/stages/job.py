"""A job: one call of a stage, and the key of the artefact that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from advser.store.artefacts import Artefact
from advser.store.digests import digest

__affects_results__ = False


@dataclass(frozen=True)
class Job:
    """One piece of work, described so completely that equal keys mean equal results.

    Attributes:
        stage: name of the stage that does it.
        spec: everything that decides the result, as plain JSON data.
        inputs: role → key of the artefacts that it reads.
        code: name → fingerprint of the stage's and the plugins' code.
        title: for people.
        local: where things are on this machine (the corpus folder, a recogniser's model); not part of the key, since
            ``spec`` has the digests of their contents.
    """

    stage: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, str]
    code: Mapping[str, str]
    title: str
    local: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """The artefact's key: a hash of stage, spec, inputs and code."""
        return digest({"stage": self.stage, "spec": self.spec, "inputs": self.inputs, "code": self.code})

    def record(self) -> dict[str, Any]:
        """Return what the artefact's manifest tells of the job."""
        parts = {"stage": self.stage, "spec": self.spec, "inputs": self.inputs, "code": self.code}
        return {"job": parts, "title": self.title}


@dataclass(frozen=True)
class Task:
    """What a stage gets: the job's spec, the artefacts that it reads, and where and with what to work.

    Attributes:
        spec: as in `Job`.
        inputs: role → artefact.
        into: the empty folder to write to.
        device: a torch device.
        local: as in `Job`.
    """

    spec: Mapping[str, Any]
    inputs: Mapping[str, Artefact]
    into: Path
    device: str = "cpu"
    local: Mapping[str, Any] = field(default_factory=dict)


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
