"""Files that parameters of plugins name: their contents count into the keys of jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from advser.errors import InputError
from advser.plugins.parameters import absolute_paths
from advser.plugins.registry import Registry
from advser.stages.specs import PluginSpec
from advser.store.digests import contents_digest, digest


def specified(registry: Registry[Any], name: str, params: Mapping[str, Any], contents: str = "") -> PluginSpec:
    """Return the specification of a plugin.

    The contents of files and folders that parameters name by an absolute path count, unless AdvSER ships the plugin:
    its own plugins say themselves what they read. A plugin can read no other file when its jobs run
    (`advser.execution.jobs.confinement`).

    Args:
        registry: of the plugin.
        name: its name there.
        params: its complete parameters, as plain data.
        contents: digest of what it says itself that it reads.

    Raises:
        InputError: if such a file cannot be read.
    """
    if not registry.is_shipped(name):
        parts = [contents, *_digests(params, f"{registry.kind} '{name}'")]
        contents = digest(parts) if len(parts) > 1 else contents
    return PluginSpec(name=name, params=dict(params), contents=contents)


def _digests(params: Mapping[str, Any], where: str) -> Iterator[str]:
    for path in absolute_paths(params):
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        try:
            yield contents_digest(files, path) if path.exists() else ""
        except OSError as error:
            raise InputError(f"{where}: {path}: cannot be read ({error.strerror}), expected a readable file") from None
