"""The clips of two results of one protocol, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from advser.errors import InputError
from advser.metrics.base import Array, ClipMetric, Metric, ModelMetric
from advser.plugins.parameters import build
from advser.plugins.registries import METRICS
from advser.results.folder import Results
from advser.scoring.differences import CELL, Move
from advser.scoring.paired_test import worsening
from advser.suite.schema import PluginEntry, Suite


def settings(results: Results) -> list[Suite]:
    """Return the parts of the suite that results were made with.

    Raises:
        InputError: if they do not tell it.
    """
    try:
        return Suite.model_validate(results.run["suite"]).settings
    except (KeyError, ValueError) as error:
        raise InputError(f"results: suite: {' '.join(str(error).split())[:200]}") from None


def plain(place: Any) -> tuple[Any, ...]:
    """Return keys that compare as equal: NaN, which stands for no budget, as None."""
    return tuple(None if isinstance(value, float) and np.isnan(value) else value for value in place)


class Pairs:
    """The clips of two results.

    Args:
        base: what is compared with.
        new: what is judged, on the same clips.
    """

    def __init__(self, base: Results, new: Results) -> None:
        self._both = (_by_cell(base), _by_cell(new))
        self._metrics = {}
        for setting in settings(base):
            for entry in setting.metrics:
                self._metrics[setting.part, entry.title] = entry
        labels = pd.concat([base.examples["label"], new.examples["label"]])
        self._classes = int(labels.max()) + 1 if len(labels) else 0

    def tested(self, move: Move) -> Move:
        """Return a move with the paired test of its clips, or the reason why there is none.

        Raises:
            InputError: if the two were judged on other clips, folds or labels.
        """
        place = tuple(move.keys.values())
        clips = [cells.get(place) for cells in self._both]
        entry = self._metrics.get((move.keys["part"], move.metric))
        if clips[0] is None or clips[1] is None or entry is None:
            return replace(move, reason="no examples to test by")
        _refuse_clips(clips[0], clips[1], move)
        metric = build(METRICS.get(entry.name), entry.params, f"metric '{entry.title}'")
        one, other = (_statistics(metric, entry, seeds, self._classes) for seeds in (clips[1], clips[0]))
        measured = ~(np.isnan(one) | np.isnan(other)).any(axis=(0, 2))
        one, other = one[:, measured], other[:, measured]
        differing = (one != other).any(axis=(0, 2))
        found = replace(move, n=int(measured.sum()), changed=int(differing.sum()))
        if move.higher_is_better is None:
            return found
        test = worsening(metric, one, other, higher_is_better=move.higher_is_better)
        return replace(found, p=test.p, least=test.least)


def _by_cell(results: Results) -> dict[tuple[Any, ...], list[pd.DataFrame]]:
    """Return the examples of each cell, a table a seed, all in the order of the clips' names."""
    found: dict[tuple[Any, ...], list[pd.DataFrame]] = {}
    for place, rows in results.examples.groupby([*CELL, "seed"], dropna=False, sort=False):
        found.setdefault(plain(place[:-1]), []).append(rows.sort_values(["fold", "clip"], ignore_index=True))
    return found


def _refuse_clips(base: Sequence[pd.DataFrame], new: Sequence[pd.DataFrame], move: Move) -> None:
    for before, after in zip(base, new, strict=True):
        if not before[["fold", "clip", "label"]].equals(after[["fold", "clip", "label"]]):
            raise InputError(
                f"clips of {move.keys['model']} / {move.keys['defense']}: got {len(after)}, not those of the base "
                f"({len(before)}) or in other folds or with other labels, expected the same clips"
            )


def _statistics(metric: Metric, entry: PluginEntry, seeds: Sequence[pd.DataFrame], classes: int) -> Array:
    """Return the statistics (R seeds, N clips, k)."""
    tables = seeds
    if isinstance(metric, (ClipMetric, ModelMetric)):
        tables = [rows.assign(**{metric.column: rows[entry.title]}) for rows in seeds]
    return np.stack([np.asarray(metric.statistics(rows, classes), np.float64) for rows in tables])
