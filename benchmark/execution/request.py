"""The request for a run, before anything is planned. Without torch, so that bad options are reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from advser.errors import InputError, did_you_mean
from advser.execution import forkserver as forking
from advser.execution.cluster import Workers
from advser.suite.schema import Suite

FILTERS = (
    "part", "seed", "fold", "model", "defense", "attack", "domain", "delivery", "labels", "access", "source_model",
    "source_defense",
)  # fmt: skip
"""Columns that ``--only`` can select by."""

PAGE = "index.html"
"""The last file that is written to a results folder."""


@dataclass(frozen=True)
class Request:
    """The options of a run.

    Attributes:
        suite: a shipped suite's name or a YAML file.
        store: the artefact store's root.
        data: corpus name → folder.
        out: the results folder; None: ``results/<suite>``, or ``results/<suite>-cut`` if ``changes`` or ``only`` are
            given, so that a cut never overwrites the whole.
        changes: ``--set`` texts, KEY=VALUE.
        only: column → glob.
        workers: where jobs run.
        external: folders of adversarial audio, each evaluated as an attack.
        joining: whether plugins that this process registered by decorator join the suite.
        drawn_by: digest of the code that draws the boards (`advser.leaderboards.write.fingerprint`): finished results
            are read again only if their boards were drawn by the same code. Empty: the caller draws none.

    Raises:
        InputError: if ``only`` has a key that is not in `FILTERS`.
    """

    suite: str
    store: Path
    data: Mapping[str, Path] = field(default_factory=dict)
    out: Path | None = None
    changes: Sequence[str] = ()
    only: Mapping[str, str] = field(default_factory=dict)
    workers: Workers = field(default_factory=Workers)
    external: Sequence[Path] = ()
    joining: bool = True
    drawn_by: str = ""

    def __post_init__(self) -> None:
        for key in self.only:
            if key not in FILTERS:
                raise InputError(
                    f"--only {key}: got '{key}', expected {', '.join(FILTERS)}{did_you_mean(key, FILTERS)}"
                )

    def folder(self, suite: Suite) -> Path:
        """Return the results folder of the suite that was read from ``self.suite``."""
        cut = "-cut" if self.changes or self.only else ""
        return self.out or Path("results") / f"{suite.name}{cut}"

    def looks_finished(self, suite: Suite) -> bool:
        """Return whether the suite's folder holds finished results, possibly of an older state."""
        return (self.folder(suite) / PAGE).is_file()

    def ready_workers(self) -> None:
        """Start to prepare local workers, in the background."""
        if not self.workers.scheduler:
            forking.begin()
