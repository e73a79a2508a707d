"""The clips of two results of one protocol, paired cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from advser.errors import InputError
from advser.metrics.base import Array, ClipMetric, Metric, ModelMetric
from advser.plugins.parameters import build, explain
from advser.plugins.registries import METRICS
from advser.results.folder import Results
from advser.scoring.differences import CELL, Move
from advser.scoring.paired_test import worsening
from advser.suite.schema import PluginEntry, Suite


def settings(results: Results) -> list[Suite]:
    """Return the parts of the suite of some results.

    Raises:
        InputError: if the results hold no valid suite.
    """
    try:
        return Suite.model_validate(results.run.get("suite", {})).settings
    except ValidationError as error:
        raise InputError(explain(error, "run.json: suite", Suite)) from None


def without_nan(keys: Any) -> tuple[Any, ...]:
    """Return keys with None for NaN (no budget), so that equal keys compare as equal."""
    return tuple(None if isinstance(value, float) and np.isnan(value) else value for value in keys)


class Pairs:
    """The paired clips of two results.

    Args:
        base: results to compare with.
        new: results to judge, on the same clips.
    """

    def __init__(self, base: Results, new: Results) -> None:
        self._base, self._new = _by_cell(base), _by_cell(new)
        self._metrics = {}
        for setting in settings(base):
            for entry in setting.metrics:
                self._metrics[setting.part, entry.title] = entry
        labels = pd.concat([base.examples["label"], new.examples["label"]])
        self._classes = int(labels.max()) + 1 if len(labels) else 0

    def tested(self, move: Move) -> Move:
        """Return a move with the paired test of its clips, or with the reason why there is no test.

        Raises:
            InputError: if the clips, folds or labels of the two results differ.
        """
        cell = tuple(move.keys.values())
        before, after = self._base.get(cell), self._new.get(cell)
        entry = self._metrics.get((move.keys["part"], move.metric))
        if before is None or after is None or entry is None:
            return replace(move, reason="no examples to test by")
        _refuse_clips(before, after, move)
        metric = build(METRICS.get(entry.name), entry.params, f"metric '{entry.title}'")
        new, base = (_statistics(metric, entry, tables, self._classes) for tables in (after, before))
        measured = ~(np.isnan(new) | np.isnan(base)).any(axis=(0, 2))
        new, base = new[:, measured], base[:, measured]
        differing = (new != base).any(axis=(0, 2))
        counted = replace(move, n=int(measured.sum()), changed=int(differing.sum()))
        if move.higher_is_better is None:
            return counted
        test = worsening(metric, new, base, higher_is_better=move.higher_is_better)
        return replace(counted, p=test.p, least=test.least)


def _by_cell(results: Results) -> dict[tuple[Any, ...], list[pd.DataFrame]]:
    """Return the examples of each cell: one table per seed, sorted by fold and clip."""
    tables: dict[tuple[Any, ...], list[pd.DataFrame]] = {}
    for keys, rows in results.examples.groupby([*CELL, "seed"], dropna=False, sort=False):
        tables.setdefault(without_nan(keys[:-1]), []).append(rows.sort_values(["fold", "clip"], ignore_index=True))
    return tables


def _refuse_clips(base: Sequence[pd.DataFrame], new: Sequence[pd.DataFrame], move: Move) -> None:
    for before, after in zip(base, new, strict=True):
        if not before[["fold", "clip", "label"]].equals(after[["fold", "clip", "label"]]):
            raise InputError(
                f"clips of {move.keys['model']} / {move.keys['defense']}: got {len(after)} with other names, folds or "
                f"labels, expected the {len(before)} clips of the base"
            )


def _statistics(metric: Metric, entry: PluginEntry, tables: Sequence[pd.DataFrame], classes: int) -> Array:
    """Return the statistics (R seeds, N clips, k)."""
    if isinstance(metric, (ClipMetric, ModelMetric)):
        tables = [rows.assign(**{metric.column: rows[entry.title]}) for rows in tables]
    return np.stack([np.asarray(metric.statistics(rows, classes), np.float64) for rows in tables])
