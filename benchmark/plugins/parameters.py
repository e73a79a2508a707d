"""Validated plugin parameters: declared once, checked when loaded, listed by ``advser show``.

Attacks, defenses, corpora, metrics and transcribers are frozen pydantic models (`Parameters`). A model is a
torch module, whose attributes are its layers; its parameters are the keyword-only arguments of its constructor.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json

from advser.errors import AdvserError, InputError, did_you_mean, expected, one_line

__affects_results__ = False

P = TypeVar("P", bound="Parameters")
M = TypeVar("M", bound=BaseModel)

LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "max_length": "length ≤"}
"""Pydantic's limits, as `describe` writes them."""


class Parameters(BaseModel):
    """Base of plugins whose fields are their parameters: frozen, strict about types, without unknown keys.

    Integers pass for floats, and lists for tuples where the data comes from a suite. Numbers are finite.
    Declare a field with `parameter`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    citation: ClassVar[str] = ""
    """The source of the method: paper, equation or section."""


def parameter(default: Any = ..., *, unit: str = "", about: str = "", **limits: Any) -> Any:
    """Declare a parameter of a plugin: as the default of a field, or, for a model, in ``Annotated``.

    ``steps: int = parameter(10, about="number of steps", ge=1)`` is a field; the keyword-only argument ``width:
    Annotated[float, parameter(about="factor of the maps", gt=0)] = 1.0`` of a model's constructor declares the same.

    Args:
        default: its default; required without one.
        unit: its unit, as ``advser show`` prints it.
        about: one line about it.
        limits: pydantic's limits: ``gt``, ``ge``, ``lt``, ``le``, ``min_length``, ``max_length``.
    """
    # What is left out must stay unset: an annotation adds to those inside it.
    texts: dict[str, Any] = {"description": about} if about else {}
    texts |= {"json_schema_extra": {"unit": unit}} if unit else {}
    return Field(default, **texts, **limits)


def takes_sequence(plugin: type[BaseModel], name: str) -> bool:
    """Return whether a parameter's values are themselves sequences, so that a list in a suite is one value."""
    info = plugin.model_fields.get(name)
    return info is not None and any((get_origin(kind) or kind) in _SEQUENCES for kind in _members(info.annotation))


_SEQUENCES = (list, tuple, set, frozenset, Sequence)


def _members(annotation: Any) -> Iterator[Any]:
    """Yield the members of a union, or a type itself."""
    if get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


@dataclass(frozen=True)
class ParameterInfo:
    """One declared parameter, as ``advser show`` prints it."""

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
    """Return ``params`` completed with the defaults, as plain data.

    Raises:
        InputError: if they do not fit what ``factory`` declares; the message names ``where``, the key, and both values.
    """
    return plain(_checked(constructor_schema(factory), params, where))


def plain(plugin: BaseModel) -> dict[str, Any]:
    """Return the parameters of a built plugin as plain JSON data."""
    return plugin.model_dump(mode="json")


def arguments(factory: type[Any], params: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return plain data as the keyword arguments of a plugin that is no `Parameters`; errors as in `validated`."""
    checked = _checked(constructor_schema(factory), params, where)
    return {name: getattr(checked, name) for name in type(checked).model_fields}


def absolute_paths(data: Any) -> Iterator[Path]:
    """Yield the texts in plain data, at any depth, that are absolute paths."""
    if isinstance(data, Mapping):
        data = list(data.values())
    if isinstance(data, list):
        for value in data:
            yield from absolute_paths(value)
    elif isinstance(data, str) and Path(data).is_absolute():
        yield Path(data)


def build(factory: type[P], params: Mapping[str, Any], where: str) -> P:
    """Build a `Parameters` plugin from plain data; errors as in `validated`."""
    return _checked(factory, params, where)


def _checked(schema: type[M], params: Mapping[str, Any], where: str) -> M:
    if not isinstance(params, Mapping):
        raise InputError(f"{where}: got {reprlib.repr(params)}, expected parameters as key: value")
    try:
        # As JSON, because a suite has lists only: strict validation of Python data refuses a list for a tuple.
        return schema.model_validate_json(to_json(dict(params), inf_nan_mode="constants"))
    except ValidationError as error:
        raise InputError(explain(error, where, schema)) from None
    except PydanticSerializationError as error:
        raise InputError(f"{where}: not plain data: {error}") from None
    except (AdvserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        # Pydantic lets through what a plugin's own validator raises, `SystemExit` included.
        raise InputError(f"{where}: {one_line(error)}") from error


def explain(error: ValidationError, where: str, schema: type[BaseModel] | None = None) -> str:
    """Return the first error of a validation in one line: place, key, problem, value, what was expected."""
    # A misspelt required key is missing too: report the misspelling, which the user can correct.
    first = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    place = first["loc"]
    key = ".".join(str(part) for part in place)
    if first["type"] == "extra_forbidden" and schema is not None:
        allowed = [*_inner(schema, place[:-1]).model_fields]
        near = did_you_mean(str(place[-1]), allowed)
        return f"{where}: unknown key '{key}' (expected {', '.join(allowed) or 'none'}){near}"
    at = f"{where}: {key}" if key else where
    if first["type"] == "value_error":
        # The suite's own message, which says all.
        return f"{at}: {expected(first)}"
    got = "nothing" if first["type"] == "missing" else reprlib.repr(first["input"])
    return f"{at}: got {got}, expected {expected(first)}"


def _inner(schema: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model that a location inside ``schema`` belongs to."""
    for part in place:
        field = schema.model_fields.get(str(part))
        models = [kind for kind in _alternatives(field.annotation) if _is_model(kind)] if field else []
        schema = models[0] if models else schema
    return schema


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Yield a type and all types that it is composed of."""
    yield annotation
    for part in get_args(annotation):
        yield from _alternatives(part)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def describe(factory: type[Any]) -> list[ParameterInfo]:
    """Return the parameters that a plugin class declares."""
    return [_info(name, field) for name, field in constructor_schema(factory).model_fields.items()]


def _info(name: str, field: FieldInfo) -> ParameterInfo:
    limits = [
        f"{sign} {getattr(item, limit)}"
        for item in field.metadata
        for limit, sign in LIMITS.items()
        if hasattr(item, limit)
    ]
    annotation, extra = field.annotation, field.json_schema_extra
    kind = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
    return ParameterInfo(
        name=name,
        type=", ".join([kind, *limits]),
        default="required" if field.is_required() else str(field.default),
        unit=str(extra.get("unit", "")) if isinstance(extra, dict) else "",
        about=field.description or "",
    )


Fraction = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""
