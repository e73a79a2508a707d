"""The contents of a submission as text, without running any of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advser.errors import printable
from advser.execution.submission import PLUGINS
from advser.execution.verification import suite_description
from advser.results.folder import Results


def contents(file: Path, claim: Path) -> list[str]:
    """Return lines on what an unpacked submission holds: suite, plugin files, figures, versions. Nothing of it is run.

    Args:
        file: the submission, for messages.
        claim: the folder that `unpack` returned.

    Raises:
        InputError: if its results are unusable.
    """
    results = Results.load(claim)
    run, table = results.run, results.table
    plugins = sorted(path for path in (claim / PLUGINS).rglob("*") if path.is_file())
    entries = {name: ", ".join([*dict.fromkeys(table[name])][:20]) for name in ("corpus", "model", "defense", "attack")}
    flags = run.get("audit", {}).get("flags", [])
    lines = [
        f"{file}: results of {suite_description(results)}",
        *(f"{name}: {printable(value)}" for name, value in entries.items()),
        f"figures: {(table['status'] == 'ok').sum()} of {len(table)}, ranks: {len(results.ranks)}, flags: {len(flags)}",
        f"AdvSER {run.get('advser', '?')}, Python {run.get('python', '?')}, "
        f"{len(run.get('packages', {}))} packages, commit {(run.get('git') or {}).get('commit', 'unknown')}",
        *(_figure_line(row) for row in table[table["metric"] == table["metric"].iloc[0]].to_dict("records")),
        *(
            f"{path.relative_to(claim).as_posix()}: {path.stat().st_size} bytes, "
            f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}…"
            for path in plugins
        ),
    ]
    return [printable(line) for line in lines if line]


def _figure_line(row: Mapping[Any, Any]) -> str:
    where = [row[key] for key in ("part", "model", "defense", "attack", "domain") if row[key]]
    figure = f"{row['value']:.4f}" if row["status"] == "ok" else row["status"]
    where += [f"ε {row['epsilon']:g}"] if not math.isnan(row["epsilon"]) else []
    return f"{', '.join(where)}, seed {row['seed']}: {row['metric']} {figure}"
