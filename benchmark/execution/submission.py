"""Submissions: one file with the code, the suite and the results of a run, that anybody can run again."""

from __future__ import annotations

import hashlib
import json
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Final

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
from advser.plugins.registries import ATTACKS
from advser.plugins.registry import load_plugin_file, plugin_files
from advser.results.folder import Results
from advser.results.schema import KEYS, MEASURED_ANEW, POOLED_FILE, RANKS_FILE, RUN_FILE, TABLE_FILE
from advser.store.artefacts import replacing
from advser.suite.schema import Suite, shipped

MANIFEST: Final = "submission.json"
"""The file in a submission that tells what the others are: version of AdvSER, and each file's SHA-256."""

PLUGINS: Final = "plugins"
"""Folder of the plugin files in a submission."""

_TIME: Final = (1980, 1, 1, 0, 0, 0)


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


def submit(directory: Path, plugins: Sequence[Path], into: Path) -> Path:
    """Pack a results folder, the plugin files that it was made with and the modules beside them; return the file.

    The same inputs give the same file, byte for byte. Examples and sound are left out, and so is whatever a plugin
    reads that is no Python module.

    Raises:
        InputError: if the folder is no results folder, the plugin files are not those of the run or have changed since,
            two of them have one name, or an attack of the run read files, which are not in a submission.
    """
    results = Results.load(directory)
    for plugin in plugins:
        load_plugin_file(plugin)
    _refuse_files(results.run["suite"], directory)
    used, given = sorted(results.run.get("plugins", [])), sorted(path.name for path in plugins)
    if used != given:
        raise InputError(f"--plugin: got {_listed(given)}, expected the files of the run, {_listed(used)}")
    tables = [name for name in (TABLE_FILE, RANKS_FILE, POOLED_FILE, RUN_FILE) if (directory / name).is_file()]
    contents = {name: (directory / name).read_bytes() for name in tables}
    contents |= {f"{PLUGINS}/{name}": data for name, data in _plugin_contents(plugins, results).items()}
    manifest = {"advser": version("advser"), "files": {name: _digest(data) for name, data in contents.items()}}
    contents[MANIFEST] = json.dumps(manifest, indent=2).encode()
    with replacing(into) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(contents.items()):
            archive.writestr(zipfile.ZipInfo(name, _TIME), data, zipfile.ZIP_DEFLATED)
    return into


def _plugin_contents(plugins: Sequence[Path], results: Results) -> dict[str, bytes]:
    files = [(name, file) for path in plugins for name, file in plugin_files(path).items()]
    contents: dict[str, bytes] = {}
    then = results.run.get("plugin_files", {})
    for name, file in dict.fromkeys(files):
        if name in contents:
            raise InputError(f"--plugin: got two files called '{name}', expected a name of its own for each")
        contents[name] = file.read_bytes()
        if then and _digest(contents[name]) != then.get(name):
            raise InputError(f"{file}: changed since the run, expected the file as it was (or run the suite again)")
    return contents


def _refuse_files(suite: Mapping[str, Any], directory: Path) -> None:
    entries = [entry for part in (suite, *suite["parts"].values()) for entry in part["attacks"]]
    # An attack of a plugin file that was not given is told of after this, by the file.
    known = [entry for entry in entries if entry["name"] in ATTACKS]
    titles = [entry["label"] or entry["name"] for entry in known if ATTACKS.get(entry["name"]).places]
    if titles:
        raise InputError(
            f"{directory}: got attack '{titles[0]}', which reads files that a submission does not hold, expected a "
            "run without it (whoever has the files judges them by `advser run --external`)"
        )


def unpack(file: Path, into: Path) -> Path:
    """Unpack a submission into an empty folder, and check what is in it; return the folder.

    Raises:
        InputError: if it is no submission, or a file in it is not what its manifest says.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        manifest = json.loads(contents.pop(MANIFEST))
        digests: Mapping[str, str] = dict(manifest["files"])
    except FileNotFoundError:
        raise InputError(f"{file}: no such file, expected one that `advser submit` wrote") from None
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{file}: no submission: {' '.join(str(error).split())}") from None
    for name in sorted({*digests, *contents}):
        if name not in contents or name not in digests or _digest(contents[name]) != digests[name]:
            raise InputError(f"{file}: {name}: got another file than its manifest says, expected an unchanged one")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or (len(path.parts) > 1 and path.parts[0] != PLUGINS):
            raise InputError(f"{file}: {name}: got a path out of the file, expected names in it")
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_bytes(contents[name])
    return into


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
    both = claimed[~claimed["metric"].isin(MEASURED_ANEW)].merge(
        verified[~verified["metric"].isin(MEASURED_ANEW)], on=names, how="outer", suffixes=("", "_new")
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


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names)) or "none"
