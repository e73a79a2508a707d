"""What a suite shows beside the boards: the tables and figures of a paper, declared as data.

An exhibit picks cells of the results by their keys and stands them beside published values. A *selection* is a mapping
from key columns to exact values (``{attack: fgsm, epsilon: 0.06}``); ``params.NAME`` means a parameter of the attack.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

Value = str | int | float | bool | None


def _yaml_truth(value: Any) -> Any:
    # YAML reads a bare `true` as a truth value, but labels are texts.
    return (
        {k: "true" if k == "labels" and v is True else v for k, v in value.items()}
        if isinstance(value, dict)
        else value
    )


Selection = Annotated[dict[str, Value], BeforeValidator(_yaml_truth)]
"""Key column, or ``params.NAME`` → the value that a cell must have."""


DRAWN_METRICS: Final = ("uar", "accuracy", "wer")
"""What is drawn of every run that has it."""

DRAWN_AXES: Final = ("epsilon", "steps")
"""What it is drawn against."""

_DRAWN: Final = re.compile(rf"({'|'.join(DRAWN_METRICS)})-against-({'|'.join(DRAWN_AXES)})([-_].*)?")
_NAME: Final = r"^[a-z0-9][a-z0-9-]*$"


def _not_drawn_anyway(name: str) -> str:
    if drawn := _DRAWN.fullmatch(name):
        raise ValueError(
            f"got '{name}', expected any name that does not begin like '{drawn[1]}-against-{drawn[2]}', "
            "a figure that every run has"
        )
    return name


FigureName = Annotated[str, Field(pattern=_NAME), AfterValidator(_not_drawn_anyway)]
"""Name of a figure, for its files: none that `advser.leaderboards.figures.budget_curves` gives to its own."""


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TableRow(_Schema):
    """A row of a table.

    Attributes:
        title: what stands in front of it.
        section: rows that share one stand under it as a heading.
        where: which cells are meant, in all columns.
        given: name → value, for columns whose selection has ``$name``.
        published: the published value of each column; null where there is none.
    """

    title: str
    section: str = ""
    where: Selection = {}
    given: dict[str, Value] = {}
    published: list[float | None] = []


class TableColumn(_Schema):
    """A column of a table: ``metric`` of the cells that ``where`` picks, headed by ``title``, a text a line."""

    title: list[str] = Field(min_length=1)
    metric: str
    where: Selection = {}


class Table(_Schema):
    """A table: each column's measured value, and beside it what was published.

    Attributes:
        table: its name, for files and for ``advser board --by``.
        title: heading.
        stub: heading of the rows' titles.
        published: heading of the published values.
        where: which cells are meant, in all rows and columns.
        rows, columns: what is shown; where a row and column pick several cells, a footnote says what tells them apart.
        notes: what a reader must know.
    """

    table: str = Field(pattern=_NAME)
    title: str
    stub: str = ""
    published: str = "published"
    where: Selection = {}
    rows: list[TableRow] = Field(min_length=1)
    columns: list[TableColumn] = Field(min_length=1)
    notes: list[str] = []

    @model_validator(mode="after")
    def _published_fits(self) -> Self:
        for row in self.rows:
            if row.published and len(row.published) != len(self.columns):
                raise ValueError(
                    f"exhibit {self.table}: row '{row.title}' has {len(row.published)} published values, "
                    f"expected {len(self.columns)}, one a column"
                )
            for column in self.columns:
                for value in column.where.values():
                    if isinstance(value, str) and value.startswith("$") and value[1:] not in row.given:
                        raise ValueError(f"exhibit {self.table}: row '{row.title}' gives no {value[1:]}")
        return self


class PublishedCurve(_Schema):
    """Points read off a paper: ``y`` of ``metric`` at ``x``, in the panel called ``panel`` (empty: every one)."""

    title: str
    metric: str
    x: list[float] = Field(min_length=1)
    y: list[float] = Field(min_length=1)
    panel: str = ""

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if len(self.x) != len(self.y):
            raise ValueError(f"published '{self.title}': {len(self.x)} x and {len(self.y)} y, expected as many")
        return self


class Curves(_Schema):
    """A figure of curves: metrics against the budget or a parameter.

    Attributes:
        curves: its name, for files.
        title: heading.
        x: ``epsilon``, or ``params.NAME``.
        x_label: axis label.
        metrics: a column of panels each.
        panels: key columns; a row of panels for each of their values.
        series: key columns; a curve for each of their values in a panel. Where that leaves several cells at one x, or
            several victims in one curve, there is a curve for each value of what tells them apart, too.
        where: which cells are drawn.
        clean: whether each curve begins at x = 0 with the clean cell of its victim.
        published: points of the paper; those with the same title have the same marker.
    """

    curves: FigureName
    title: str
    x: str = Field("epsilon", pattern=r"^(epsilon|params\..+)$")
    x_label: str = ""
    metrics: list[str] = Field(min_length=1)
    panels: list[str] = []
    series: list[str] = ["attack"]
    where: Selection = {}
    clean: bool = True
    published: list[PublishedCurve] = []

    @model_validator(mode="after")
    def _published_is_drawn(self) -> Self:
        for curve in self.published:
            if curve.metric not in self.metrics:
                raise ValueError(
                    f"exhibit {self.curves}: published '{curve.title}': metric: got '{curve.metric}', "
                    f"expected {', '.join(self.metrics)}"
                )
        return self


class Profile(_Schema):
    """A figure of bars: several metrics of the clean cells side by side, such as the gradient's mass by tenths.

    Attributes:
        profile: its name, for files.
        title: heading.
        x_label, y_label: axis labels.
        metrics: what is drawn, from left to right.
        series: key columns; a group of bars for each of their values, and of what else tells cells apart.
        where: which cells are drawn.
    """

    profile: FigureName
    title: str
    x_label: str = ""
    y_label: str = ""
    metrics: list[str] = Field(min_length=1)
    series: list[str] = ["model"]
    where: Selection = {}


class Pictures(_Schema):
    """A figure of one clip: waveform and spectrogram, original, adversarial and their difference.

    Attributes:
        pictures: its name, for files.
        title: heading.
        where: the cells that the adversarial clip is of; the first of their samples that fools the victim is drawn.
    """

    pictures: FigureName
    title: str
    where: Selection = {}


def _kind(data: Any) -> str | None:
    kinds = ("table", "curves", "profile", "pictures")
    present = [kind for kind in kinds if (kind in data if isinstance(data, dict) else hasattr(data, kind))]
    return present[0] if present else None


Exhibit = Annotated[
    Annotated[Table, Tag("table")]
    | Annotated[Curves, Tag("curves")]
    | Annotated[Profile, Tag("profile")]
    | Annotated[Pictures, Tag("pictures")],
    Discriminator(
        _kind,
        custom_error_type="exhibit",
        custom_error_message="an exhibit has one of the keys table, curves, profile, pictures",
    ),
]


def name_of(exhibit: Table | Curves | Profile | Pictures) -> str:
    """Return an exhibit's name."""
    match exhibit:
        case Table():
            return exhibit.table
        case Curves():
            return exhibit.curves
        case Profile():
            return exhibit.profile
        case Pictures():
            return exhibit.pictures
