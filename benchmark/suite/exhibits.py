"""Exhibits: a paper's tables and figures, declared as data in a suite and shown beside the boards.

An exhibit selects cells of the results by their keys and shows them beside published values. A *selection* maps key
columns to exact values (``{attack: fgsm, epsilon: 0.06}``); ``params.NAME`` is a parameter of the attack.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from advser.suite.texts import Label, Prose, Title

Value = str | int | float | bool | None


def _yaml_truth(value: Any) -> Any:
    # YAML reads a bare `true` as a Boolean, but labels are texts.
    return (
        {k: "true" if k == "labels" and v is True else v for k, v in value.items()}
        if isinstance(value, dict)
        else value
    )


Selection = Annotated[dict[str, Value], BeforeValidator(_yaml_truth)]
"""Key column, or ``params.NAME`` → the value that a cell must have."""


DRAWN_METRICS: Final = ("uar", "accuracy", "wer")
"""Metrics with a figure in every run that has them."""

DRAWN_AXES: Final = ("epsilon", "steps")
"""The x axes of these figures."""

_DRAWN: Final = re.compile(rf"({'|'.join(DRAWN_METRICS)})-against-({'|'.join(DRAWN_AXES)})([-_].*)?")
_NAME: Final = r"^[a-z0-9][a-z0-9-]{0,99}$"


def _not_drawn_anyway(name: str) -> str:
    if drawn := _DRAWN.fullmatch(name):
        raise ValueError(
            f"got '{name}', expected a name that does not begin with '{drawn[1]}-against-{drawn[2]}', "
            "a figure that every run has"
        )
    return name


FigureName = Annotated[str, Field(pattern=_NAME), AfterValidator(_not_drawn_anyway)]
"""Name of a figure and its files; names of `advser.leaderboards.figures.budget_curves` are refused."""


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TableRow(_Schema):
    """A row of a table.

    Attributes:
        title: the row's heading.
        section: heading above the rows that share it.
        where: selection of cells, in all columns.
        given: name → value, for columns whose selection has ``$name``.
        published: the published value of each column; null where the paper has none.
    """

    title: Title
    section: Label = ""
    where: Selection = {}
    given: dict[str, Value] = {}
    published: list[float | None] = []


class TableColumn(_Schema):
    """A column of a table: ``metric`` of the cells that ``where`` selects, under the lines of ``title``."""

    title: list[Title] = Field(min_length=1)
    metric: str
    where: Selection = {}


class Table(_Schema):
    """A table: each column's measured value beside the published value.

    Attributes:
        table: its name, for files and for ``advser board --by``.
        title: heading.
        stub: heading of the rows' titles.
        published: heading of the published values.
        where: selection of cells, in all rows and columns.
        rows, columns: the rows and columns; if a row and column select several cells, a footnote names their
            differences.
        notes: notes for readers.
    """

    table: str = Field(pattern=_NAME)
    title: Title
    stub: Title = ""
    published: Title = "published"
    where: Selection = {}
    rows: list[TableRow] = Field(min_length=1)
    columns: list[TableColumn] = Field(min_length=1)
    notes: list[Prose] = []

    @model_validator(mode="after")
    def _published_fits(self) -> Self:
        for row in self.rows:
            if row.published and len(row.published) != len(self.columns):
                raise ValueError(
                    f"exhibit {self.table}: row '{row.title}' has {len(row.published)} published values, "
                    f"expected {len(self.columns)}, one per column"
                )
            for column in self.columns:
                for value in column.where.values():
                    if isinstance(value, str) and value.startswith("$") and value[1:] not in row.given:
                        raise ValueError(f"exhibit {self.table}: row '{row.title}' gives no {value[1:]}")
        return self


class PublishedCurve(_Schema):
    """Points read off a paper: ``y`` of ``metric`` at ``x``, in the panel ``panel`` (empty: all panels)."""

    title: Title
    metric: str
    x: list[float] = Field(min_length=1)
    y: list[float] = Field(min_length=1)
    panel: Label = ""

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if len(self.x) != len(self.y):
            raise ValueError(f"published '{self.title}': got {len(self.x)} x and {len(self.y)} y, expected as many")
        return self


class Curves(_Schema):
    """A figure of curves: metrics against the budget or a parameter.

    Attributes:
        curves: its name, for files.
        title: heading.
        x: ``epsilon``, or ``params.NAME``.
        x_label: axis label.
        metrics: metrics, each in its own column of panels.
        panels: key columns; each combination of their values has its own row of panels.
        series: key columns; each combination of their values has its own curve in a panel. Curves are split further by
            other keys, until each has one victim and one cell at each x.
        where: selection of cells.
        clean: whether each curve begins at x = 0 with the clean cell of its victim.
        published: points of the paper; points with the same title have the same marker.
    """

    curves: FigureName
    title: Title
    x: str = Field("epsilon", pattern=r"^(epsilon|params\..+)$")
    x_label: Title = ""
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
        metrics: metrics, from left to right.
        series: key columns; each combination of their values, and of other keys that differ, has its group of bars.
        where: selection of cells.
    """

    profile: FigureName
    title: Title
    x_label: Title = ""
    y_label: Title = ""
    metrics: list[str] = Field(min_length=1)
    series: list[str] = ["model"]
    where: Selection = {}


class Pictures(_Schema):
    """A figure of one clip: waveform and spectrogram of the original, the adversarial example and their difference.

    Attributes:
        pictures: its name, for files.
        title: heading.
        where: selection of cells; the figure shows their first sample that misleads the victim.
    """

    pictures: FigureName
    title: Title
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
        custom_error_message="got an exhibit of no kind, expected one of the keys table, curves, profile, pictures",
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
