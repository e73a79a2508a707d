"""The RESULTS folder: tables of figures, examples and ranks, and the description of the run.

``results.parquet`` has one row per cell and metric; ``examples.parquet`` one row per cell and clip, with a column per
clip metric (`advser.results.schema`); ``run.json`` the provenance (`advser.store.provenance`), the full suite, notes
and failures. A value is NaN exactly where the status is not ``ok``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from advser.errors import InputError
from advser.results.run_record import check_run, read_json
from advser.results.schema import (
    EXAMPLES_FILE,
    EXAMPLES_SCHEMA,
    POOLED_FILE,
    POOLED_SCHEMA,
    RANKS_FILE,
    RANKS_SCHEMA,
    RENAMED_CHECKS,
    RUN_FILE,
    SCHEMA_VERSION,
    TABLE_FILE,
    TABLE_SCHEMA,
    check_table,
    conform,
    no_examples,
    no_pooled,
    no_ranks,
    upgraded,
    with_further_numbers,
)
from advser.store.files import replacing

UNSIGNED: Final = "The tables carry no digests, so nobody can see whether they were changed since the run."
"""Note on results that were written before tables had digests."""

TABLES: Final = (TABLE_FILE, EXAMPLES_FILE, RANKS_FILE, POOLED_FILE)


@dataclass(frozen=True)
class MetricInfo:
    """Presentation of a metric: column heading, unit, number of decimals."""

    title: str
    unit: str = ""
    decimals: int = 3


@dataclass(frozen=True, eq=False)
class Results:
    """The results of a run.

    Attributes:
        table: columns `TABLE_SCHEMA`, one row per cell and metric, in the order of the suite.
        examples: columns `EXAMPLES_SCHEMA` and further columns of numbers; empty in published results.
        run: ``notes`` (texts that every board prints) and ``failures`` (a list), both required, and the description of
            the run: `advser.store.provenance`, ``suite``, ``jobs``, ``metrics`` (name → ``{title, unit, decimals}``).
        ranks: columns `RANKS_SCHEMA`; empty in older results.
        pooled: columns `POOLED_SCHEMA`; empty with one seed.

    Raises:
        InputError: if columns are missing or of the wrong type, a status is unknown, a value is not NaN exactly
            where the status is not ``ok``, a cell and metric occur twice, or ``run`` lacks a key.
    """

    table: pd.DataFrame
    examples: pd.DataFrame
    run: dict[str, Any]
    ranks: pd.DataFrame = field(default_factory=no_ranks)
    pooled: pd.DataFrame = field(default_factory=no_pooled)

    def __post_init__(self) -> None:
        check_run(self.run, RUN_FILE)
        object.__setattr__(self, "table", conform(self.table, TABLE_SCHEMA, TABLE_FILE))
        check_table(self.table, TABLE_FILE)
        schema = with_further_numbers(self.examples, EXAMPLES_SCHEMA)
        object.__setattr__(self, "examples", conform(self.examples, schema, EXAMPLES_FILE))
        object.__setattr__(self, "ranks", conform(self.ranks, RANKS_SCHEMA, RANKS_FILE))
        object.__setattr__(self, "pooled", conform(self.pooled, POOLED_SCHEMA, POOLED_FILE))

    @property
    def notes(self) -> tuple[str, ...]:
        """Texts that every board prints."""
        return tuple(self.run["notes"])

    def metric(self, name: str) -> MetricInfo:
        """Return the presentation of a metric; its own name is the heading if the run does not describe it."""
        described = self.run.get("metrics", {}).get(name, {})
        return MetricInfo(described.get("title", name), described.get("unit", ""), described.get("decimals", 3))

    @classmethod
    def load(cls, directory: Path | str) -> Self:
        """Read a RESULTS folder.

        ``examples.parquet`` (absent in published results), ``ranks.parquet`` and ``pooled.parquet`` are optional.

        Raises:
            InputError: if the folder or a required file is missing, or a file is corrupt, has the wrong columns, or is
                of a newer schema, or a table differs from its digest.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise InputError(f"results {directory}: got no such folder, expected a folder that `advser run` wrote")
        run = _read_run(directory / RUN_FILE)
        try:
            run = _check_digests(directory, run)
        except InputError as error:
            raise InputError(f"results {directory}: {error}") from None
        table = upgraded(_read_parquet(directory / TABLE_FILE), TABLE_SCHEMA, run)
        examples = directory / EXAMPLES_FILE
        try:
            ranks = _read_or(directory / RANKS_FILE, no_ranks())
            pooled = _read_or(directory / POOLED_FILE, no_pooled())
            return cls(table, _read_examples(examples, run), run, ranks, pooled)
        except InputError as error:
            raise InputError(f"results {directory}: {error}") from None

    def save(self, directory: Path) -> None:
        """Write the files into ``directory``, each atomically; empty ranks and pooled figures leave no file.

        ``run.json`` is written last, with the SHA-256 of each table.
        """
        tables = {EXAMPLES_FILE: self.examples, TABLE_FILE: self.table}
        for name, frame in ((RANKS_FILE, self.ranks), (POOLED_FILE, self.pooled)):
            if frame.empty:
                (directory / name).unlink(missing_ok=True)
            else:
                tables[name] = frame
        digests = {}
        for name, frame in tables.items():
            with replacing(directory / name) as path:
                pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
                digests[name] = _sha256(path)
        notes = [note for note in self.run["notes"] if note != UNSIGNED]
        run = {**self.run, "notes": notes, "schema": SCHEMA_VERSION, "digests": dict(sorted(digests.items()))}
        with replacing(directory / RUN_FILE) as path:
            path.write_text(json.dumps(run, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_digests(directory: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run, with a note if it has no digests of its tables.

    Raises:
        InputError: if a table is not the one that the run wrote.
    """
    if "digests" not in run:
        return {**run, "notes": [*run["notes"], UNSIGNED]}
    digests = run["digests"]
    for name in TABLES:
        path = directory / name
        # Published results leave out the examples.
        if name in digests and name not in (EXAMPLES_FILE, TABLE_FILE) and not path.is_file():
            raise InputError(f"{name}: got no such file, expected the table whose digest is in {RUN_FILE}")
        if path.is_file() and digests.get(name) != _sha256(path):
            raise InputError(f"{name}: got a table that differs from its digest in {RUN_FILE}, expected it unchanged")
    return dict(run)


def _read_or(path: Path, otherwise: pd.DataFrame) -> pd.DataFrame:
    return _read_parquet(path) if path.exists() else otherwise


def _read_examples(path: Path, run: Mapping[str, Any]) -> pd.DataFrame:
    return upgraded(_read_parquet(path), EXAMPLES_SCHEMA, run) if path.exists() else no_examples()


def _read_parquet(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"results {path}: got no such file, expected a folder that `advser run` wrote")
    try:
        # Without pandas' metadata in the file, an index is read as a column.
        return pq.read_table(path).replace_schema_metadata(None).to_pandas()  # type: ignore[no-any-return]
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"results {path}: corrupt: {' '.join(str(error).split())}") from None


def _read_run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"results {path}: got no such file, expected a folder that `advser run` wrote")
    try:
        run = read_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"results {path}: corrupt: {' '.join(str(error).split())}") from None
    if not isinstance(run, dict):
        raise InputError(f"results {path}: got {type(run).__name__}, expected a mapping of keys")
    version = run.get("schema")
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise InputError(f"results {path}: schema: got {version!r}, expected {SCHEMA_VERSION} (is advser older?)")
    check_run(run, f"results {path}")
    return {**run, "audit": _with_present_names(run["audit"])} if "audit" in run else run


def _with_present_names(audit: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of an audit with the present names of its checks."""
    named: dict[str, Any] = {
        key: {RENAMED_CHECKS.get(name, name): value for name, value in audit.get(key, {}).items()}
        for key in ("checks", "needs", "looked_at")
    }
    flags = [{**flag, "check": RENAMED_CHECKS.get(flag["check"], flag["check"])} for flag in audit.get("flags", [])]
    return {**audit, **named, "flags": flags}
