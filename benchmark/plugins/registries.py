"""The six registries, one per kind of plugin. Importing this module imports no plugin."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from advser.errors import InputError
from advser.plugins.registry import Registry, load_plugin_file, plugin_names

if TYPE_CHECKING:
    from advser.attacks.base import Attack
    from advser.corpora.base import Corpus
    from advser.defenses.base import Defense
    from advser.metrics.base import Metric
    from advser.metrics.transcribers.base import Transcriber
    from advser.models.base import EmotionModel

__affects_results__ = False

MODELS: Final[Registry[EmotionModel]] = Registry("model", "advser.models", "advser.models.base:EmotionModel")
ATTACKS: Final[Registry[Attack]] = Registry("attack", "advser.attacks", "advser.attacks.base:Attack")
DEFENSES: Final[Registry[Defense]] = Registry("defense", "advser.defenses", "advser.defenses.base:Defense")
CORPORA: Final[Registry[Corpus]] = Registry("corpus", "advser.corpora", "advser.corpora.base:Corpus")
METRICS: Final[Registry[Metric]] = Registry("metric", "advser.metrics", "advser.metrics.base:Metric")
TRANSCRIBERS: Final[Registry[Transcriber]] = Registry(
    "transcriber", "advser.transcribers", "advser.metrics.transcribers.base:Transcriber"
)

REGISTRIES: Final[dict[str, Registry[Any]]] = {
    "models": MODELS,
    "attacks": ATTACKS,
    "defenses": DEFENSES,
    "corpora": CORPORA,
    "metrics": METRICS,
    "transcribers": TRANSCRIBERS,
}

BY_KIND: Final[dict[str, Registry[Any]]] = {registry.kind: registry for registry in REGISTRIES.values()}
"""Kind in the singular → registry: ``attack`` → the attacks."""


def load_plugin_files(paths: Iterable[Path]) -> None:
    """Import plugin files (`advser.plugins.registry.load_plugin_file`).

    Raises:
        InputError: if a file cannot be imported, or registers no plugin that is defined in it or beside it.
    """
    for path in paths:
        if not plugin_names(load_plugin_file(path), REGISTRIES.values()):
            raise InputError(
                f"plugin file {path}: got no plugin defined in it or beside it, "
                "expected a class or function under a decorator such as @advser.attack"
            )
