"""Validated plugin parameters: declared once, checked at load, described by ``advser show``.

Attacks, defenses, corpora, metrics and transcribers are frozen pydantic models (`Parameters`). A model is a
torch module; its parameters are the keyword-only arguments of its constructor, checked against their annotations.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from advser.errors import InputError

P = TypeVar("P", bound="Parameters")


class Parameters(BaseModel):
    """Base of plugins that are parameter objects: frozen, unknown keys refused, no silent conversion of types.

    Give a field its unit by ``Field(json_schema_extra={"unit": "s"})`` or the shorthand `parameter`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)

    citation: ClassVar[str] = ""
    """The source of the method: paper, equation or section."""


def parameter(default: Any = ..., *, unit: str = "", about: str, **limits: Any) -> Any:
    """Declare a plugin's parameter: default, unit, one line about it, and pydantic's limits (``gt``, ``le``, …)."""
    return Field(default, description=about, json_schema_extra={"unit": unit} if unit else None, **limits)


@dataclass(frozen=True)
class ParameterInfo:
    """One declared parameter, as `advser show` prints it."""

    name: str
    type: str
    default: str
    unit: str
    about: str


def constructor_schema(factory: type[Any]) -> type[BaseModel]:
    """Return the parameters of a plugin class as a pydantic model.

    For a `Parameters` class that is the class itself; for any other the keyword-only arguments of ``__init__``.
    """
    if issubclass(factory, BaseModel):
        return factory
    hints = get_type_hints(factory.__init__, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if argument.default is argument.empty else argument.default)
        for name, argument in inspect.signature(factory).parameters.items()
        if argument.kind is argument.KEYWORD_ONLY
    }
    return create_model(factory.__name__, __config__=Parameters.model_config, **fields)


def validated(factory: type[Any], params: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check ``params`` against what ``factory`` declares, and return them completed with the defaults.

    Raises:
        InputError: naming ``where``, the key, what was found and what is allowed.
    """
    try:
        checked = constructor_schema(factory).model_validate(dict(params))
    except ValidationError as error:
        raise InputError(explain(error, where, constructor_schema(factory))) from None
    return checked.model_dump(mode="json")


def build(factory: type[P], params: Mapping[str, Any], where: str) -> P:
    """Make a `Parameters` plugin from plain data; errors as in `validated`."""
    try:
        return factory.model_validate(dict(params))
    except ValidationError as error:
        raise InputError(explain(error, where, factory)) from None


def explain(error: ValidationError, where: str, schema: type[BaseModel] | None = None) -> str:
    """Put the first finding of a validation into one line: where, key, problem, what was found, what is allowed."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    line = f"{where}: {key}: {first['msg']}" if key else f"{where}: {first['msg']}"
    if first["type"] == "extra_forbidden" and schema is not None:
        return f"{where}: unknown key '{key}' (allowed: {', '.join(schema.model_fields) or 'none'})"
    if first["type"] != "missing" and not isinstance(first["input"], dict):
        line += f" (found {first['input']!r})"
    return line


def describe(factory: type[Any]) -> list[ParameterInfo]:
    """List the parameters that a plugin class declares."""
    return [_info(name, field) for name, field in constructor_schema(factory).model_fields.items()]


def _info(name: str, field: FieldInfo) -> ParameterInfo:
    extra = field.json_schema_extra
    limits = [str(item) for item in field.metadata if not isinstance(item, BeforeValidator)]
    annotation = field.annotation
    kind = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
    return ParameterInfo(
        name=name,
        type=", ".join([kind, *limits]),
        default="required" if field.is_required() else str(field.default),
        unit=str(extra.get("unit", "")) if isinstance(extra, dict) else "",
        about=field.description or "",
    )


Fraction = Annotated[float, Field(ge=0, le=1)]
