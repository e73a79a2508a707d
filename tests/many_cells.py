"""Results of thousands of cells: the published leaderboard, multiplied, to test how drawing grows.

``python tests/many_cells.py FOLDER [CELLS]`` writes such a results folder. The numbers mean nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd

from advser.results.folder import Results
from advser.results.schema import EXAMPLES_SCHEMA, KEYS

PUBLISHED = Path(__file__).parents[1] / "leaderboards" / "published" / "leaderboard"
BUDGETS = 3
"""Budgets of each attack on each model."""

FOLDS = 2
FLAGGED = 20
"""One of so many cells has a flag of the audit."""

CHECK = "more-steps-mislead-more"


def many(cells: int = 5012) -> Results:
    """Return results with so many cells: the published models and budgets again and again under other names."""
    published = Results.load(PUBLISHED)
    table, total = [], 0
    for part in _copies(published.table):
        table.append(part)
        total += part.groupby(list(KEYS), dropna=False).ngroups
        if total >= cells:
            break
    every = pd.concat(table, ignore_index=True)
    kept = every[list(KEYS)].drop_duplicates().iloc[:cells]
    chosen = every.merge(kept, on=list(KEYS))
    ranks = pd.concat([part for part, _ in zip(_copies(published.ranks), table, strict=False)], ignore_index=True)
    return replace(published, table=chosen, examples=_examples(kept), run=_run(published.run, kept), ranks=ranks)


def _copies(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the rows again and again: with each budget, then with other models."""
    for number in count():
        model, budget = divmod(number, BUDGETS)
        part = frame if budget == 0 else frame[frame["epsilon"].notna()]
        part = part.assign(epsilon=part["epsilon"] * 2**budget)
        for key in ("model", "source_model"):
            if key in part and model:
                named = part[key].where(part[key].isin(["", "random", "majority"]), part[key] + f"-{model}")
                part = part.assign(**{key: named})
        # The chance baselines are the same for all copies.
        yield part if number == 0 else part[~part["model"].isin(["random", "majority"])]


def _examples(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one clip of each fold of each cell."""
    blank: dict[str, Any] = {
        field.name: "" if str(field.type) == "string" else 0 for field in EXAMPLES_SCHEMA if field.name not in KEYS
    }
    parts = [
        cells.assign(
            **blank
            | {
                "fold": f"fold {fold}",
                "model_key": f"{fold:064x}",
                "audio_key": [f"{fold}{number:063x}" for number in range(len(cells))],
            }
        )
        for fold in range(FOLDS)
    ]
    return pd.concat(parts, ignore_index=True)[EXAMPLES_SCHEMA.names]


def _run(run: dict[str, Any], cells: pd.DataFrame) -> dict[str, Any]:
    keys = ["model", "defense", "attack", "domain", "epsilon", "source_model"]
    flagged = cells[cells["epsilon"].notna()].iloc[::FLAGGED][keys].to_dict("records")
    flags = [{"check": CHECK, "where": where, "detail": "3 clips"} for where in flagged]
    checks = {CHECK: "More steps mislead fewer clips."}
    needs = dict.fromkeys(checks, "a probed model")
    return {**run, "audit": {"flags": flags, "checks": checks, "looked_at": {CHECK: len(cells)}, "needs": needs}}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    many(*map(int, sys.argv[2:3])).save(folder)
