"""Submissions: one file with the code, the suite and the results of a run, that anybody can run again."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Final

from advser.errors import InputError
from advser.plugins.registries import ATTACKS
from advser.plugins.registry import load_plugin_file, plugin_files
from advser.results.folder import Results
from advser.results.schema import POOLED_FILE, RANKS_FILE, RUN_FILE, TABLE_FILE
from advser.store.files import replacing

MANIFEST: Final = "submission.json"
"""The file in a submission that tells what the others are: version of AdvSER, and each file's SHA-256."""

PLUGINS: Final = "plugins"
"""Folder of the plugin files in a submission."""

_TIME: Final = (1980, 1, 1, 0, 0, 0)


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


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names)) or "none"
