"""The shape of ``run.json``: what every reader may rely on. Keys that are not listed here are kept and not checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, NoReturn, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from advser.errors import InputError, expected, printable
from advser.results.schema import KEYS

LONGEST: Final = 10_000
"""Characters of a text."""

Text = Annotated[str, Field(max_length=LONGEST)]
Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


class _Entry(_Record):
    name: Text
    label: Text = ""
    params: dict[str, Any] = {}


class _Suite(_Record):
    name: Text = ""
    title: Text = ""
    part: Text = ""
    corpus: _Entry | None = None
    models: list[_Entry] = []
    defenses: list[_Entry] = []
    attacks: list[_Entry] = []
    metrics: list[_Entry] = []
    worst: list[_Entry] = []
    exhibits: list[dict[str, Any]] = []
    parts: dict[str, _Suite] = {}


class _Metric(_Record):
    title: Text = ""
    unit: Text = ""
    decimals: Annotated[int, Field(ge=0, le=12)] = 3


def _of_a_cell(name: str) -> str:
    if name not in KEYS:
        raise ValueError("a key of a cell")
    return name


class _Flag(_Record):
    check: Text
    where: dict[Annotated[str, AfterValidator(_of_a_cell)], str | int | float | None]
    detail: Text


class _Audit(_Record):
    checks: Annotated[dict[str, Text], Field(max_length=26)] = {}
    """A letter marks each on boards."""

    needs: dict[str, Text] = {}
    looked_at: dict[str, Count] = {}
    flags: list[_Flag] = []

    @model_validator(mode="after")
    def _describe_each_check(self) -> Self:
        for name in self.looked_at:
            if name not in self.needs:
                raise ValueError(f"needs of the check '{printable(name, 40)}'")
        return self


class _Jobs(_Record):
    total: Count = 0
    computed: Count = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0


class _Failure(_Record):
    key: Text = ""
    status: Text = ""
    reason: Text = ""
    trace: Annotated[str, Field(max_length=1_000_000)] = ""


class _Engine(_Record):
    name: Text
    params: dict[str, Any] = {}
    model: Text = ""
    reason: Text = ""


class _Run(_Record):
    notes: list[Text]
    failures: list[_Failure]
    advser: Text = ""
    python: Text = ""
    packages: dict[str, Text] = {}
    git: dict[str, str | bool] | None = None
    host: dict[str, str | int | float | None] = {}
    suite: _Suite = _Suite()
    suite_file: Text = ""
    state: Text = ""
    digests: dict[str, Text] = {}
    metrics: dict[str, _Metric] = {}
    precision: dict[str, Text | list[Text] | dict[str, Text]] = {}
    only: dict[str, Text] = {}
    set: list[Text] = []
    external: list[Text] = []
    plugins: list[Text] = []
    plugin_files: dict[str, Text] = {}
    transcribers: dict[str, _Engine] = {}
    audit: _Audit = _Audit()
    jobs: _Jobs = _Jobs()


def check_run(run: Mapping[str, Any], file: str) -> None:
    """Raise InputError if the description of a run has another shape; the message names ``file`` and the key."""
    try:
        _Run.model_validate(dict(run))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        got = "nothing" if first["type"] == "missing" else repr(first["input"])
        raise InputError(f"{file}: {place}: got {printable(got, 80)}, expected {expected(first)}") from None


def read_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: if it is not JSON, is too deep, or has a number that is no finite number or a text that is none.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("too many levels") from None
    except UnicodeEncodeError:
        raise ValueError("got half a character (a lone surrogate), expected text") from None
    return value


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"got {number}, expected a finite number")


def _finite(number: str) -> float:
    value = float(number)
    return value if value not in (float("inf"), float("-inf")) else _refuse(number)
