"""Selection of results: cells with matching keys, or some metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from advser.errors import InputError, did_you_mean
from advser.results.folder import Results
from advser.results.schema import KEYS, no_pooled, no_ranks, value_text


def select(results: Results, where: Mapping[str, str | float]) -> Results:
    """Return the cells whose keys match: key → glob over the key's text, as in ``{"model": "cnn*"}``.

    ``|`` separates several globs. ``epsilon`` is compared in its shortest form (``0.06``), and so are globs that are
    numbers; ``""`` matches an empty text. Ranks are not recomputed. Ranks and figures over several seeds are left out
    if ``where`` selects seeds.

    Raises:
        InputError: if a key is unknown or nothing matches.
    """
    globs = {key: value_text(glob) for key, glob in where.items()}
    for key in globs:
        if key not in KEYS:
            raise InputError(f"--where {key}: unknown key, expected {', '.join(KEYS)}{did_you_mean(key, KEYS)}")
    for key, several in globs.items():
        # A text that has a ``|`` of its own is one glob.
        whole = any(_key_text(key, value) == several for value in results.table[key])
        for glob in [several] if whole else several.split("|"):
            if not _matches(results.table, {key: glob}).any():
                present = ", ".join(sorted({_key_text(key, value) or '""' for value in results.table[key]}))
                raise InputError(f"--where {key}={glob}: no cell matches, expected here: {present}")
    table = results.table[_matches(results.table, globs)]
    if table.empty:
        raise InputError("--where " + ", ".join(f"{k}={v}" for k, v in globs.items()) + ": no cell matches them all")
    seeds_selected = "seed" in globs and len(results.pooled)
    ranks = no_ranks() if seeds_selected else _select_by_own_keys(results.ranks, globs)
    pooled = no_pooled() if seeds_selected else _select_by_own_keys(results.pooled, globs)
    examples = results.examples[_matches(results.examples, globs)].reset_index(drop=True)
    return replace(results, table=table.reset_index(drop=True), examples=examples, ranks=ranks, pooled=pooled)


def _select_by_own_keys(frame: pd.DataFrame, where: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows that match in those keys that are columns of the table."""
    return frame[_matches(frame, {key: glob for key, glob in where.items() if key in frame})].reset_index(drop=True)


def with_metrics(results: Results, names: Sequence[str]) -> Results:
    """Return the figures of some metrics, in the order of ``names`` without repetitions.

    Raises:
        InputError: if the results lack a metric.
    """
    known = list(results.table["metric"].unique())
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in known:
            expected = f"{', '.join(known)}{did_you_mean(name, known)}"
            raise InputError(f"--metrics {name}: got no such metric, expected {expected}")
    table, pooled = (
        pd.concat([frame[frame["metric"] == name] for name in names], ignore_index=True)
        for frame in (results.table, results.pooled)
    )
    return replace(results, table=table, pooled=pooled)


def _matches(frame: pd.DataFrame, where: Mapping[str, str]) -> npt.NDArray[np.bool_]:
    mask = np.ones(len(frame), dtype=bool)
    for key, pattern in where.items():
        codes, values = pd.factorize(frame[key], use_na_sentinel=False)
        mask &= np.array([matching(_key_text(key, value), pattern) for value in values], dtype=bool)[codes]
    return mask


def _key_text(key: str, value: Any) -> str:
    """Return the text of a key's value that globs are matched with."""
    return "" if pd.isna(value) else f"{value:g}" if key == "epsilon" else str(value)


def matching(text: str, globs: str) -> bool:
    """Return whether a text matches any of the globs between ``|``, as in ``none|ifgsm*``; case-sensitive.

    A text matches itself, whatever characters of globs it has, such as ``fgsm [v2]``.
    """
    return text in (globs, *globs.split("|")) or any(fnmatchcase(text, glob) for glob in globs.split("|"))
