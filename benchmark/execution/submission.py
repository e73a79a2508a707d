"""Submissions: a file with the plugins, the suite and the results of a run, which others can run again."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from advser.errors import InputError, printable
from advser.plugins.registries import ATTACKS
from advser.plugins.registry import load_plugin_file, plugin_files
from advser.results.folder import Results
from advser.results.run_record import read_json
from advser.results.schema import POOLED_FILE, RANKS_FILE, RUN_FILE, TABLE_FILE
from advser.store import archives
from advser.store.archives import ArchiveError
from advser.store.files import replacing
from advser.store.names import inside

MANIFEST: Final = "submission.json"
"""The file in a submission with the version of AdvSER and the SHA-256 of every other file."""

PLUGINS: Final = "plugins"
"""Folder of the plugin files in a submission."""

LARGEST: Final = 2**28
"""Bytes of a submission, packed and unpacked."""

_TIME: Final = (1980, 1, 1, 0, 0, 0)


def submit(directory: Path, plugins: Sequence[Path], into: Path) -> Path:
    """Pack a results folder, the plugin files of its run and the modules beside them; return the file.

    The same inputs give the same file, byte for byte. Examples, sound, and data files of plugins are left out.

    Raises:
        InputError: if the folder is no results folder, the plugin files are not those of the run or have changed since,
            two of them have the same name, or an attack of the run reads files, which a submission does not hold.
    """
    results = Results.load(directory)
    for plugin in plugins:
        load_plugin_file(plugin)
    if "digests" not in results.run or "suite" not in results.run:
        raise InputError(f"{directory}: got results without digests of their tables, expected a run of this version")
    _refuse_files(results.run["suite"], directory)
    used, passed = sorted(results.run.get("plugins", [])), sorted(path.name for path in plugins)
    if used != passed:
        raise InputError(f"--plugin: got {_listed(passed)}, expected the files of the run, {_listed(used)}")
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
    recorded = results.run.get("plugin_files", {})
    for name, file in dict.fromkeys(files):
        if name in contents:
            raise InputError(f"--plugin: got two files called '{name}', expected different names")
        contents[name] = file.read_bytes()
        if recorded and _digest(contents[name]) != recorded.get(name):
            raise InputError(f"{file}: changed since the run, expected the same file (or run the suite again)")
    return contents


def _refuse_files(suite: Mapping[str, Any], directory: Path) -> None:
    entries = [entry for part in (suite, *suite.get("parts", {}).values()) for entry in part.get("attacks", [])]
    # Attacks of a missing plugin file are not registered; `submit` reports the file afterwards.
    registered = [entry for entry in entries if entry["name"] in ATTACKS]
    titles = [entry.get("label") or entry["name"] for entry in registered if ATTACKS.get(entry["name"]).places]
    if titles:
        raise InputError(
            f"{directory}: got attack '{titles[0]}', which reads files that a submission does not hold, expected a "
            "run without it (evaluate the files by `advser run --external`)"
        )


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    advser: Annotated[str, Field(max_length=100)]
    files: dict[str, str]


def unpack(file: Path, into: Path) -> Path:
    """Unpack a submission into an empty folder, and check its contents; return the folder.

    Raises:
        InputError: if it is no submission, is too large, or a file in it does not match its manifest.
    """

    def place(name: str) -> Path:
        path = inside(into, name, str(file))
        if len(path.relative_to(into).parts) > 1 and path.relative_to(into).parts[0] != PLUGINS:
            raise InputError(f"{file}: {name}: got a path outside the submission, expected a path within")
        return path

    try:
        if file.stat().st_size > LARGEST:
            raise ArchiveError(f"a file of more than {LARGEST >> 20} MiB")
        names = {path.relative_to(into).as_posix() for path in archives.unpack(file, place, LARGEST)} - {MANIFEST}
        digests = _Manifest.model_validate(read_json((into / MANIFEST).read_text(encoding="utf-8"))).files
    except ArchiveError as error:
        raise InputError(f"{file}: got {error}, expected a file that `advser submit` wrote") from None
    except OSError as error:
        got = "no manifest" if error.filename == str(into / MANIFEST) else printable(error.strerror or "no file")
        raise InputError(f"{file}: got {got}, expected a file that `advser submit` wrote") from None
    except ValueError as error:
        reason = printable(str(error), 160)
        raise InputError(f"{file}: {MANIFEST}: got no manifest ({reason}), expected that of `advser submit`") from None
    for name in sorted({*digests, *names}):
        if name not in names or name not in digests or _digest((into / name).read_bytes()) != digests[name]:
            raise InputError(
                f"{file}: {printable(name, 80)}: got a file that differs from its manifest, expected an unchanged file"
            )
    return into


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names)) or "none"
