"""References of other plugins to attacks, by name and parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from advser.attacks.base import Attack
from advser.attacks.learned import LearnedAttack
from advser.errors import InputError
from advser.models.terms import Domain
from advser.plugins.parameters import Parameters, build, validated
from advser.plugins.registries import ATTACKS
from advser.plugins.roles import Role, field_with_role, fixed_norm


class AttackReference(BaseModel):
    """An attack by name and parameters, as a suite writes it: ``{name: fgsm, params: {epsilon: 0.06}}``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            try:
                plugin = ATTACKS.get(data["name"])
                params = validated(plugin, data.get("params") or {}, f"attack '{data['name']}'")
            except InputError as error:
                raise ValueError(str(error)) from None
            if issubclass(plugin, LearnedAttack):
                raise ValueError(
                    f"name: got '{data['name']}', which needs a network trained against a finished model; expected an "
                    "attack without a network"
                )
            if plugin.places:
                raise ValueError(f"name: got '{data['name']}', which reads files; expected an attack that reads none")
            return {**data, "params": params}
        return data

    def build(self) -> Attack:
        """Return the attack."""
        return build(ATTACKS.get(self.name), self.params, f"attack '{self.name}'")

    def build_for(self, domain: Domain) -> Attack:
        """Return the attack, for ``domain``.

        Raises:
            InputError: if it does not run there.
        """
        attack = self.build()
        if domain not in attack.domains:
            raise InputError(f"attack '{self.name}': domain: got {domain}, expected {', '.join(attack.domains)}")
        return attack


def references_within(plugin: Parameters) -> Iterator[AttackReference]:
    """Yield the references of a plugin's fields, alone or in tuples, each followed by those of its attack."""
    for name in type(plugin).model_fields:
        value = getattr(plugin, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, AttackReference):
                yield item
                yield from references_within(item.build())


def ascends(reference: Any) -> bool:
    """Return whether the attack of a reference, which may be data, ascends the suite's objective."""
    data = reference.model_dump() if isinstance(reference, BaseModel) else reference
    return ATTACKS.get(data["name"]).ascends(data.get("params") or {})


def keeps_norm(name: str, norm: Any) -> bool:
    """Return whether an attack can have a budget in ``norm``; an attack without a declared budget has L∞."""
    plugin = ATTACKS.get(name)
    return field_with_role(plugin, "norm") is not None or (fixed_norm(plugin) or "linf") == norm


def with_budget(reference: Any, epsilon: float, norm: Any) -> Any:
    """Return a reference, as data, whose attack has the budget ``epsilon`` in ``norm``.

    Anything but a reference to a registered attack is returned unchanged; validation refuses it later.

    Raises:
        ValueError: if the reference has another budget, or the attack supports none in that norm.
    """
    data = reference.model_dump() if isinstance(reference, BaseModel) else reference
    if not isinstance(data, dict) or not isinstance(data.get("name"), str) or data["name"] not in ATTACKS:
        return data
    name, params = data["name"], dict(data.get("params") or {})
    if not keeps_norm(name, norm):
        raise ValueError(f"got attack '{name}', expected an attack with a budget in norm {norm}")
    values: dict[Role, Any] = {"budget": epsilon, "norm": norm}
    for role, value in values.items():
        key = field_with_role(ATTACKS.get(name), role)
        if key is None:
            continue
        if params.get(key) not in (None, value):
            raise ValueError(f"attack '{name}': {key}: got {params[key]}, expected the whole attack's {value}")
        params[key] = value
    return {**data, "params": params}
