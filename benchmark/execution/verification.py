"""Verification of a submission: run it again, and compare."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from pydantic import ValidationError
from rich.console import Console

from advser.errors import InputError
from advser.execution.cluster import Workers
from advser.execution.execute import carry_out
from advser.execution.prepare import joined, prepare
from advser.execution.request import Request
from advser.execution.submission import (
    PLUGINS,
)
from advser.plugins.registry import load_plugin_file
from advser.results.folder import Results
from advser.results.schema import KEYS, MACHINE_DEPENDENT, RUN_FILE
from advser.suite.loading import shipped
from advser.suite.schema import Suite


@dataclass(frozen=True)
class Verified:
    """What running a submission again came to.

    Attributes:
        figures: a row a figure, those over several seeds too, with the cell's keys, ``metric``, ``claimed``,
            ``verified`` and ``outcome``: ``same``; ``interval`` (the same figure with another interval); ``within``
            (the claimed figure is another, inside the verified 95 % interval); ``outside``; ``lacking`` (one of the two
            has no figure).
        ranks: how many claimed ranks are not among those that the second run's tests leave open or, where all figures
            are the same, are others.
        flags: checks of the audit that found something in the second run that the claim does not tell.
        suite: what was run, in a sentence.
        versions: of AdvSER, claimed and verified.
        jobs: how many jobs the second run did; the others were in its store.
        directory: the results folder of the second run.
    """

    figures: pd.DataFrame
    ranks: int
    flags: tuple[str, ...]
    suite: str
    versions: tuple[str, str]
    jobs: int
    directory: Path

    @property
    def confirmed(self) -> bool:
        """Whether there are figures, each the same or within the verified interval, with ranks and flags to match."""
        outcomes = {*self.figures["outcome"]}
        return bool(outcomes) and outcomes <= {"same", "within"} and not self.ranks and not self.flags


def verify(
    folder: Path, data: Mapping[str, Path], store: Path, out: Path, workers: Workers, console: Console
) -> Verified:
    """Run an unpacked submission again, in full, and hold its figures against the new ones.

    The plugin files in it are run: they can do whatever Python can.

    Args:
        folder: as `unpack` leaves it.
        data: corpus name → folder.
        store: the artefact store's root.
        out: the results folder of the second run.
        workers: where jobs run; their plugins are those of the submission.
        console: where progress is told.

    Raises:
        InputError: if the submission or anything else of the input is unusable.
    """
    claimed = Results.load(folder)
    if lacking := [key for key in ("suite", "only", "set", "plugins", "audit") if key not in claimed.run]:
        raise InputError(f"{folder / RUN_FILE}: got no '{lacking[0]}', expected what `advser run` writes")
    if outside := [name for name in claimed.run["plugins"] if Path(name).name != name]:
        raise InputError(f"{folder / RUN_FILE}: plugins: got '{outside[0]}', expected names of packed files")
    pool = replace(workers, plugins=tuple(folder / PLUGINS / name for name in claimed.run["plugins"]))
    for plugin in pool.plugins:
        load_plugin_file(plugin)
    suite, changes = _suite(claimed, folder)
    request = Request(suite, store, data, out, changes, claimed.run["only"], pool)
    report = carry_out(request, prepare(request), console)
    found = report.results
    figures = pd.concat([compared(claimed.table, found.table), compared(claimed.pooled, found.pooled)])
    exact = {*figures["outcome"]} == {"same"}
    return Verified(
        figures.reset_index(drop=True),
        _other_ranks(claimed, found, exact=exact),
        _untold(claimed, found),
        suite_told(claimed),
        (str(claimed.run.get("advser")), version("advser")),
        report.computed,
        out,
    )


def _suite(claimed: Results, folder: Path) -> tuple[str, Sequence[str]]:
    """Return a claim's suite, by name if it is the shipped one, and what is changed of it."""
    name, changes = str(claimed.run["suite"].get("name")), claimed.run["set"]
    if _is_shipped(claimed):
        return name, changes
    file = folder / "claimed.yaml"
    file.write_text(yaml.safe_dump(claimed.run["suite"], sort_keys=False), encoding="utf-8")
    return str(file), ()


def suite_told(results: Results) -> str:
    """Return which suite results are of, whether it is the shipped one, and what of it was changed and left out.

    The plugins of the run must be registered in this process.
    """
    name, changes = str(results.run["suite"].get("name")), results.run["set"]
    only = [f"--only {shlex.quote(f'{key}={glob}')}" for key, glob in results.run["only"].items()]
    options = [*(f"--set {shlex.quote(change)}" for change in changes), *only]
    given = f" with {' '.join(options)}" if options else ""
    if _is_shipped(results):
        return f"the shipped suite '{name}'{given}"
    if name in shipped():
        return f"its own suite '{name}', which is not the shipped one of that name{given}"
    return f"its own suite '{name}'" + (f", cut by {' '.join(only)}" if only else "")


def _is_shipped(results: Results) -> bool:
    name, changes = str(results.run["suite"].get("name")), results.run["set"]
    with suppress(InputError, ValidationError):
        return name in shipped() and joined(name, changes) == Suite.model_validate(results.run["suite"])
    return False


def _other_ranks(claimed: Results, found: Results, *, exact: bool) -> int:
    """Return how many rows of the ranks do not hold, those that only one of both has included (`Verified.ranks`)."""
    said = ["rank", "rank_low", "rank_high", "tie", "value", "difference", "p"]
    names = [name for name in claimed.ranks.columns if name in (*KEYS, "among", "metric")]
    both = claimed.ranks[[*names, *said]].merge(found.ranks[[*names, *said]], on=names, how="outer", suffixes=("", "_"))
    then, now = both[said].to_numpy(float), both[[f"{name}_" for name in said]].to_numpy(float)
    if exact:
        return int((~np.isclose(then, now, equal_nan=True)).any(1).sum())
    rank, low, high = then[:, 0], now[:, 1], now[:, 2]
    return int((~((low <= rank) & (rank <= high))).sum())


def _untold(claimed: Results, found: Results) -> tuple[str, ...]:
    """Return the checks whose flags stand on rows on which the claim has none of them."""
    known = [(flag["check"], flag["where"]) for flag in claimed.run["audit"]["flags"]]
    flags = found.run["audit"]["flags"]
    return tuple(dict.fromkeys(flag["check"] for flag in flags if (flag["check"], flag["where"]) not in known))


def compared(claimed: pd.DataFrame, verified: pd.DataFrame) -> pd.DataFrame:
    """Return claimed and verified figures side by side, as `Verified` has them; costs in seconds are left out."""
    names = [name for name in (*KEYS, "metric") if name in claimed.columns and name in verified.columns]
    both = claimed[~claimed["metric"].isin(MACHINE_DEPENDENT)].merge(
        verified[~verified["metric"].isin(MACHINE_DEPENDENT)], on=names, how="outer", suffixes=("", "_new")
    )
    both = both[(both["status"] == "ok") | (both["status_new"] == "ok")].reset_index(drop=True)
    old, new = both["value"].to_numpy(float), both["value_new"].to_numpy(float)
    same = np.isclose(old, new, rtol=1e-6, atol=1e-9)
    ends = [np.isclose(both[name], both[f"{name}_new"], rtol=1e-6, atol=1e-9) for name in ("ci_low", "ci_high")]
    # The claimed interval is itself a claim.
    within = (both["ci_low_new"].to_numpy(float) <= old) & (old <= both["ci_high_new"].to_numpy(float))
    lacking = np.isnan(old) | np.isnan(new)
    cases = {"lacking": lacking, "same": same & ends[0] & ends[1], "interval": same, "within": within}
    outcome = np.select([*cases.values()], [*cases], "outside")
    return both[names].assign(claimed=old, verified=new, outcome=outcome)
