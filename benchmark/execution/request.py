"""What is asked of a run, before anything is planned; without torch, so that what is wrong with it is told at once."""

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
"""What ``--only`` can select by."""

PAGE = "index.html"
"""The last file of a results folder to be written."""


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        suite: a shipped suite's name or a YAML file.
        store: the artefact store's root.
        data: corpus name → folder.
        out: the results folder; None: ``results/<suite>``, or ``results/<suite>-cut`` if ``changes`` or ``only`` are
            given, so that a cut never takes the place of the whole.
        changes: ``--set`` texts, KEY=VALUE.
        only: column → glob.
        workers: where jobs run.
        external: folders of adversarial audio, each judged as an attack.
        joining: whether plugins that this process registered by decorator join the suite.

    Raises:
        InputError: if ``only`` names another column.
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

    def __post_init__(self) -> None:
        for key in self.only:
            if key not in FILTERS:
                raise InputError(
                    f"--only {key}: got '{key}', expected {', '.join(FILTERS)}{did_you_mean(key, FILTERS)}"
                )

    def folder(self, suite: Suite) -> Path:
        """Return where the results of the suite, which was read from ``self.suite``, are written."""
        cut = "-cut" if self.changes or self.only else ""
        return self.out or Path("results") / f"{suite.name}{cut}"

    def looks_finished(self, suite: Suite) -> bool:
        """Tell whether the suite's folder holds finished results, which may be of another state of things."""
        return (self.folder(suite) / PAGE).is_file()

    def ready_workers(self) -> None:
        """Have workers of this machine get ready; they do so while this process goes on."""
        if not self.workers.scheduler:
            forking.begin()
