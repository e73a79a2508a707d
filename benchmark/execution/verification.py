"""Verification of a submission: run it again, and compare the results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import yaml
from pydantic import ValidationError

from advser.errors import InputError
from advser.execution.cluster import Workers
from advser.execution.contained_run import ContainedRun, run_contained
from advser.execution.submission import PLUGINS
from advser.plan.added_plugins import is_with_added_plugins
from advser.results.folder import Results
from advser.results.schema import KEYS, MACHINE_DEPENDENT, RUN_FILE
from advser.suite.loading import load, shipped
from advser.suite.schema import Suite

ANSWERS: Final = ("uar", "accuracy", "error", "loss")
"""Metrics of a victim's answers to the clips of a cell. Other answers change all of them, but for rare exchanges."""


@dataclass(frozen=True)
class Verified:
    """Comparison of a submission with its second run.

    Attributes:
        figures: one row per figure, including those over several seeds, with the cell's keys, ``metric``, ``claimed``,
            ``verified`` and ``outcome``: ``same``; ``interval`` (the same figure with a different interval);
            ``within`` (a different figure inside the verified 95 % interval); ``contrary`` (the same, though another
            figure of the same answers does not differ, see `ANSWERS`); ``outside``; ``lacking`` (one of the runs has no
            figure).
        ranks: number of claimed ranks outside the range that the second run's tests leave open. If all figures are the
            same: number of claimed ranks that differ.
        flags: checks of the audit with flags in the second run that the claim does not have.
        suite: description of the suite.
        versions: versions of AdvSER, claimed and verified.
        jobs: number of jobs that the second run did; the others were in its store.
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
        """Whether all figures are the same or within the verified interval, and all ranks and flags match.

        False without figures.
        """
        outcomes = {*self.figures["outcome"]}
        return bool(outcomes) and outcomes <= {"same", "within"} and not self.ranks and not self.flags


def verify(folder: Path, data: Mapping[str, Path], store: Path, out: Path, workers: Workers) -> Verified:
    """Run an unpacked submission again in full, and compare the figures.

    The plugin files run in another process, which can write the store and the results folder alone; this process loads
    none of them.

    Args:
        folder: the folder that `unpack` returns.
        data: corpus name → folder.
        store: the artefact store's root.
        out: the results folder of the second run.
        workers: where jobs run; the plugins are replaced by those of the submission.

    Raises:
        InputError: if the submission or any other input is unusable.
    """
    claimed = Results.load(folder)
    if missing := [key for key in ("suite", "only", "set", "plugins", "audit") if key not in claimed.run]:
        raise InputError(f"{folder / RUN_FILE}: got no key '{missing[0]}', expected a file that `advser run` wrote")
    if outside := [name for name in claimed.run["plugins"] if Path(name).name != name]:
        raise InputError(f"{folder / RUN_FILE}: plugins: got '{outside[0]}', expected names of packed files")
    suite = folder / "claimed.yaml"
    suite.write_text(yaml.safe_dump(claimed.run["suite"], sort_keys=False), encoding="utf-8")
    computed = run_contained(
        ContainedRun(
            str(suite),
            [str(folder / PLUGINS / name) for name in claimed.run["plugins"]],
            str(store.absolute()),
            str(out.absolute()),
            {name: str(path.absolute()) for name, path in data.items()},
            dict(claimed.run["only"]),
            workers.count,
            workers.scheduler,
            workers.device,
        )
    )
    again = Results.load(out)
    figures = pd.concat([compared(claimed.table, again.table), compared(claimed.pooled, again.pooled)])
    exact = {*figures["outcome"]} == {"same"}
    return Verified(
        figures.reset_index(drop=True),
        _differing_ranks(claimed, again, exact=exact),
        _new_flags(claimed, again),
        suite_description(claimed),
        (str(claimed.run.get("advser")), version("advser")),
        computed,
        out,
    )


def suite_description(results: Results) -> str:
    """Return the name of the results' suite, whether it is the shipped one, and its changes and filters."""
    name, changes = str(results.run.get("suite", {}).get("name")), results.run.get("set", [])
    only = [f"--only {shlex.quote(f'{key}={glob}')}" for key, glob in results.run.get("only", {}).items()]
    options = [*(f"--set {shlex.quote(change)}" for change in changes), *only]
    suffix = f" with {' '.join(options)}" if options else ""
    if _is_shipped(results):
        return f"the shipped suite '{name}'{suffix}"
    if name in shipped():
        return f"its own suite '{name}', which differs from the shipped suite of that name{suffix}"
    return f"its own suite '{name}'" + (f", cut by {' '.join(only)}" if only else "")


def _is_shipped(results: Results) -> bool:
    name, changes = str(results.run.get("suite", {}).get("name")), results.run.get("set", [])
    with suppress(InputError, ValidationError):
        claimed = Suite.model_validate(results.run.get("suite", {}))
        return name in shipped() and is_with_added_plugins(claimed, load(name, changes))
    return False


def _differing_ranks(claimed: Results, again: Results, *, exact: bool) -> int:
    """Return the number of rank rows that differ (`Verified.ranks`), including rows that only one of the runs has."""
    columns = ["rank", "rank_low", "rank_high", "tie", "value", "difference", "p"]
    names = [name for name in claimed.ranks.columns if name in (*KEYS, "among", "metric")]
    pairs = claimed.ranks[[*names, *columns]].merge(
        again.ranks[[*names, *columns]], on=names, how="outer", suffixes=("", "_")
    )
    old, new = pairs[columns].to_numpy(float), pairs[[f"{name}_" for name in columns]].to_numpy(float)
    if exact:
        return int((~np.isclose(old, new, equal_nan=True)).any(1).sum())
    rank, low, high = old[:, 0], new[:, 1], new[:, 2]
    return int((~((low <= rank) & (rank <= high))).sum())


def _new_flags(claimed: Results, again: Results) -> tuple[str, ...]:
    """Return the checks with flags on rows where the claim has no flag of that check."""
    claimed_flags = [(flag["check"], flag["where"]) for flag in claimed.run["audit"].get("flags", [])]
    flags = again.run["audit"].get("flags", [])
    return tuple(dict.fromkeys(flag["check"] for flag in flags if (flag["check"], flag["where"]) not in claimed_flags))


def compared(claimed: pd.DataFrame, verified: pd.DataFrame) -> pd.DataFrame:
    """Return claimed and verified figures side by side (`Verified.figures`), without costs in seconds."""
    names = [name for name in (*KEYS, "metric") if name in claimed.columns and name in verified.columns]
    pairs = claimed[~claimed["metric"].isin(MACHINE_DEPENDENT)].merge(
        verified[~verified["metric"].isin(MACHINE_DEPENDENT)], on=names, how="outer", suffixes=("", "_new")
    )
    pairs = pairs[(pairs["status"] == "ok") | (pairs["status_new"] == "ok")].reset_index(drop=True)
    old, new = pairs["value"].to_numpy(float), pairs["value_new"].to_numpy(float)
    same = np.isclose(old, new, rtol=1e-6, atol=1e-9)
    ends = [np.isclose(pairs[name], pairs[f"{name}_new"], rtol=1e-6, atol=1e-9) for name in ("ci_low", "ci_high")]
    # The verified interval decides: the claimed interval is itself a claim.
    within = (pairs["ci_low_new"].to_numpy(float) <= old) & (old <= pairs["ci_high_new"].to_numpy(float))
    answers = pairs["metric"].isin(ANSWERS).to_numpy()
    cells = [name for name in names if name != "metric"]
    settled = pairs.assign(settled=answers & same).groupby(cells, dropna=False)["settled"].transform("any").to_numpy()
    cases = {
        "lacking": np.isnan(old) | np.isnan(new),
        "same": same & ends[0] & ends[1],
        "interval": same,
        "contrary": within & answers & settled,
        "within": within,
    }
    outcome = np.select([*cases.values()], [*cases], "outside")
    return pairs[names].assign(claimed=old, verified=new, outcome=outcome)
