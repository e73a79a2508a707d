"""Parameters of an attack with a role for the harness or the audit: budget, norm, gradient steps, step size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

Role = Literal["budget", "norm", "steps", "step-size"]
"""What a parameter is to the harness and to the audit, whatever its name."""

_ROLE: Final = "role"
"""Key of a field's extra data that holds its `Role`."""


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
    return _declare("budget", default, about, {"ge": 0} | limits, unit=unit, norm=norm)


def budget_norm(default: Any = "linf", *, about: str = "norm of the budget", **limits: Any) -> Any:
    """Declare the parameter that chooses the norm of an attack's budget."""
    return _declare("norm", default, about, limits)


def gradient_steps(default: Any = ..., *, about: str = "number of gradient steps", **limits: Any) -> Any:
    """Declare the parameter that is an attack's number of gradient steps.

    The audit compares an attack with the same attack and twice as many steps.

    Args:
        default: its default; required without one.
        about: one line about it.
        limits: as for `advser.plugins.parameters.parameter`; ``ge=1`` unless given.
    """
    return _declare("steps", default, about, {"ge": 1} | limits, unit="steps")


def step_size(
    default: Any = ..., *, about: str = "step size α", unit: str = "full-scale, z or clip", **limits: Any
) -> Any:
    """Declare the parameter that is the size of an attack's step: the audit lets it differ where budget or steps do.

    Args:
        default: its default; required without one.
        about: one line about it.
        unit: its unit, as ``advser show`` prints it.
        limits: as for `advser.plugins.parameters.parameter`; ``gt=0`` unless given.
    """
    return _declare("step-size", default, about, {"gt": 0} | limits, unit=unit)


def roles(plugin: type[BaseModel]) -> dict[str, Role]:
    """Return the role of each parameter that has one."""
    return {name: role for name, info in plugin.model_fields.items() if (role := _extra(info).get(_ROLE))}


def fields_with_role(plugin: type[BaseModel], role: Role) -> list[str]:
    """Return the names of the parameters with a role."""
    return [name for name, own in roles(plugin).items() if own == role]


def field_with_role(plugin: type[BaseModel], role: Role) -> str | None:
    """Return the name of the first parameter with a role; None without one."""
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


def value_of_budget(plugin: type[BaseModel], params: Mapping[str, Any]) -> float | None:
    """Return an attack's budget ε under its complete parameters; None for an attack without a budget."""
    name = field_with_role(plugin, "budget")
    return None if name is None else params[name]


def _declare(role: Role, default: Any, about: str, limits: Mapping[str, Any], **extra: Any) -> Any:
    return Field(default, description=about, json_schema_extra={_ROLE: role} | extra, **limits)


def _extra(info: FieldInfo) -> Mapping[str, Any]:
    return info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
