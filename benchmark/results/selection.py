"""Some of the results: the cells whose keys match, or some metrics."""

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

    Several globs stand between ``|``. ``epsilon`` is compared in its shortest form (``0.06``), and so are globs that
    are numbers; an empty text is matched by ``""``. Ranks stay what they are among all entries; the ranks and figures
    over several seeds are left out if seeds are chosen.

    Raises:
        InputError: if a key is unknown or nothing matches.
    """
    globs = {key: value_text(glob) for key, glob in where.items()}
    for key in globs:
        if key not in KEYS:
            raise InputError(f"--where {key}: unknown key, expected {', '.join(KEYS)}{did_you_mean(key, KEYS)}")
    for key, glob in ((key, one) for key, several in globs.items() for one in several.split("|")):
        if not _matches(results.table, {key: glob}).any():
            there = ", ".join(sorted({_key_text(key, value) or '""' for value in results.table[key]}))
            raise InputError(f"--where {key}={glob}: no cell matches, expected here: {there}")
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
        mask &= np.array([matching(_key_text(key, value), pattern) for value in values], dtype=bool)[codes]
    return mask


def _key_text(key: str, value: Any) -> str:
    """Return the text of a key that globs are held against."""
    return "" if pd.isna(value) else f"{value:g}" if key == "epsilon" else str(value)


def matching(text: str, globs: str) -> bool:
    """Tell whether a text matches a glob, or one of several between ``|``: ``none|ifgsm*``. Case counts."""
    return any(fnmatchcase(text, glob) for glob in globs.split("|"))
