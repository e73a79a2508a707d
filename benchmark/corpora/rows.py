"""Rows of a corpus, and the ``metadata.csv`` that describes a folder of recordings."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from advser.corpora.base import COLUMNS, shortlist
from advser.corpora.groups import NAMES, spelling
from advser.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

METADATA = "metadata.csv"
REQUIRED = ("file", "label")
FIELDS = (*REQUIRED, "speaker", "text", "gender", "split")
GENDERS = ("f", "m", "")


@dataclass(frozen=True)
class Row:
    """One recording; its fields are `advser.corpora.base.COLUMNS` of the same names."""

    clip: str
    path: Path
    label: str
    speaker: str = ""
    gender: str = ""
    text: str = ""
    split: str = ""


def to_dataset(rows: Sequence[Row]) -> Dataset:
    """Return rows as a Hugging Face dataset with undecoded audio (paths without bytes)."""
    from datasets import Audio, Dataset, Features, Value

    texts = [column for column in COLUMNS if column != "audio"]
    columns = {column: [getattr(row, column) for row in rows] for column in texts}
    features = {column: Value("string") for column in texts}
    # An Audio feature from the start needs torchcodec, even undecoded; a later cast does not.
    plain = Features({**features, "audio": {"bytes": Value("binary"), "path": Value("string")}})
    sound = [{"bytes": None, "path": str(row.path)} for row in rows]
    dataset = Dataset.from_dict({**columns, "audio": sound}, features=plain)
    return dataset.select_columns(list(COLUMNS)).cast_column("audio", Audio(decode=False))


def read_metadata(directory: Path, labels: Sequence[str] | None = None) -> list[Row]:
    """Read ``directory/metadata.csv`` (UTF-8, comma-separated, with a header), in the order of its lines.

    Args:
        directory: the folder; column ``file`` is relative to it.
        labels: the allowed labels; None allows any.

    Raises:
        InputError: if the table is missing or has no rows; if its columns lack any of `REQUIRED` or exceed `FIELDS`; if
            a line has another number of values than the header, an empty label or a label outside ``labels``, or a
            gender outside `GENDERS`; if a file is missing, listed twice or outside ``directory``.
    """
    table = directory / METADATA
    rows: list[Row] = []
    listed: dict[Path, int] = {}
    allowed = None if labels is None else [spelling(label) for label in labels]
    for line, values in _records(table):
        where = f"{table}, line {line}"
        row = _row(directory, values, where)
        if allowed is not None and row.label not in allowed:
            raise InputError(f"{where}: got label '{row.label}', expected {', '.join(allowed)}")
        first = listed.setdefault(row.path, line)
        if first != line:
            raise InputError(f"{where}: got file '{values['file']}' of line {first} again, expected each file once")
        rows.append(row)
    if not rows:
        raise InputError(f"{table}: got no rows, expected one row per recording")
    missing = [row.clip for row in rows if not os.path.isfile(row.path)]  # noqa: PTH113 (is false, not an error, for a name that is too long)
    if missing:
        raise InputError(
            f"{table}: got {len(missing)} of {len(rows)} files that do not exist, "
            f"expected all of them in {directory}: {shortlist(missing)}"
        )
    return rows


def _records(table: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        # Spreadsheet programs write a byte-order mark.
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            _refuse_nul(header, table, reader.line_num)
            _check_header(header, table)
            # csv returns blank lines as empty lists.
            lines = [(reader.line_num, values) for values in reader if values]
    except FileNotFoundError:
        raise InputError(
            f"{table}: got no such file, expected a table of the recordings with columns {', '.join(FIELDS)}"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: got '{error}', expected readable comma-separated UTF-8") from None
    for line, values in lines:
        _refuse_nul(values, table, line)
        if len(values) != len(header):
            raise InputError(f"{table}, line {line}: got {len(values)} values, expected {len(header)}, one per column")
    return [(line, dict(zip(header, values, strict=True))) for line, values in lines]


def _refuse_nul(values: Sequence[str], table: Path, line: int) -> None:
    """Raise InputError for a NUL, which a half-written file or UTF-16 leaves, and no file name may hold."""
    if any("\0" in value for value in values):
        raise InputError(f"{table}, line {line}: got a NUL character, expected UTF-8 text")


def _check_header(header: list[str], table: Path) -> None:
    wrong = [f"'{name}' is missing" for name in REQUIRED if name not in header]
    wrong += [f"'{name}' is unknown" for name in header if name not in FIELDS]
    wrong += [f"'{name}' occurs twice" for name in FIELDS if header.count(name) > 1]
    if wrong:
        raise InputError(
            f"{table}: column {'; '.join(wrong)}; expected {', '.join(FIELDS)} (required: {', '.join(REQUIRED)})"
        )


def _row(directory: Path, values: dict[str, str], where: str) -> Row:
    names = {column: spelling(values.get(column, "")) for column in NAMES}
    file, label, gender = values["file"], names["label"], names["gender"]
    if not file:
        raise InputError(f"{where}: got an empty file, expected a path relative to {directory}")
    if not label:
        raise InputError(f"{where}: got an empty label, expected a label for every recording")
    if gender not in GENDERS:
        raise InputError(f"{where}: got gender '{gender}', expected f, m or empty")
    path = (directory / file).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise InputError(f"{where}: got file '{file}' outside {directory}, expected a path inside it")
    return Row(clip=_place(directory, file, path), path=path, **names)


def _place(directory: Path, file: str, path: Path) -> str:
    """Return a file's place in the folder; ``file`` may begin with ``./`` or be absolute, ``path`` is resolved."""
    plain = Path(os.path.normpath(directory.absolute() / file))
    inside = plain.is_relative_to(directory.absolute())
    return (plain.relative_to(directory.absolute()) if inside else path.relative_to(directory.resolve())).as_posix()
