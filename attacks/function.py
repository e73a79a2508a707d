"""Attacks that are functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, get_args, get_type_hints

import torch
from pydantic import create_model
from torch import Tensor

from advser.attacks.base import Attack
from advser.errors import InputError
from advser.models.terms import DOMAINS, Domain
from advser.threat.model import Access
from advser.threat.target import Target

FIRST: Final = ("target", "x", "labels", "generator")
"""The first arguments of every attack function: those of `Attack.perturb`."""


class FunctionAttack(Attack):
    """Base of attacks that are functions: the function's further arguments are the parameters."""

    function: ClassVar[Callable[..., Tensor]]

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Call the function."""
        parameters = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).function(target, x, labels, generator, **parameters)


@dataclass(frozen=True)
class Declaration:
    """What an attack that is a function declares: the class variables of `Attack` with these names."""

    access: str = "white-box"
    domains: tuple[str, ...] = DOMAINS
    citation: str = ""
    single_step: bool = False
    unbounded: bool = False


def attack_from(function: Callable[..., Tensor], declaration: Declaration) -> type[Attack]:
    """Return the attack that is ``function(target, x, labels, generator, *, …)``.

    The further arguments become parameters, with their annotations and defaults: ``epsilon: float = budget()``,
    ``steps: int = parameter(10, about="steps", ge=1)``, ``rate: float = 0.5``.

    Raises:
        InputError: if the function has other first arguments, if an argument cannot be a parameter, or if there is no
            such access or domain.
    """
    arguments = list(inspect.signature(function).parameters.values())
    where = f"attack function '{function.__name__}'"
    if tuple(argument.name for argument in arguments[: len(FIRST)]) != FIRST:
        names = ", ".join(argument.name for argument in arguments)
        raise InputError(f"{where}: got the arguments ({names}), expected ({', '.join(FIRST)}, …)")
    _refuse_unless("access", declaration.access, get_args(Access), where)
    for domain in declaration.domains:
        _refuse_unless("domains", domain, get_args(Domain), where)
    plugin = create_model(
        function.__name__,
        __base__=FunctionAttack,
        __module__=function.__module__,
        __doc__=function.__doc__,
        **_fields(function, arguments[len(FIRST) :], where),
    )
    plugin.function = staticmethod(function)
    for name, value in vars(declaration).items():
        setattr(plugin, name, value)
    return plugin


def _fields(function: Callable[..., Tensor], arguments: list[inspect.Parameter], where: str) -> dict[str, Any]:
    """Return pydantic's fields for the arguments of a function: name → (annotation, default)."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise InputError(f"{where}: got an annotation that is not defined: {error}") from None
    fields: dict[str, Any] = {}
    for argument in arguments:
        if argument.kind in (argument.VAR_KEYWORD, argument.VAR_POSITIONAL) or argument.name not in hints:
            raise InputError(f"{where}: got the argument '{argument}', expected a name with an annotation")
        if hasattr(FunctionAttack, argument.name) or argument.name in FunctionAttack.__annotations__:
            raise InputError(f"{where}: got the argument '{argument.name}', expected a name that no attack has already")
        fields[argument.name] = (hints[argument.name], ... if argument.default is argument.empty else argument.default)
    return fields


def _refuse_unless(what: str, value: str, allowed: tuple[str, ...], where: str) -> None:
    if value not in allowed:
        raise InputError(f"{where}: {what}: got '{value}', expected {', '.join(allowed)}")
