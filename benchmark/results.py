"""The RESULTS folder: one long table, one row a clip and cell, and the circumstances of the run.

``results.parquet`` has one row a cell and metric (`TABLE_SCHEMA`), ``examples.parquet`` one row a cell and clip
(`EXAMPLES_SCHEMA` and a column a metric that measures clips), ``run.json`` what the run was (`advser.provenance`, the
suite in full, notes, failures). A value is NaN exactly where the status is not ``ok``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from advser.errors import InputError, did_you_mean
from advser.store import replacing

SCHEMA_VERSION: Final = 4
"""Version 2 added the key ``part``, and to the examples what the victim's detector says; version 3 the tables
``ranks.parquet`` and ``pooled.parquet``, and the anchors; version 4 to the examples ``model_key``."""

TABLE_FILE: Final = "results.parquet"
RANKS_FILE: Final = "ranks.parquet"
POOLED_FILE: Final = "pooled.parquet"
EXAMPLES_FILE: Final = "examples.parquet"
RUN_FILE: Final = "run.json"
SAMPLES_FOLDER: Final = "samples"
"""Where a few clips of every cell are, as `advser.samples` writes them."""

SAMPLES_INDEX: Final = "index.json"
"""The file in it that tells what each of them is."""


Status = Literal["ok", "failed", "not-applicable"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)

CLEAN: Final = "none"
"""The attack of the clean cell."""

MEASURED_ANEW: Final = ("seconds",)
"""Metrics that differ from run to run and from machine to machine."""

_KEY_FIELDS: Final = [
    pa.field("suite", pa.string()),
    pa.field("part", pa.string()),
    pa.field("corpus", pa.string()),
    pa.field("task", pa.string()),
    pa.field("protocol", pa.string()),
    pa.field("split", pa.string()),
    pa.field("seed", pa.int64()),
    pa.field("model", pa.string()),
    pa.field("defense", pa.string()),
    pa.field("attack", pa.string()),
    pa.field("params", pa.string()),
    pa.field("domain", pa.string()),
    pa.field("delivery", pa.string()),
    pa.field("labels", pa.string()),
    pa.field("access", pa.string()),
    pa.field("norm", pa.string()),
    pa.field("epsilon", pa.float64()),
    pa.field("epsilon_unit", pa.string()),
    pa.field("source_model", pa.string()),
    pa.field("source_defense", pa.string()),
]

KEYS: Final[tuple[str, ...]] = tuple(field.name for field in _KEY_FIELDS)
"""What names a cell. ``params`` is the JSON text of the attack's parameters; ``epsilon`` is NaN where there is no
budget; ``source_model`` and ``source_defense`` name the surrogate where ``access`` is ``transfer``. A text that does
not apply is empty."""

TABLE_SCHEMA: Final = pa.schema(
    [
        *_KEY_FIELDS,
        pa.field("metric", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("ci_low", pa.float64()),
        pa.field("ci_high", pa.float64()),
        pa.field("n", pa.int64()),
        pa.field("n_failed", pa.int64()),
        pa.field("status", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("higher_is_better", pa.bool_()),
    ]
)
"""Columns of the table. ``ci_low`` and ``ci_high`` bound the 95 % interval (NaN: none); ``n`` clips count,
``n_failed`` could not be measured; ``reason`` says why a value is missing, or why clips are."""

Among = Literal["model", "defense", "attacks", "leaderboard"]
"""With what an entry is compared: the defenses of one model, the models with one defense, the attacks on one victim in
one place with one budget, or all victims under the worst of their attacks."""

FEWEST: Final = 6
"""Fewest speakers with whom the sign-flip test can tell two entries apart: 2 of 2^5 flips would be more than .05."""

RANKS_SCHEMA: Final = pa.schema(
    [
        *(key for key in _KEY_FIELDS if key.name not in ("seed", "source_model", "source_defense")),
        pa.field("among", pa.string()),
        pa.field("metric", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("ci_low", pa.float64()),
        pa.field("ci_high", pa.float64()),
        pa.field("spread", pa.float64()),
        pa.field("rank", pa.int64()),
        pa.field("rank_low", pa.int64()),
        pa.field("rank_high", pa.int64()),
        pa.field("tie", pa.int64()),
        pa.field("difference", pa.float64()),
        pa.field("difference_low", pa.float64()),
        pa.field("difference_high", pa.float64()),
        pa.field("p", pa.float64()),
        pa.field("entries", pa.int64()),
        pa.field("speakers", pa.int64()),
        pa.field("seeds", pa.int64()),
        pa.field("attacks", pa.int64()),
        pa.field("reason", pa.string()),
    ]
)
"""Columns of the ranks, as ``docs/results.md`` describes them. ``rank``, its interval and ``tie`` are 0 exactly where
there is a ``reason`` why an entry has no rank."""

POOLED_SCHEMA: Final = pa.schema(
    [
        *(column for column in TABLE_SCHEMA if column.name != "seed"),
        pa.field("spread", pa.float64()),
        pa.field("seeds", pa.int64()),
    ]
)
"""Columns of the figures over all seeds: those of the table but ``seed``, the standard deviation over seeds, and how
many there are."""

EXAMPLES_SCHEMA: Final = pa.schema(
    [
        *_KEY_FIELDS,
        pa.field("fold", pa.string()),
        pa.field("clip", pa.string()),
        pa.field("speaker", pa.string()),
        pa.field("label", pa.int64()),
        pa.field("prediction", pa.int64()),
        pa.field("clean_prediction", pa.int64()),
        pa.field("source_prediction", pa.int64()),
        pa.field("loss", pa.float64()),
        pa.field("margin", pa.float64()),
        pa.field("detection", pa.float64()),
        pa.field("clean_detection", pa.float64()),
        pa.field("transcript", pa.string()),
        pa.field("text", pa.string()),
        pa.field("word_errors", pa.float64()),
        pa.field("clean_word_errors", pa.float64()),
        pa.field("words", pa.float64()),
        pa.field("char_errors", pa.float64()),
        pa.field("clean_char_errors", pa.float64()),
        pa.field("chars", pa.float64()),
        pa.field("seconds", pa.float64()),
        pa.field("forwards", pa.float64()),
        pa.field("backwards", pa.float64()),
        pa.field("audio_key", pa.string()),
        pa.field("model_key", pa.string()),
    ]
)
"""Columns of the examples. ``label`` and the predictions are class numbers (−1: there is none); ``seconds``,
``forwards`` and ``backwards`` are the cost of crafting the clip; ``audio_key`` is the store's key of the sound that
was judged, ``model_key`` that of the trained model that judged it; ``detection`` and ``clean_detection`` are the logits
of the victim's detector (above 0: taken for adversarial). NaN: not measured, or no detector. Further columns of numbers
hold what clip metrics measured (``snr``, ``pesq``, …)."""


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is shown: column heading, unit, decimals."""

    title: str
    unit: str = ""
    decimals: int = 3


def no_examples() -> pd.DataFrame:
    """Return an examples table without rows."""
    return EXAMPLES_SCHEMA.empty_table().to_pandas()  # type: ignore[no-any-return]


def no_ranks() -> pd.DataFrame:
    """Return a table of ranks without rows."""
    return RANKS_SCHEMA.empty_table().to_pandas()  # type: ignore[no-any-return]


def no_pooled() -> pd.DataFrame:
    """Return a table of figures over all seeds without rows."""
    return POOLED_SCHEMA.empty_table().to_pandas()  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class Results:
    """What a run found.

    Attributes:
        table: columns `TABLE_SCHEMA`, one row a cell and metric, in the order of the suite.
        examples: columns `EXAMPLES_SCHEMA` and further columns of numbers; empty in published results.
        run: ``notes`` (texts that every board prints) and ``failures`` (a list), with anything that describes the
            run: `advser.provenance`, ``suite``, ``jobs``, and ``metrics``: name → ``{title, unit, decimals}``.
        ranks: columns `RANKS_SCHEMA`; empty in older results.
        pooled: columns `POOLED_SCHEMA`; empty where there is one seed.

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
        _check_run(self.run, RUN_FILE)
        object.__setattr__(self, "table", _conform(self.table, TABLE_SCHEMA, TABLE_FILE))
        _check_table(self.table, TABLE_FILE)
        schema = _with_further_numbers(self.examples, EXAMPLES_SCHEMA)
        object.__setattr__(self, "examples", _conform(self.examples, schema, EXAMPLES_FILE))
        object.__setattr__(self, "ranks", _conform(self.ranks, RANKS_SCHEMA, RANKS_FILE))
        object.__setattr__(self, "pooled", _conform(self.pooled, POOLED_SCHEMA, POOLED_FILE))

    @property
    def notes(self) -> tuple[str, ...]:
        """The texts that every board prints."""
        return tuple(self.run["notes"])

    def metric(self, name: str) -> MetricInfo:
        """Return how a metric is shown; one that the run does not describe is shown under its own name."""
        described = self.run.get("metrics", {}).get(name, {})
        return MetricInfo(described.get("title", name), described.get("unit", ""), described.get("decimals", 3))

    @classmethod
    def load(cls, directory: Path | str) -> Self:
        """Read a RESULTS folder.

        ``examples.parquet`` may be absent, as in published results, and so may ``ranks.parquet`` and
        ``pooled.parquet``.

        Raises:
            InputError: if the folder or a file is missing or corrupt, has the wrong columns, or is of a newer schema.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise InputError(f"results {directory}: no such folder, allowed: a folder that `advser run` wrote")
        run = _read_run(directory / RUN_FILE)
        table = _upgraded(_read_parquet(directory / TABLE_FILE), TABLE_SCHEMA, run)
        examples = directory / EXAMPLES_FILE
        try:
            ranks = _read_or(directory / RANKS_FILE, no_ranks())
            pooled = _read_or(directory / POOLED_FILE, no_pooled())
            return cls(table, _read_examples(examples, run), run, ranks, pooled)
        except InputError as error:
            raise InputError(f"results {directory}: {error}") from None

    def save(self, directory: Path) -> None:
        """Write the files into ``directory``, each beside and renamed; ranks and pooled figures if there are any."""
        for name, frame in ((RANKS_FILE, self.ranks), (POOLED_FILE, self.pooled)):
            if frame.empty:
                (directory / name).unlink(missing_ok=True)
            else:
                with replacing(directory / name) as path:
                    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
        for name, frame in ((EXAMPLES_FILE, self.examples), (TABLE_FILE, self.table)):
            with replacing(directory / name) as path:
                pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
        with replacing(directory / RUN_FILE) as path:
            text = json.dumps({**self.run, "schema": SCHEMA_VERSION}, indent=2, ensure_ascii=False, allow_nan=False)
            path.write_text(text + "\n", encoding="utf-8")


_NEITHER_MAY_BE_BETTER: Final = "higher_is_better"
"""The one column beside texts and numbers that may be empty: of a metric that has no better direction."""

_ADDED: Final[dict[int, dict[str, Any]]] = {
    2: {"part": "", "detection": np.nan, "clean_detection": np.nan},
    4: {"model_key": ""},
}
"""Version → the columns that it added, with what older tables have there."""


def _upgraded(frame: pd.DataFrame, schema: pa.Schema, run: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table of an older schema with the columns that were added since."""
    later = [columns for since, columns in _ADDED.items() if run["schema"] < since]
    added = {name: value for columns in later for name, value in columns.items()}
    return frame.assign(**{name: value for name, value in added.items() if name in schema.names and name not in frame})


def _read_or(path: Path, otherwise: pd.DataFrame) -> pd.DataFrame:
    return _read_parquet(path) if path.exists() else otherwise


def _read_examples(path: Path, run: Mapping[str, Any]) -> pd.DataFrame:
    return _upgraded(_read_parquet(path), EXAMPLES_SCHEMA, run) if path.exists() else no_examples()


def value_text(value: Any) -> str:
    """Return a parameter's value as titles and boards show it: numbers in their shortest form, else JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value, sort_keys=True)
    return f"{value:g}"


def select(results: Results, where: Mapping[str, str | float]) -> Results:
    """Return the cells whose keys match: key → glob over the key's text, as in ``{"model": "cnn*"}``.

    ``epsilon`` is compared in its shortest form (``0.06``), and so are globs that are numbers; an empty text is matched
    by ``""``. Ranks stay what they are among all entries; the ranks and figures over several seeds are left out if
    seeds are chosen.

    Raises:
        InputError: if a key is unknown or nothing matches.
    """
    globs = {key: value_text(glob) for key, glob in where.items()}
    for key in globs:
        if key not in KEYS:
            raise InputError(f"--where {key}: unknown key, allowed: {', '.join(KEYS)}{did_you_mean(key, KEYS)}")
    for key, glob in globs.items():
        if not _matches(results.table, {key: glob}).any():
            there = ", ".join(sorted({_key_text(key, value) or '""' for value in results.table[key]}))
            raise InputError(f"--where {key}={glob}: no cell matches, allowed here: {there}")
    table = results.table[_matches(results.table, globs)]
    if table.empty:
        raise InputError("--where " + ", ".join(f"{k}={v}" for k, v in globs.items()) + ": no cell matches them all")
    one_of_several = "seed" in globs and len(results.pooled)
    ranks = no_ranks() if one_of_several else _select_known(results.ranks, globs)
    pooled = no_pooled() if one_of_several else _select_known(results.pooled, globs)
    examples = results.examples[_matches(results.examples, globs)].reset_index(drop=True)
    return replace(results, table=table.reset_index(drop=True), examples=examples, ranks=ranks, pooled=pooled)


def _select_known(frame: pd.DataFrame, where: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows that match in those keys that a table has."""
    return frame[_matches(frame, {key: glob for key, glob in where.items() if key in frame})].reset_index(drop=True)


def with_metrics(results: Results, names: Sequence[str]) -> Results:
    """Return the figures of some metrics, in the order of ``names``, each once.

    Raises:
        InputError: if the results do not have one of them.
    """
    known = list(results.table["metric"].unique())
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in known:
            raise InputError(f"--metrics {name}: allowed: {', '.join(known)}{did_you_mean(name, known)}")
    table, pooled = (
        pd.concat([frame[frame["metric"] == name] for name in names], ignore_index=True)
        for frame in (results.table, results.pooled)
    )
    return replace(results, table=table, pooled=pooled)


def _matches(frame: pd.DataFrame, where: Mapping[str, str]) -> npt.NDArray[np.bool_]:
    mask = np.ones(len(frame), dtype=bool)
    for key, pattern in where.items():
        codes, values = pd.factorize(frame[key], use_na_sentinel=False)
        mask &= np.array([fnmatchcase(_key_text(key, value), pattern) for value in values], dtype=bool)[codes]
    return mask


def _key_text(key: str, value: Any) -> str:
    """Return the text of a key that globs are held against."""
    return "" if pd.isna(value) else f"{value:g}" if key == "epsilon" else str(value)


def _conform(frame: pd.DataFrame, schema: pa.Schema, file: str) -> pd.DataFrame:
    """Return ``frame`` with exactly the schema's columns, types and order; absent texts become empty."""
    missing = [name for name in schema.names if name not in frame.columns]
    if missing:
        raise InputError(f"{file}: found no column {', '.join(missing)}, allowed: {', '.join(schema.names)}")
    unknown = [str(name) for name in frame.columns if name not in schema.names]
    if unknown:
        raise InputError(f"{file}: found unknown column {', '.join(unknown)}, allowed: {', '.join(schema.names)}")
    columns = {}
    for wanted in schema:
        column = frame[wanted.name]
        if pa.types.is_string(wanted.type):
            column = column.astype(object).where(column.notna(), "")
        try:
            array = pa.Array.from_pandas(column, type=wanted.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{file}: column {wanted.name}: {reason}, allowed: {wanted.type}") from None
        if array.null_count and not (pa.types.is_floating(wanted.type) or wanted.name == _NEITHER_MAY_BE_BETTER):
            raise InputError(f"{file}: column {wanted.name}: found empty values, allowed: {wanted.type}")
        columns[wanted.name] = array.to_pandas()
    return pd.DataFrame(columns, columns=schema.names)


def _with_further_numbers(frame: pd.DataFrame, schema: pa.Schema) -> pa.Schema:
    further = [name for name in frame.columns if name not in schema.names]
    return pa.schema([*schema, *(pa.field(str(name), pa.float64()) for name in further)])


def _check_table(table: pd.DataFrame, file: str) -> None:
    unknown = sorted(set(table["status"]) - set(STATUSES))
    if unknown:
        raise InputError(f"{file}: column status: found '{unknown[0]}', allowed: {', '.join(STATUSES)}")
    wrong = table[(table["status"] == "ok") == table["value"].isna()]
    if len(wrong):
        row = wrong.iloc[0]
        raise InputError(
            f"{file}: {row['metric']} of {row['attack']} on {row['model']}: found value {row['value']} with status "
            f"{row['status']}, allowed: a number exactly where the status is ok"
        )
    twice = table[table.duplicated([*KEYS, "metric"])]
    if len(twice):
        row = twice.iloc[0]
        raise InputError(
            f"{file}: {row['metric']} of {row['attack']} on {row['model']} is there twice, allowed: once a cell"
        )


def _read_parquet(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"results {path}: no such file, allowed: a folder that `advser run` wrote")
    try:
        # Without its metadata the file says nothing of how pandas should rebuild it: columns only.
        return pq.read_table(path).replace_schema_metadata(None).to_pandas()  # type: ignore[no-any-return]
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"results {path}: corrupt: {' '.join(str(error).split())}") from None


def _read_run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"results {path}: no such file, allowed: a folder that `advser run` wrote")
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"results {path}: corrupt: {' '.join(str(error).split())}") from None
    if not isinstance(run, dict):
        raise InputError(f"results {path}: found {type(run).__name__}, allowed: a mapping of keys")
    version = run.get("schema")
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise InputError(f"results {path}: schema: found {version!r}, allowed: {SCHEMA_VERSION} (is advser older?)")
    return run


def _check_run(run: Mapping[str, Any], file: str) -> None:
    notes = run.get("notes")
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise InputError(f"{file}: notes: found {notes!r}, allowed: a list of texts")
    if not isinstance(run.get("failures"), list):
        raise InputError(f"{file}: failures: found {run.get('failures')!r}, allowed: a list")
