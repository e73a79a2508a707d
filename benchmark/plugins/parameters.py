"""Validated plugin parameters: declared once, checked at load, described by ``advser show``.

Attacks, defenses, corpora, metrics and transcribers are frozen pydantic models (`Parameters`). A model is a
torch module; its parameters are the keyword-only arguments of its constructor, checked against their annotations.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json

from advser.errors import InputError, did_you_mean

__affects_results__ = False

P = TypeVar("P", bound="Parameters")
M = TypeVar("M", bound=BaseModel)

LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "max_length": "length ≤"}
"""How pydantic's limits are written."""


class Parameters(BaseModel):
    """Base of plugins that are parameter objects: frozen, unknown keys refused, no silent conversion of types.

    Whole numbers are taken for fractional ones, and lists for tuples where the data comes from a suite; numbers must
    be finite.

    Give a field its unit by ``Field(json_schema_extra={"unit": "s"})`` or the shorthand `parameter`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

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
    """Check ``params`` against what ``factory`` declares, and return them completed with the defaults, as plain data.

    Raises:
        InputError: naming ``where``, the key, what was found and what is allowed.
    """
    return _checked(constructor_schema(factory), params, where).model_dump(mode="json")


def arguments(factory: type[Any], params: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the keyword arguments that plain data stands for, in their declared types; errors as in `validated`.

    For plugins that are no `Parameters`: ``factory(…, **arguments(factory, params, where))``.
    """
    checked = _checked(constructor_schema(factory), params, where)
    return {name: getattr(checked, name) for name in type(checked).model_fields}


def build(factory: type[P], params: Mapping[str, Any], where: str) -> P:
    """Make a `Parameters` plugin from plain data; errors as in `validated`."""
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


def explain(error: ValidationError, where: str, schema: type[BaseModel] | None = None) -> str:
    """Put the first finding of a validation into one line: where, key, problem, what was found, what is allowed."""
    # A misspelt key that is required is missing too: the misspelling is what to tell.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place = first["loc"]
    key = ".".join(str(part) for part in place)
    if first["type"] == "extra_forbidden" and schema is not None:
        allowed = [*_inner(schema, place[:-1]).model_fields]
        near = did_you_mean(str(place[-1]), allowed)
        return f"{where}: unknown key '{key}' (expected {', '.join(allowed) or 'none'}){near}"
    problem = " ".join(first["msg"].removeprefix("Value error, ").split())
    line = f"{where}: {key}: {problem}" if key else f"{where}: {problem}"
    if key and first["type"] not in ("missing", "value_error"):
        line += f" (got {reprlib.repr(first['input'])})"
    return line


def _inner(schema: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model that a location inside ``schema`` belongs to."""
    for part in place:
        field = schema.model_fields.get(str(part))
        models = [kind for kind in _alternatives(field.annotation) if _is_model(kind)] if field else []
        schema = models[0] if models else schema
    return schema


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Yield a type and everything that it is composed of."""
    yield annotation
    for part in get_args(annotation):
        yield from _alternatives(part)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def describe(factory: type[Any]) -> list[ParameterInfo]:
    """List the parameters that a plugin class declares."""
    return [_info(name, field) for name, field in constructor_schema(factory).model_fields.items()]


def _info(name: str, field: FieldInfo) -> ParameterInfo:
    extra = field.json_schema_extra
    limits = [
        f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for name, sign in LIMITS.items()
        if hasattr(item, name)
    ]
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
