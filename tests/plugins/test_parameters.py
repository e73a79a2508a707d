"""Parameters are checked, completed, described and refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from advser.errors import InputError
from advser.plugins.parameters import (
    Fraction,
    ParameterInfo,
    Parameters,
    arguments,
    build,
    describe,
    parameter,
    validated,
)
from advser.plugins.registries import REGISTRIES


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str


class Toy(Parameters):
    """A plugin with a parameter of every type."""

    citation: ClassVar[str] = "nobody"

    epsilon: float = parameter(unit="z", about="budget", ge=0)
    steps: int = parameter(10, unit="steps", about="number of steps", ge=1, le=50)
    share: Fraction = parameter(0.5, about="weight")
    kind: Literal["a", "b"] = parameter("a", about="variant")
    band: tuple[float, float] | None = parameter(None, unit="Hz", about="edges")
    exact: bool = parameter(False, about="whether to be exact")
    folder: Path | None = parameter(None, about="where to look")
    inner: Inner | None = parameter(None, about="another plugin")


class Network(nn.Module):
    """A plugin that is no `Parameters`."""

    def __init__(
        self,
        classes: int,
        *,
        width: Annotated[int, parameter(unit="maps", about="width", ge=1)] = 64,
        dropout: Fraction = 0.5,
        strides: tuple[int, ...] = (2, 2),
    ) -> None:
        super().__init__()
        self.given = (classes, width, dropout, strides)


def test_parameters_are_frozen() -> None:
    toy = build(Toy, {"epsilon": 0.1}, "toy")
    with pytest.raises(ValidationError, match="frozen"):
        toy.epsilon = 0.2


def test_plain_data_is_completed_and_comes_back_the_same() -> None:
    given = {"epsilon": 1, "band": [20, 8000.0], "folder": "models/de", "inner": {"name": "x"}}
    complete = validated(Toy, given, "toy")
    assert complete["steps"] == 10
    assert complete["band"] == [20.0, 8000.0]
    assert validated(Toy, complete, "toy") == complete
    toy = build(Toy, complete, "toy")
    assert toy == build(Toy, given, "toy")
    assert (toy.epsilon, toy.band, toy.folder, toy.inner) == (1.0, (20.0, 8000.0), Path("models/de"), Inner(name="x"))
    assert isinstance(toy.epsilon, float)


@given(st.floats(0, 1e6, allow_subnormal=False), st.integers(1, 50))
def test_numbers_are_exact_to_the_last_bit(epsilon: float, steps: int) -> None:
    toy = build(Toy, validated(Toy, {"epsilon": epsilon, "steps": steps}, "toy"), "toy")
    assert (toy.epsilon, toy.steps) == (epsilon, steps)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "toy 'x': epsilon: got nothing, expected a value"),
        ({"epsilon": -0.5}, "toy 'x': epsilon: got -0.5, expected at least 0"),
        ({"epsilon": "0.1"}, "toy 'x': epsilon: got '0.1', expected a number"),
        ({"epsilon": True}, "toy 'x': epsilon: got True, expected a number"),
        ({"epsilon": None}, "toy 'x': epsilon: got None, expected a number"),
        ({"epsilon": {"a": 1}}, "toy 'x': epsilon: got {'a': 1}, expected a number"),
        ({"epsilon": float("nan")}, "toy 'x': epsilon: got nan, expected a finite number"),
        ({"epsilon": float("inf")}, "toy 'x': epsilon: got inf, expected a finite number"),
        ({"steps": 2.5}, "toy 'x': steps: got 2.5, expected a whole number"),
        ({"steps": "3"}, "toy 'x': steps: got '3', expected a whole number"),
        ({"steps": True}, "toy 'x': steps: got True, expected a whole number"),
        ({"steps": 51}, "toy 'x': steps: got 51, expected at most 50"),
        ({"share": 1.01}, "toy 'x': share: got 1.01, expected at most 1"),
        ({"kind": "c"}, "toy 'x': kind: got 'c', expected 'a' or 'b'"),
        ({"band": [1, 2, 3]}, "toy 'x': band: got [1, 2, 3], expected a list of length 2 or less"),
        ({"band": [1, "x"]}, "toy 'x': band.1: got 'x', expected a number"),
        ({"exact": 1}, "toy 'x': exact: got 1, expected true or false"),
        ({"exact": "yes"}, "toy 'x': exact: got 'yes', expected true or false"),
        ({"inner": {"nam": "x", "name": "y"}}, "toy 'x': unknown key 'inner.nam' (expected name)"),
        ({"epsilonn": 1}, "toy 'x': unknown key 'epsilonn' (expected epsilon, steps, share, kind, band, exact, "),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_line(params: dict[str, Any], message: str) -> None:
    params = params if not params or "epsilon" in params else {"epsilon": 0.1, **params}
    for check in (validated, build):
        with pytest.raises(InputError) as refusal:
            check(Toy, params, "toy 'x'")
        assert str(refusal.value).startswith(message)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("params", [["epsilon"], "epsilon", None, 3])
def test_parameters_that_are_no_mapping_are_refused(params: Any) -> None:
    with pytest.raises(InputError, match=r"^toy 'x': got .*, expected parameters as key: value$"):
        validated(Toy, params, "toy 'x'")


def test_parameters_that_are_no_plain_data_are_refused() -> None:
    with pytest.raises(InputError, match=r"^toy 'x': not plain data: "):
        build(Toy, {"epsilon": object()}, "toy 'x'")


def test_a_long_value_is_shortened() -> None:
    with pytest.raises(InputError) as refusal:
        build(Toy, {"epsilon": ["x" * 1000] * 1000}, "toy")
    assert len(str(refusal.value)) < 400


def test_the_keyword_arguments_of_a_constructor_are_its_parameters() -> None:
    complete = validated(Network, {"width": 32}, "model 'x'")
    assert complete == {"width": 32, "dropout": 0.5, "strides": [2, 2]}
    assert Network(7, **arguments(Network, complete, "model 'x'")).given == (7, 32, 0.5, (2, 2))
    for params, message in (
        ({"classes": 3}, r"model 'x': unknown key 'classes' \(expected width, dropout, strides\)"),
        ({"width": 0}, r"model 'x': width: got 0, expected "),
        ({"dropout": 2}, "model 'x': dropout: "),
    ):
        with pytest.raises(InputError, match=message):
            validated(Network, params, "model 'x'")


def test_parameters_are_described_with_type_limits_unit_and_default() -> None:
    described = {info.name: info for info in describe(Toy)}
    assert list(described) == list(Toy.model_fields)
    assert described["epsilon"] == ParameterInfo("epsilon", "float, ≥ 0", "required", "z", "budget")
    assert described["steps"] == ParameterInfo("steps", "int, ≥ 1, ≤ 50", "10", "steps", "number of steps")
    assert described["share"].type == "float, ≥ 0, ≤ 1"
    assert described["kind"].type == "Literal['a', 'b']"
    assert described["band"].type == "tuple[float, float] | None"
    network = {info.name: info for info in describe(Network)}
    assert list(network) == ["width", "dropout", "strides"]
    assert network["width"] == ParameterInfo("width", "int, ≥ 1", "64", "maps", "width")
    assert network["dropout"].default == "0.5"


@pytest.mark.parametrize("kind", ["models", "attacks", "defenses", "corpora", "metrics", "transcribers"])
def test_every_shipped_plugin_describes_itself(kind: str) -> None:
    for name in REGISTRIES[kind]:
        plugin = REGISTRIES[kind].get(name)
        for info in describe(plugin):
            assert info.about, f"{kind} {name}: {info.name} has no description"
            assert info.type
