"""Plugins that join a suite: those registered by decorator in this process, and folders of adversarial audio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from advser.errors import InputError
from advser.plugins.parameters import explain
from advser.plugins.registries import ATTACKS, BY_KIND, DEFENSES, METRICS, MODELS
from advser.plugins.registry import Registry
from advser.plugins.roles import field_with_role
from advser.suite.schema import AttackEntry, ModelEntry, PluginEntry, Suite, WorstCase


def is_added(kind: str, name: str) -> bool:
    """Return whether a plugin of a kind (``"attack"``, …) was registered by decorator in this process."""
    return kind in BY_KIND and name in BY_KIND[kind].decorated()


def with_added_plugins(suite: Suite, folders: Sequence[Path] = ()) -> Suite:
    """Return the suite with the registered plugins that it does not name yet; its ``newcomers`` place the attacks.

    Args:
        suite: the suite.
        folders: of adversarial audio; each joins as an attack ``external`` with the folder's name.

    Raises:
        InputError: if the suite has no place for an attack, or already has a label of that name.
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


def is_with_added_plugins(suite: Suite, original: Suite) -> bool:
    """Return whether a suite is another one with plugins that AdvSER does not ship, where that has `newcomers`.

    No plugin is imported.
    """
    if suite.parts.keys() != original.parts.keys():
        return False
    pairs = [(suite.parts[name], original.parts[name]) for name in suite.parts] or [(suite, original)]
    return all(_without_added(part).has_same_settings(other) and _in_places(part, other) for part, other in pairs)


def _without_added(suite: Suite) -> Suite:
    return suite.model_copy(
        update={
            f"{registry.kind}s": [entry for entry in getattr(suite, f"{registry.kind}s") if _ships(registry, entry)]
            for registry in (ATTACKS, DEFENSES, METRICS, MODELS)
        }
    )


def _ships(registry: Registry[Any], entry: PluginEntry) -> bool:
    return registry.is_shipped(entry.name)


def _in_places(suite: Suite, original: Suite) -> bool:
    """Return whether each added attack runs as `newcomers` say; its budget is whatever parameter has that value."""
    places = [(place.domain, place.delivery, place.epsilon) for place in original.newcomers]
    added = [entry for entry in suite.attacks if not _ships(ATTACKS, entry)]
    return all(
        (domain, entry.delivery, epsilon) in places
        for entry in added
        for domain in entry.domain
        for epsilon in entry.params.values() or [place[2] for place in places[:1]]
    )


def _new(registry: Registry[Any], entries: Sequence[PluginEntry]) -> list[str]:
    named = {entry.name for entry in entries}
    return [name for name in registry.decorated() if name not in named]


def _audio(suite: Suite, folder: Path) -> list[AttackEntry]:
    label = folder.resolve().name
    own = {*(entry.title for entry in suite.attacks), *(worst.name for worst in suite.worst)}
    if label in {"none", "noise", WorstCase().name, *own}:
        raise InputError(
            f"--external {folder}: got the name '{label}', which is a row of suite '{suite.name}', "
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
            params={budget: place.epsilon} if (budget := field_with_role(plugin, "budget")) else {},
            domain=[place.domain],
            delivery=place.delivery,
            labels=["true"] if plugin.places else place.labels,
        )
        for place in places
    ]
    # To an attack without a budget, places that differ in their budget only are the same place.
    return [entry for number, entry in enumerate(entries) if entry not in entries[:number]]
