"""From a suite's entries to configurations: each attack with one choice of parameters, domain and labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from advser.attacks.base import Attack, declared_budget
from advser.errors import InputError
from advser.metrics.base import ClipMetric
from advser.models.terms import Domain
from advser.plan.cells import Configuration
from advser.plugins.parameters import build, plain, takes_sequence
from advser.plugins.registries import ATTACKS, DEFENSES, METRICS, MODELS
from advser.plugins.registry import Registry
from advser.plugins.roles import field_with_role
from advser.results.schema import EXAMPLES_SCHEMA
from advser.suite.schema import AttackEntry, PluginEntry, Suite
from advser.threat.model import Labels


def configurations(entry: AttackEntry, clips: Mapping[str, int]) -> list[Configuration]:
    """Return the configurations of an entry.

    Args:
        entry: the suite's entry.
        clips: the name of each clip of the corpus, with its number of samples at 16 kHz.

    Raises:
        InputError: if the attack does not run as the entry says.
    """
    plugin = ATTACKS.get(entry.name)
    where = f"attack '{entry.title}'"
    if problem := plugin.declaration_error():
        raise InputError(f"{where}: {problem}")
    _check_labels(entry, plugin, where)
    labels: Sequence[Labels] = ["none"] if plugin.access == "blind" else entry.labels
    rows = []
    for domain in entry.domain:
        if domain not in plugin.domains:
            raise InputError(f"{where}: domain: got {domain}, expected {', '.join(plugin.domains)}")
        for params, given in itertools.product(_grid(entry.params, plugin, where), labels):
            attack = build(plugin, params, where)
            _check_budget(plugin, params, attack, where)
            rows.append(_configuration(entry, attack, domain, given, clips))
    return rows


def _check_budget(plugin: type[Attack], params: Mapping[str, Any], attack: Attack, where: str) -> None:
    """Raise InputError if building the attack changed the budget that the suite gives it."""
    for role in ("budget", "norm"):
        name = field_with_role(plugin, role)
        if name in params and name is not None and vars(attack)[name] != params[name]:
            raise InputError(f"{where}: {name}: got {vars(attack)[name]} for {params[name]}, expected no change of it")


def _check_labels(entry: AttackEntry, plugin: type[Attack], where: str) -> None:
    if plugin.access == "decisions" and "soft" in entry.labels:
        raise InputError(f"{where}: labels: got soft, expected true or predicted with access '{plugin.access}'")
    if plugin.places and entry.labels != ["true"]:
        raise InputError(f"{where}: labels: got {', '.join(entry.labels)}, expected true for examples from files")


def _grid(params: Mapping[str, Any], plugin: type[Attack], where: str) -> Iterator[dict[str, Any]]:
    """Yield one choice of parameters per combination of the listed values; a sequence parameter's list is one value."""
    spread = {
        name: value if isinstance(value, list) and not takes_sequence(plugin, name) else [value]
        for name, value in params.items()
    }
    if empty := [name for name, values in spread.items() if not values]:
        raise InputError(f"{where}: {empty[0]}: got [], expected at least one value")
    for values in itertools.product(*spread.values()):
        yield dict(zip(spread, values, strict=True))


def _configuration(
    entry: AttackEntry, attack: Attack, domain: Domain, labels: Labels, clips: Mapping[str, int]
) -> Configuration:
    try:
        params = plain(attack)
        budget, reading = declared_budget(type(attack), params, domain), attack.reads(clips)
    except InputError as error:
        raise InputError(f"attack '{entry.title}': {error}") from None
    local = {name: value for name, value in params.items() if name in attack.places}
    shared = {name: value for name, value in params.items() if name not in attack.places}
    return Configuration(entry, attack, shared, domain, labels, budget, local, reading)


def check_distinct(rows: Sequence[Configuration]) -> None:
    """Raise InputError if two configurations would be judged in the same cell."""
    places = set()
    for row in rows:
        for delivery in row.deliveries:
            place = (row.entry.title, row.text, row.domain, delivery, row.labels)
            if place in places:
                raise InputError(f"attacks: got {' '.join(place)} twice, expected once (give one a label)")
            places.add(place)


def check_labels(suite: Suite) -> None:
    """Raise InputError if a label is the name of another plugin, whose figures it would seem to have."""
    kinds: list[tuple[Registry[Any], Sequence[PluginEntry]]] = [
        (MODELS, suite.models),
        (DEFENSES, suite.defenses),
        (ATTACKS, suite.attacks),
        (METRICS, suite.metrics),
    ]
    for registry, entries in kinds:
        for entry in entries:
            if entry.title != entry.name and entry.title in registry:
                raise InputError(
                    f"{registry.kind} '{entry.name}': got the label '{entry.title}', the name of another "
                    f"{registry.kind}, expected another label"
                )


def check_metric(entry: PluginEntry) -> None:
    """Raise InputError if a metric's parameters are wrong, or it would pass for another metric or column."""
    metric = build(METRICS.get(entry.name), entry.params, f"metric '{entry.title}'")
    taken = {entry.title, metric.column} & {*EXAMPLES_SCHEMA.names} if isinstance(metric, ClipMetric) else ()
    if taken:
        raise InputError(
            f"metric '{entry.title}': got the name or column '{min(taken)}', expected any that is no "
            f"column of the examples table ({', '.join(EXAMPLES_SCHEMA.names)})"
        )
    if not METRICS.is_shipped(entry.name):
        shipped = (METRICS.get(name) for name in METRICS if METRICS.is_shipped(name))
        if metric.title.casefold() in {other.title.casefold() for other in shipped}:
            raise InputError(
                f"metric '{entry.name}': got the title '{metric.title}' of another metric, expected another title"
            )
