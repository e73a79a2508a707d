"""Attacks that are functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Final, get_args, get_type_hints

import torch
from pydantic import create_model
from torch import Tensor

from advser.attacks.base import Attack
from advser.errors import InputError
from advser.models.terms import Domain
from advser.threat.model import Access
from advser.threat.target import Target

FIRST: Final = ("target", "x", "labels", "generator")
"""The arguments that every such function begins with: those of `Attack.perturb`."""


class FunctionAttack(Attack):
    """Base of attacks that are functions: the function's further arguments are the parameters."""

    function: ClassVar[Callable[..., Tensor]]

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Call the function."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).function(target, x, labels, generator, **given)


def attack_of(
    function: Callable[..., Tensor],
    access: Access,
    domains: tuple[Domain, ...],
    citation: str = "",
    *,
    single_step: bool = False,
) -> type[Attack]:
    """Return the attack that is ``function(target, x, labels, generator, *, …)``.

    Its further arguments become parameters, with their annotations and defaults; one that is called ``epsilon`` is the
    budget, as of any attack (`Attack`).

    Raises:
        InputError: if the function has other first arguments, or arguments that cannot be parameters; or there is no
            such access or domain.
    """
    arguments = list(inspect.signature(function).parameters.values())
    where = f"attack function '{function.__name__}'"
    if tuple(argument.name for argument in arguments[: len(FIRST)]) != FIRST:
        found = ", ".join(argument.name for argument in arguments)
        raise InputError(f"{where}: got the arguments ({found}), expected ({', '.join(FIRST)}, …)")
    _refuse_unless("access", access, get_args(Access), where)
    for domain in domains:
        _refuse_unless("domains", domain, get_args(Domain), where)
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise InputError(f"{where}: got an annotation that is not defined: {error}") from None
    fields: dict[str, Any] = {}
    for argument in arguments[len(FIRST) :]:
        if argument.kind in (argument.VAR_KEYWORD, argument.VAR_POSITIONAL) or argument.name not in hints:
            raise InputError(f"{where}: got the argument '{argument}', expected a name with an annotation")
        if hasattr(FunctionAttack, argument.name) or argument.name in FunctionAttack.__annotations__:
            raise InputError(f"{where}: got the argument '{argument.name}', expected none that attacks have already")
        fields[argument.name] = (hints[argument.name], ... if argument.default is argument.empty else argument.default)
    made = create_model(
        function.__name__, __base__=FunctionAttack, __module__=function.__module__, __doc__=function.__doc__, **fields
    )
    made.function = staticmethod(function)
    made.access, made.domains, made.citation, made.single_step = access, domains, citation, single_step
    return made


def _refuse_unless(what: str, found: str, allowed: tuple[str, ...], where: str) -> None:
    if found not in allowed:
        raise InputError(f"{where}: {what}: got '{found}', expected {', '.join(allowed)}")
