"""A run in a process of its own, for code that nobody has read.

The whole run is confined, and its caller loads none of that code. The module is the program of the new process;
`run_contained` starts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from advser.errors import AdvserError, InputError


@dataclass(frozen=True)
class ContainedRun:
    """The options of a contained run, all of them plain data.

    Attributes:
        suite: a YAML file.
        plugins: the plugin files.
        store: the artefact store's root.
        out: the results folder.
        data: corpus name → folder.
        only: column → glob.
        count, scheduler, device: as in `advser.execution.cluster.Workers`.
    """

    suite: str
    plugins: Sequence[str]
    store: str
    out: str
    data: Mapping[str, str]
    only: Mapping[str, str]
    count: int
    scheduler: str
    device: str


def run_contained(options: ContainedRun) -> int:
    """Do a run in a new process, and return the number of jobs that it did; its output goes to standard error.

    Raises:
        InputError: if the run was refused, or its process ended before it was complete.
    """
    with TemporaryDirectory(prefix="advser-run-") as temporary:
        folder = Path(temporary)
        request = {"options": asdict(options), "temporary": temporary}
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        environment = {**os.environ, "PYTHONSAFEPATH": "1", "TMPDIR": temporary, "MPLCONFIGDIR": temporary}
        command = [sys.executable, "-m", __spec__.name, str(folder / "request.json")]
        ended = subprocess.run(command, env=environment, stdout=sys.__stderr__, check=False)  # noqa: S603
        verdict = _verdict(folder / "verdict.json")
    if "error" in verdict:
        raise InputError(str(verdict["error"]))
    if type(verdict.get("computed")) is not int:
        raise InputError(f"the run: its process ended (exit code {ended.returncode}), expected a complete run")
    return int(verdict["computed"])


def _verdict(path: Path) -> dict[str, Any]:
    """Return what the process wrote at its end; empty if it wrote none."""
    try:
        verdict = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return verdict if isinstance(verdict, dict) else {}


def _run(options: ContainedRun, temporary: Path) -> int:
    from huggingface_hub.constants import HF_HUB_CACHE
    from platformdirs import user_cache_path
    from rich.console import Console

    from advser.execution.cluster import Workers
    from advser.execution.execute import carry_out
    from advser.execution.jobs.confinement import confine
    from advser.execution.prepare import prepare
    from advser.execution.request import Request
    from advser.plugins.registry import load_plugin_file

    writable = [Path(options.store), Path(options.out)]
    for folder in writable:
        folder.mkdir(parents=True, exist_ok=True)
    plugins = tuple(map(Path, options.plugins))
    code = [plugin.parent for plugin in plugins]
    data = {name: Path(folder) for name, folder in options.data.items()}
    downloads = [Path(HF_HUB_CACHE), user_cache_path("advser")]
    confine([Path(options.suite), *code, *data.values(), *downloads], [*writable, temporary])
    for plugin in plugins:
        load_plugin_file(plugin)
    workers = Workers(options.count, options.scheduler, options.device, plugins)
    request = Request(options.suite, writable[0], data, writable[1], (), options.only, workers, joining=False)
    request.ready_workers()
    return carry_out(request, prepare(request), Console(stderr=True)).computed


def main() -> None:
    """Do the run of a request, and write the verdict beside it."""
    path = Path(sys.argv[1])
    request = json.loads(path.read_text(encoding="utf-8"))
    try:
        verdict: dict[str, Any] = {"computed": _run(ContainedRun(**request["options"]), Path(request["temporary"]))}
    except AdvserError as error:
        verdict = {"error": " ".join(str(error).split())}
    path.with_name("verdict.json").write_text(json.dumps(verdict), encoding="utf-8")


if __name__ == "__main__":
    main()
