"""Declared budgets: the parameters of an attack that are its budget and the norm of that budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

_ROLE = "role"
"""Key of a field's extra data that says what the harness uses the parameter for: ``budget`` or ``norm``."""


def budget(
    default: Any = ..., *, about: str = "budget ε", norm: str = "linf", unit: str = "full-scale or z", **limits: Any
) -> Any:
    """Declare the parameter that is an attack's budget ε: the harness enforces it. At most one per attack.

    Args:
        default: its default; required without one. None stands for no bound.
        about: one line about it.
        norm: the norm that ε bounds, unless a parameter chooses it (`budget_norm`).
        unit: its unit, as ``advser show`` prints it.
        limits: as for `advser.plugins.parameters.parameter`; ``ge=0`` unless given.
    """
    extra: dict[str, Any] = {"unit": unit, _ROLE: "budget", "norm": norm}
    return Field(default, description=about, json_schema_extra=extra, **({"ge": 0} | limits))


def budget_norm(default: Any = "linf", *, about: str = "norm of the budget", **limits: Any) -> Any:
    """Declare the parameter that chooses the norm of an attack's budget."""
    return Field(default, description=about, json_schema_extra={_ROLE: "norm"}, **limits)


def fields_with_role(plugin: type[BaseModel], role: str) -> list[str]:
    """Return the names of the parameters that are declared as ``budget`` or ``norm``."""
    return [name for name, info in plugin.model_fields.items() if _extra(info).get(_ROLE) == role]


def field_with_role(plugin: type[BaseModel], role: str) -> str | None:
    """Return the name of the parameter that is declared as ``budget`` or ``norm``; None without one."""
    return next(iter(fields_with_role(plugin, role)), None)


def fixed_norm(plugin: type[BaseModel]) -> str | None:
    """Return the norm that an attack's budget is declared with; None for an attack without a budget."""
    name = field_with_role(plugin, "budget")
    return None if name is None else str(_extra(plugin.model_fields[name])["norm"])


def norm_of_budget(plugin: type[BaseModel], params: Mapping[str, Any]) -> str:
    """Return the norm of an attack's budget under some of its parameters; L∞ for an attack without a budget."""
    name = field_with_role(plugin, "norm")
    if name is not None:
        return str(params.get(name, plugin.model_fields[name].default))
    return fixed_norm(plugin) or "linf"


def _extra(info: FieldInfo) -> Mapping[str, Any]:
    return info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
