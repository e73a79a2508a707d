"""The cells of a run for the page: figures, the command that reproduces each, and the artefacts behind it."""

from __future__ import annotations

import glob
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from advser.leaderboards.boards.board import Cell
from advser.leaderboards.boards.layout import configuration
from advser.leaderboards.boards.rows import Row, cell_id, rows, worst_cases
from advser.results.folder import Results
from advser.results.schema import KEYS

_OF_VICTIM: Final = ("part", "model", "defense")
_OF_ATTACK: Final = ("attack", "domain", "delivery", "labels", "access", "source_model", "source_defense")


def cells(results: Results, samples: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the page's data of each cell, by its id: plain data, without NaN.

    Args:
        results: the results.
        samples: the entries of ``samples/index.json``.
    """
    artefacts, samples_of = _artefacts(results.examples), _by_cell(samples)
    worst = worst_cases(results)
    return {
        name: {
            "title": ", ".join([row.text("model"), f"defense {row.text('defense')}", *configuration(row)]),
            "name": row.attack,
            "attack": "" if row.clean else row.keys["attack"],
            "keys": _keys(row),
            "figures": {metric: _figure(cell) for metric, cell in row.cells.items()},
            "command": command(results, row, worst=row.values(("part", "attack")) in worst),
            "artefacts": artefacts.get(name, []),
            "samples": samples_of.get(name, []),
        }
        for row in rows(results)
        for name in (cell_id(row.keys),)
    }


def command(results: Results, row: Row, *, worst: bool = False) -> str:
    """Return the command that reproduces a cell, including the jobs that it shares with others.

    Args:
        results: the results of the cell.
        row: the cell.
        worst: whether it is a worst case over several attacks; the command runs all of them.
    """
    run = results.run
    suite = run.get("suite", {})
    words = ["advser", "run", str(run.get("suite_file") or suite.get("name", "SUITE"))]
    parts = (suite.get("parts") or {}).values() or [suite]
    corpora = dict.fromkeys(part.get("corpus", {}).get("name") for part in parts)
    words += [word for corpus in corpora if corpus not in (None, "demo") for word in ("--data", f"{corpus}=DIR")]
    words += [word for name in run.get("plugins", []) for word in ("--plugin", name)]
    words += [word for name in run.get("external", []) for word in ("--external", name)]
    words += [word for change in run.get("set", []) for word in ("--set", change)]
    wanted = [*_OF_VICTIM, *(() if worst else ("attack",) if row.clean else _OF_ATTACK)]
    chosen = {**run.get("only", {}), **{key: glob.escape(str(row.keys[key])) for key in wanted if row.keys[key]}}
    words += [word for key, value in chosen.items() for word in ("--only", f"{key}={value}")]
    return shlex.join(words)


def _keys(row: Row) -> dict[str, Any]:
    """Return the keys that apply, as boards show them, and ε as a number."""
    shown = {key: row.text(key) for key in KEYS if key not in ("params", "norm", "epsilon_unit") and row.text(key)}
    return {**shown, "params": row.params, "norm": row.keys["norm"], "budget": row.keys["epsilon"]}


def _figure(cell: Cell) -> dict[str, Any]:
    fields = {
        "value": cell.value, "low": cell.low, "high": cell.high, "spread": cell.spread, "n": cell.n,
        "failed": cell.n_failed, "status": cell.status, "reason": cell.reason,
    }  # fmt: skip
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in fields.items()}


def _artefacts(examples: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return, by cell, the store's keys of the trained model and of the judged sound of each fold and seed."""
    artefacts: dict[str, list[dict[str, Any]]] = {}
    distinct = examples[[*KEYS, "fold", "model_key", "audio_key"]].drop_duplicates()
    for record in distinct.to_dict("records"):
        line = {key: record[key] for key in ("seed", "fold", "model_key", "audio_key")}
        artefacts.setdefault(cell_id({str(key): value for key, value in record.items()}), []).append(line)
    return artefacts


def _by_cell(samples: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    by_cell: dict[str, list[dict[str, Any]]] = {}
    for entry in samples:
        own = {key: value for key, value in entry.items() if key not in KEYS or key == "seed"}
        by_cell.setdefault(cell_id(entry), []).append(own)
    return by_cell
