"""Declared budgets: the harness reads them from the declaration of an attack, whatever its fields are called."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from torch import Tensor

from advser.attacks.function import Declaration, attack_from
from advser.errors import InputError
from advser.plugins import Attack, Budget, budget, budget_norm, parameter
from advser.plugins.parameters import takes_sequence
from advser.plugins.registries import ATTACKS
from advser.plugins.roles import field_with_role
from advser.threat.model import Norm


class Named(Attack):
    """An attack with its own names for budget and norm."""

    radius: float = budget(0.1, about="size")
    ball: Norm = budget_norm(about="norm of the size")
    epsilon: float = parameter(5.0, about="not a budget")

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
        return x


class Euclidean(Attack):
    """Has a budget in one norm."""

    radius: float | None = budget(None, norm="l2")

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
        return x


class Undeclared(Attack):
    """Calls a parameter epsilon, and declares no budget."""

    epsilon: float = parameter(0.1, about="size")

    def perturb(self, target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (Named(), Budget("linf", 0.1, "full-scale")),
        (Named(radius=0.3, ball="relative-l2"), Budget("relative-l2", 0.3, "clip")),
        (Euclidean(radius=2.0), Budget("l2", 2.0, "full-scale")),
        (Euclidean(), None),
        (Undeclared(), None),
    ],
)
def test_a_budget_is_the_declared_parameter_in_the_declared_norm(attack: Attack, expected: Budget | None) -> None:
    assert attack.budget("waveform") == expected


def test_a_norm_without_meaning_in_the_domain_is_refused() -> None:
    with pytest.raises(InputError, match="norm: got 'relative-l2', expected linf or l2 in the domain spectrogram"):
        Named(ball="relative-l2").budget("spectrogram")


def test_an_attack_cannot_override_its_budget() -> None:
    with pytest.raises(InputError, match="attack class 'Mine': got a member 'budget', expected another name"):

        class Mine(Named):
            def budget(self, domain: Any) -> None:  # type: ignore[override,misc]
                return None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"radius": budget(0.1, norm="inf")}, "norm: got 'inf', expected linf, l2, relative-l2"),
        ({"radius": budget(0.1), "size": budget(0.2)}, "got the budget parameters radius, size, expected at most one"),
        ({"budget": budget(0.1)}, "got a member 'budget'"),
    ],
)
def test_a_wrong_declaration_is_refused_when_the_class_is_created(fields: dict[str, Any], message: str) -> None:
    members = {"__annotations__": dict.fromkeys(fields, float), "__module__": __name__, **fields}
    with pytest.raises(InputError, match=message):
        type(Attack)("Mine", (Attack,), members)


def test_a_mixin_cannot_override_the_budget() -> None:
    mixin = type("Mixin", (), {"budget": lambda self, domain: None})
    with pytest.raises(InputError, match="got a member 'budget'"):
        type(Attack)("Mine", (mixin, Named), {"__module__": __name__})


def test_an_undeclared_budget_is_refused_before_a_run() -> None:
    assert Undeclared.declaration_error().startswith("budget: got none, expected")
    assert Named.declaration_error() == ""


def test_a_function_declares_its_budget_as_a_default() -> None:
    def shift(
        target: Any, x: Tensor, labels: Tensor, generator: Any, *, size: float = budget(about="size"), rate: float = 0.5
    ) -> Tensor:
        return x + rate * size

    attack = attack_from(shift, Declaration(access="blind"))(size=0.2)
    assert attack.budget("waveform") == Budget("linf", 0.2, "full-scale")


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_shipped_attack_is_blind_bounded_or_declared_unbounded(name: str) -> None:
    attack = ATTACKS.get(name)
    bounded = field_with_role(attack, "budget") is not None
    assert bounded or attack.access == "blind" or attack.unbounded
    assert attack.declaration_error() == ""


class Sequences(Undeclared):
    """Has parameters of all kinds."""

    numbers: tuple[float, ...] = parameter((), about="several")
    names: list[str] | None = parameter(None, about="several or none")
    listed: str = parameter("", about="a text that is called a list")
    mapped: dict[str, list[float]] = parameter({}, about="lists in a mapping")
    chosen: frozenset[str] = parameter(frozenset(), about="a set")
    sequence_length: ClassVar[int] = 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("numbers", True),
        ("names", True),
        ("listed", False),
        ("mapped", False),
        ("chosen", True),
        ("epsilon", False),
        ("none", False),
    ],
)
def test_a_sequence_parameter_is_recognised_by_its_type(name: str, expected: bool) -> None:
    assert takes_sequence(Sequences, name) is expected
