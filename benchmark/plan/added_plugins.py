"""Plugins that this process registered by decorator, and folders of adversarial audio, join the suite that is run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from advser.errors import InputError
from advser.plugins.parameters import explain
from advser.plugins.registries import ATTACKS, BY_KIND, DEFENSES, METRICS, MODELS
from advser.plugins.registry import Registry
from advser.suite.schema import AttackEntry, ModelEntry, PluginEntry, Suite, WorstCase


def is_newcomer(kind: str, name: str) -> bool:
    """Tell whether a plugin of a kind (``"attack"``, …) was registered by decorator in this process."""
    return kind in BY_KIND and name in BY_KIND[kind].decorated()


def with_newcomers(suite: Suite, folders: Sequence[Path] = ()) -> Suite:
    """Add the registered plugins that the suite does not name yet: attacks where its ``newcomers`` say.

    Args:
        suite: the suite.
        folders: of adversarial audio; each joins as an attack ``external`` that is called as the folder.

    Raises:
        InputError: if there is an attack and the suite has no place for it, or if a name is a label of the suite's.
    """
    models = [ModelEntry(name=name) for name in _new(MODELS, suite.models)]
    defenses = [PluginEntry(name=name) for name in _new(DEFENSES, suite.defenses)]
    metrics = [PluginEntry(name=name) for name in _new(METRICS, suite.metrics)]
    attacks = [entry for name in _new(ATTACKS, suite.attacks) for entry in _places(suite, name)]
    attacks += [entry for folder in folders for entry in _audio(suite, folder)]
    joined = {
        **suite.model_dump(),
        "models": suite.models + models,
        "defenses": suite.defenses + defenses,
        "metrics": suite.metrics + metrics,
        "attacks": suite.attacks + attacks,
    }
    try:
        return Suite.model_validate(joined)
    except ValidationError as error:
        raise InputError(explain(error, f"suite '{suite.name}' with the plugins that joined it", Suite)) from None


def _new(registry: Registry[Any], entries: Sequence[PluginEntry]) -> list[str]:
    named = {entry.name for entry in entries}
    return [name for name in registry.decorated() if name not in named]


def _audio(suite: Suite, folder: Path) -> list[AttackEntry]:
    label = folder.resolve().name
    own = {*(entry.title for entry in suite.attacks), *(worst.name for worst in suite.worst)}
    if label in {"none", "noise", WorstCase().name, *own}:
        raise InputError(
            f"--external {folder}: got the name '{label}', which a row of suite '{suite.name}' has, "
            "expected a folder of another name"
        )
    return [
        entry.model_copy(update={"label": label, "params": {**entry.params, "folder": str(folder)}})
        for entry in _places(suite, "external")
    ]


def _places(suite: Suite, name: str) -> list[AttackEntry]:
    plugin = ATTACKS.get(name)
    places = [place for place in suite.newcomers if place.domain in plugin.domains]
    if not places:
        raise InputError(
            f"suite '{suite.name}' has no 'newcomers' for attack '{name}' ({' or '.join(plugin.domains)}): "
            "list the attack in the suite, or give the suite a place for newcomers"
        )
    entries = [
        AttackEntry(
            name=name,
            params={"epsilon": place.epsilon} if "epsilon" in plugin.model_fields else {},
            domain=[place.domain],
            delivery=place.delivery,
            labels=["true"] if plugin.places else place.labels,
        )
        for place in places
    ]
    # Places that differ in their budget only are one place to an attack without a budget.
    return [entry for number, entry in enumerate(entries) if entry not in entries[:number]]
