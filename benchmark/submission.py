"""Submissions: one file with the code, the suite and the results of a run, that anybody can run again."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import pandas as pd
import yaml
from rich.console import Console

from advser.errors import InputError
from advser.plugins import ATTACKS
from advser.results import KEYS, MEASURED_ANEW, POOLED_FILE, RANKS_FILE, RUN_FILE, TABLE_FILE, Results
from advser.run import Request, carry_out, prepare
from advser.runner import Workers
from advser.store import replacing

MANIFEST: Final = "submission.json"
"""The file in a submission that tells what the others are: version of AdvSER, and each file's SHA-256."""

PLUGINS: Final = "plugins"
"""Folder of the plugin files in a submission."""

_TIME: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Verified:
    """What running a submission again came to.

    Attributes:
        figures: a row a figure, with the cell's keys, ``metric``, ``claimed``, ``verified`` and ``outcome``: ``same``;
            ``within`` (the claimed figure is another, inside the verified 95 % interval); ``outside``; ``lacking`` (one
            of the two has no figure).
        directory: the results folder of the second run.
    """

    figures: pd.DataFrame
    directory: Path

    @property
    def confirmed(self) -> bool:
        """Whether there are figures, and every claimed one is the same or within the verified interval."""
        return bool(len(self.figures) and self.figures["outcome"].isin(["same", "within"]).all())


def submit(directory: Path, plugins: Sequence[Path], into: Path) -> Path:
    """Pack a results folder and the plugin files that it was made with; return the file.

    The same inputs give the same file, byte for byte. Examples and sound are left out.

    Raises:
        InputError: if the folder is no results folder, the plugin files are not those of the run, or an attack of the
            run read files, which are not in a submission.
    """
    results = Results.load(directory)
    _refuse_files(results.run["suite"], directory)
    used, given = sorted(results.run.get("plugins", [])), sorted(path.name for path in plugins)
    if used != given:
        raise InputError(f"--plugin: found {_listed(given)}, allowed: the files of the run, {_listed(used)}")
    tables = [name for name in (TABLE_FILE, RANKS_FILE, POOLED_FILE, RUN_FILE) if (directory / name).is_file()]
    contents = {name: (directory / name).read_bytes() for name in tables}
    contents |= {f"{PLUGINS}/{path.name}": path.read_bytes() for path in plugins}
    manifest = {"advser": version("advser"), "files": {name: _digest(data) for name, data in contents.items()}}
    contents[MANIFEST] = json.dumps(manifest, indent=2).encode()
    with replacing(into) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(contents.items()):
            archive.writestr(zipfile.ZipInfo(name, _TIME), data, zipfile.ZIP_DEFLATED)
    return into


def _refuse_files(suite: Mapping[str, Any], directory: Path) -> None:
    entries = [entry for part in (suite, *suite["parts"].values()) for entry in part["attacks"]]
    # An attack of a plugin file that this process was not given is told of after this, by the file.
    known = [entry for entry in entries if entry["name"] in ATTACKS]
    titles = [entry["label"] or entry["name"] for entry in known if ATTACKS.get(entry["name"]).places]
    if titles:
        raise InputError(
            f"{directory}: found attack '{titles[0]}', which reads files that a submission does not hold, allowed: a "
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
        raise InputError(f"{file}: no such file, allowed: one that `advser submit` wrote") from None
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{file}: no submission: {' '.join(str(error).split())}") from None
    for name in sorted({*digests, *contents}):
        if name not in contents or name not in digests or _digest(contents[name]) != digests[name]:
            raise InputError(f"{file}: {name}: found another file than its manifest says, allowed: an unchanged one")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or len(path.parts) > 2:
            raise InputError(f"{file}: {name}: found a path out of the file, allowed: names in it")
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
    suite = folder / "suite.yaml"
    suite.write_text(yaml.safe_dump(claimed.run["suite"], sort_keys=False), encoding="utf-8")
    plugins = tuple(sorted((folder / PLUGINS).glob("*.py")))
    pool = replace(workers, plugins=plugins)
    request = Request(str(suite), store, data, out, only=claimed.run["only"], workers=pool)
    report = carry_out(request, prepare(request), console)
    return Verified(compared(claimed.table, report.results.table), report.directory)


def compared(claimed: pd.DataFrame, verified: pd.DataFrame) -> pd.DataFrame:
    """Return claimed and verified figures side by side, as `Verified` has them; costs in seconds are left out."""
    names = [*KEYS, "metric"]
    both = claimed[~claimed["metric"].isin(MEASURED_ANEW)].merge(
        verified[~verified["metric"].isin(MEASURED_ANEW)], on=names, how="outer", suffixes=("", "_new")
    )
    both = both[(both["status"] == "ok") | (both["status_new"] == "ok")].reset_index(drop=True)
    old, new = both["value"].to_numpy(float), both["value_new"].to_numpy(float)
    same = np.isclose(old, new, rtol=1e-6, atol=1e-9)
    # The claimed interval is itself a claim.
    within = (both["ci_low_new"].to_numpy(float) <= old) & (old <= both["ci_high_new"].to_numpy(float))
    lacking = np.isnan(old) | np.isnan(new)
    outcome = np.select([lacking, same, within], ["lacking", "same", "within"], "outside")
    return both[names].assign(claimed=old, verified=new, outcome=outcome)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names)) or "none"
