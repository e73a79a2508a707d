"""The tables of a RESULTS folder: their files, columns and types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from advser.errors import InputError
from advser.results.terms import CHANCE_BASELINES

SCHEMA_VERSION: Final = 4
"""Version 2 added the key ``part``, and to the examples ``detection`` and ``clean_detection``; version 3 the tables
``ranks.parquet`` and ``pooled.parquet``, and the chance baselines; version 4 to the examples ``model_key``."""

TABLE_FILE: Final = "results.parquet"
RANKS_FILE: Final = "ranks.parquet"
POOLED_FILE: Final = "pooled.parquet"
EXAMPLES_FILE: Final = "examples.parquet"
RUN_FILE: Final = "run.json"
SAMPLES_FOLDER: Final = "samples"
"""Folder with a few clips of every cell (`advser.execution.samples`)."""

SAMPLES_INDEX: Final = "index.json"
"""Index of the files in that folder."""


Status = Literal["ok", "failed", "not-applicable"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)

CLEAN: Final = "none"
"""The attack of the clean cell."""

MACHINE_DEPENDENT: Final = ("seconds",)
"""Metrics whose figures differ from run to run and from machine to machine."""

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
"""Columns that identify a cell. ``params`` is the JSON text of the attack's parameters; ``epsilon`` is NaN without a
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
"""Columns of the table. ``ci_low`` and ``ci_high``: bounds of the 95 % interval (NaN: none); ``n``: number of clips
that count; ``n_failed``: number of failed clips; ``reason``: why the value, or some clips, are missing."""

Among = Literal["model", "defense", "attacks", "leaderboard"]
"""Entries that are compared: the defenses of one model, the models with one defense, the attacks on one victim in
one place with one budget, or all victims under the worst of their attacks."""

FEWEST: Final = 6
"""Smallest number of speakers with which the sign-flip test can separate two entries: 2 of 2^5 flips exceed .05."""

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
a ``reason`` states why the entry has no rank."""

POOLED_SCHEMA: Final = pa.schema(
    [
        *(column for column in TABLE_SCHEMA if column.name != "seed"),
        pa.field("spread", pa.float64()),
        pa.field("seeds", pa.int64()),
    ]
)
"""Columns of the figures over all seeds: those of the table but ``seed``; ``spread``, the standard deviation over
seeds; ``seeds``, their number."""

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
"""Columns of the examples. ``label`` and the predictions are class numbers (−1: none); ``seconds``, ``forwards`` and
``backwards`` are the cost of crafting the clip; ``audio_key`` is the store's key of the judged sound, ``model_key``
that of the victim; ``detection`` and ``clean_detection`` are the logits of the victim's detector (above 0: classified
as adversarial). NaN: not measured, or no detector. Further columns of numbers hold the measurements of clip metrics
(``snr``, ``pesq``, …)."""

_NULLABLE: Final = "higher_is_better"
"""The only column besides texts and floats that may be empty: for a metric without a better direction."""

_ADDED: Final[dict[int, dict[str, Any]]] = {
    2: {"part": "", "detection": np.nan, "clean_detection": np.nan},
    4: {"model_key": ""},
}
"""Version → the columns that it added, with their value in older tables."""


def value_text(value: Any) -> str:
    """Return a parameter's value as titles and boards show it: texts as they are, numbers short, else JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value, sort_keys=True)
    return f"{value:g}"


def no_examples() -> pd.DataFrame:
    """Return an examples table without rows."""
    return EXAMPLES_SCHEMA.empty_table().to_pandas()  # type: ignore[no-any-return]


def no_ranks() -> pd.DataFrame:
    """Return a table of ranks without rows."""
    return RANKS_SCHEMA.empty_table().to_pandas()  # type: ignore[no-any-return]


def no_pooled() -> pd.DataFrame:
    """Return a table of figures over all seeds without rows."""
    return POOLED_SCHEMA.empty_table().to_pandas()  # type: ignore[no-any-return]


def upgraded(frame: pd.DataFrame, schema: pa.Schema, run: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table with the columns of its ``schema`` that were added after the version of ``run``."""
    added: dict[str, Any] = {}
    for version, columns in _ADDED.items():
        if run["schema"] < version:
            added |= {name: value for name, value in columns.items() if name in schema.names and name not in frame}
    return frame.assign(**added)


def conform(frame: pd.DataFrame, schema: pa.Schema, file: str) -> pd.DataFrame:
    """Return ``frame`` with exactly the schema's columns, types and order; absent texts become empty.

    Raises:
        InputError: if a column is missing, unknown or of another type; the message names ``file``.
    """
    missing = [name for name in schema.names if name not in frame.columns]
    if missing:
        raise InputError(f"{file}: got no column {', '.join(missing)}, expected {', '.join(schema.names)}")
    unknown = [str(name) for name in frame.columns if name not in schema.names]
    if unknown:
        raise InputError(f"{file}: got unknown column {', '.join(unknown)}, expected {', '.join(schema.names)}")
    columns = {}
    for wanted in schema:
        try:
            array = pa.Array.from_pandas(frame[wanted.name], type=wanted.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{file}: column {wanted.name}: {reason}, expected {wanted.type}") from None
        if isinstance(array, pa.ChunkedArray):
            # In one piece: pandas cannot merge a column of none.
            array = array.combine_chunks()
        if pa.types.is_string(wanted.type):
            array = array.fill_null("")
        if array.null_count and not (pa.types.is_floating(wanted.type) or wanted.name == _NULLABLE):
            raise InputError(f"{file}: column {wanted.name}: got empty values, expected {wanted.type}")
        columns[wanted.name] = array.to_pandas()
    return pd.DataFrame(columns, columns=schema.names)


def with_further_numbers(frame: pd.DataFrame, schema: pa.Schema) -> pa.Schema:
    """Return a schema extended by a table's further columns, as numbers."""
    further = [name for name in frame.columns if name not in schema.names]
    return pa.schema([*schema, *(pa.field(str(name), pa.float64()) for name in further)])


def check_table(table: pd.DataFrame, file: str) -> None:
    """Raise InputError if a table of figures contradicts itself.

    Raises:
        InputError: if a status is unknown, a value is not NaN exactly where the status is not ``ok``, or a cell and
            metric occur twice, or an accuracy is no share of its clips; the message names ``file``.
    """
    unknown = sorted(set(table["status"]) - set(STATUSES))
    if unknown:
        raise InputError(f"{file}: column status: got '{unknown[0]}', expected {', '.join(STATUSES)}")
    wrong = table[(table["status"] == "ok") == table["value"].isna()]
    if len(wrong):
        row = wrong.iloc[0]
        raise InputError(
            f"{file}: {row['metric']} of {row['attack']} on {row['model']}: got value {row['value']} with status "
            f"{row['status']}, expected a number exactly where the status is ok"
        )
    _check_accuracies(table, file)
    twice = table[table.duplicated([*KEYS, "metric"])]
    if len(twice):
        row = twice.iloc[0]
        raise InputError(
            f"{file}: {row['metric']} of {row['attack']} on {row['model']}: got it twice, expected one row per cell"
        )


def _check_accuracies(table: pd.DataFrame, file: str) -> None:
    """Raise InputError if an accuracy is no share of its clips; that of a chance baseline is an expectation."""
    counted = table[
        (table["metric"] == "accuracy") & (table["status"] == "ok") & ~table["model"].isin(CHANCE_BASELINES)
    ]
    hits = counted["value"] * counted["n"]
    if len(odd := counted[(hits - hits.round()).abs() > 1e-6 * counted["n"]]):
        row = odd.iloc[0]
        raise InputError(
            f"{file}: accuracy of {row['attack']} on {row['model']}: got {row['value']:g} of {row['n']} clips, "
            f"expected a multiple of 1/{row['n']}"
        )


RENAMED_CHECKS: Final[Mapping[str, str]] = {
    "answers-hang-on-the-file": "answers-depend-on-the-file",
    "more-steps-fell-more": "more-steps-mislead-more",
    "probabilities-for-logits": "probabilities-instead-of-logits",
    "stands-under-huge-budget": "robust-to-huge-budget",
    "statistics-from-elsewhere": "statistics-from-other-clips",
    "undefended-twin-stands": "undefended-model-robust",
}
"""Former name of a check of the audit → its present name, for results from before the change."""
