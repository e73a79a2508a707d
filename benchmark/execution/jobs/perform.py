"""The work of one job in the process that does it: which plugins it needs, and the call of its stage."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from advser.errors import ContractError
from advser.execution.jobs.confinement import confine
from advser.plugins.parameters import absolute_paths
from advser.plugins.registries import REGISTRIES
from advser.plugins.registry import load_plugin_file, source_files
from advser.stages import STAGES
from advser.stages.fingerprints import fingerprints
from advser.stages.job import Job, Task
from advser.store.artefacts import Artefact

MODELS: Final = ("victim", "source", "network")
"""Roles of inputs whose plugins a job runs: trained models, and the network of an attack."""

TEMPORARY: Final = ".temporary"
"""Folder for temporary files of a confined job, beside its results; it is removed."""


@dataclass(frozen=True)
class Work:
    """A job with what it reads and writes.

    Attributes:
        job: the job.
        inputs: role → artefact.
        into: the empty folder to write to.
        plugins: the plugin files of the run.
        device: a torch device.
    """

    job: Job
    inputs: Mapping[str, Artefact]
    into: Path
    plugins: Sequence[Path]
    device: str

    def needs_plugin_files(self) -> bool:
        """Return whether the job runs code that is neither AdvSER's nor registered in this process."""
        return any(not _is_here(name) for name in self._plugins())

    def _plugins(self) -> Iterator[str]:
        """Yield the plugins that run, as ``kind:name``: the job's, and those of the models that it loads."""
        models = [part for role, part in self.inputs.items() if role.partition(".")[0] in MODELS]
        for code in (self.job.code, *(part.manifest["job"]["code"] for part in models)):
            yield from (name for name in code if name.partition(":")[0] in REGISTRIES)

    def perform(
        self, admit_plugins: Callable[[], None] = lambda: None, admit_attack: Callable[[], None] | None = None
    ) -> None:
        """Call the stage; the functions are those of its `Task`."""
        module, _, name = STAGES[self.job.stage].partition(":")
        stage = getattr(importlib.import_module(module), name)
        job = self.job
        stage(Task(job.spec, self.inputs, self.into, self.device, job.local, admit_plugins, admit_attack))

    def check_code(self) -> None:
        """Raise ContractError if this process has other code than the planner."""
        job = self.job
        local = fingerprints(job.stage, [name for name in job.code if name != "stage"])
        if local != job.code:
            differing = ", ".join(sorted(name for name in job.code if local.get(name) != job.code[name]))
            raise ContractError(f"worker: got another version of {differing}, expected the same code on all workers")

    def perform_confined(self) -> None:
        """Call the stage with the plugin files, which can read only what the job needs, and write only its results.

        For a process of its own: the confinement stays.
        """
        temporary = self.into / TEMPORARY
        temporary.mkdir()
        os.environ["TMPDIR"] = str(temporary)
        readable = [*self._of_plugins(), *self._of_inputs()]
        if self._separates_attack():
            self.perform(admit_attack=lambda: self._admit([*self._of_plugins()]))
        else:
            self.perform(admit_plugins=lambda: self._admit(readable))

    def _separates_attack(self) -> bool:
        """Return whether the attack alone is foreign, and may not read its source: it gets a process of its own."""
        # Here and below, because the command line imports this module before it needs torch.
        from advser.stages.specs import CraftSpec

        spec = self.job.spec
        if not isinstance(spec, CraftSpec) or spec.access == "white-box" or "network" in self.inputs:
            return False
        return all(name.partition(":")[0] == "attacks" for name in self._plugins() if not _is_here(name))

    def _admit(self, readable: Iterable[Path]) -> None:
        from advser.stages.prepare import forget

        forget()
        writable = self.into / TEMPORARY if self._separates_attack() else self.into
        confine(readable, [writable], [plugin.resolve().parent for plugin in self.plugins])
        for plugin in self.plugins:
            load_plugin_file(plugin)
        self.check_code()

    def _of_plugins(self) -> Iterator[Path]:
        """Yield what the job's plugins may read: their modules, and what their parameters name."""
        for plugin in self.plugins:
            yield from source_files(plugin)
        yield from (Path(value) for value in self.job.local.values() if isinstance(value, str | Path) and value)
        yield from absolute_paths(self.job.spec.plain())

    def _of_inputs(self) -> Iterator[Path]:
        from advser.stages.prepare import AUDIO, META

        for role, artefact in self.inputs.items():
            # Labels and names of clips are not among what a plugin may read: it is given those that it needs.
            yield from (path for path in artefact.folder.iterdir() if role != "prepared" or path.name in (AUDIO, META))


def _is_here(name: str) -> bool:
    kind, _, plugin = name.partition(":")
    return REGISTRIES[kind].is_shipped(plugin) or plugin in REGISTRIES[kind].decorated()
