"""Fingerprints of code: hashes of what a module and the modules that it imports contain, whatever they are called.

No module that is asked about is imported.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Final

from advser.errors import InputError
from advser.plugins.outline import EMPTY, MARK, Import, Outline, outline

__affects_results__ = False

PLUGIN_PREFIX: Final = "advser_plugin_"
"""Begins the module names of plugin files."""


def source_file(module: str) -> Path | None:
    """Return the Python source of a module, or None if it has none. Neither it nor its packages are imported."""
    if module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)
    else:
        spec = _find_spec(module)
        file = spec.origin if spec else None
    return Path(file) if file and file.endswith(".py") else None


def _find_spec(module: str) -> ModuleSpec | None:
    # AdvSER's own modules do not change while a process runs; plugins may come later.
    return _find_advser_spec(module) if module.startswith("advser.") else _search_spec(module)


@cache
def _find_advser_spec(module: str) -> ModuleSpec | None:
    return _search_spec(module)


def _search_spec(module: str) -> ModuleSpec | None:
    # importlib.util.find_spec imports the packages above the module, and so whatever these import.
    above, _, _ = module.rpartition(".")
    path: Sequence[str] | None = None
    if above:
        package = _find_spec(above)
        if package is None or package.submodule_search_locations is None:
            return None
        path = package.submodule_search_locations
    specs = (finder.find_spec(module, path) for finder in sys.meta_path)
    return next(filter(None, specs), None)


@dataclass(frozen=True)
class Module:
    """A module behind a fingerprint.

    Attributes:
        file: its source.
        body: hash of its code without imports (`Outline.body`).
        imports: (module, name in it, bound name) of all that it imports; the name is empty for a module.
        counts: whether fingerprints count it: it has code, and is not marked as deciding no result.
    """

    file: Path
    body: str
    imports: tuple[tuple[str, str, str], ...]
    counts: bool


@cache
def code_fingerprint(module: str) -> str:
    """Hash the code of a module together with the modules that it imports from AdvSER and from its own distribution.

    For a plugin file, the modules that lie beside it count as its own. Names of modules and files, comments,
    docstrings, layout and imports for type checkers do not count: the hash is over syntax trees, and an import stands
    for the contents of the module that it names. Modules of other distributions are left out; their versions count by
    themselves (`imported_distributions`).

    Raises:
        InputError: if the module has no Python source (a class typed into a notebook, for example).
    """
    modules = {name: part for name, part in closure(module).items() if part.counts}
    if module not in modules:
        if source_file(module) is not None:
            raise InputError(f"module {module}: got {MARK} = False in a plugin, expected no such line")
        raise InputError(f"module {module}: got no Python source, expected code in a file")
    digests, own = {name: part.body for name, part in modules.items()}, _Own(module)
    # Each round lets a digest depend on imports one step further away, until no two modules come apart any more.
    while True:
        refined = {name: _digest(part, digests, own) for name, part in modules.items()}
        if len(set(refined.values())) == len(set(digests.values())):
            break
        digests = refined
    return hashlib.sha256("\n".join([refined[module], *sorted(set(refined.values()))]).encode()).hexdigest()


def _digest(part: Module, digests: Mapping[str, str], own: _Own) -> str:
    """Hash the body of a module and its imports, each as the contents that it brings in and the name that it binds."""
    lines = set()
    for source, name, bound in part.imports:
        if source in digests:
            lines.add(f"{digests[source]} {name} {bound}")
        elif source not in own:
            lines.add(f"{source} {name} {bound}")
    return hashlib.sha256("\n".join([part.body, *sorted(lines)]).encode()).hexdigest()


def closure(module: str) -> dict[str, Module]:
    """Return, by name, a module and those that it imports from AdvSER, from its own distribution and from beside it.

    The packages that they lie in belong to them. Modules without Python source, and AdvSER's modules that decide no
    result (`advser.plugins.outline.MARK`), are left out with all that these import.

    Raises:
        InputError: if a file is not Python.
    """
    modules: dict[str, Module] = {}
    visited: set[str] = set()
    queue, own = [module], _Own(module)
    while queue:
        name = queue.pop()
        if name in visited or name not in own:
            continue
        visited.add(name)
        file = source_file(name)
        if file is None:
            continue
        described = _read(file)
        if not described.affects_results and name.partition(".")[0] == "advser":
            continue
        imports = tuple(target for item in described.imports for target in _targets(item, name, own))
        has_code = name == module or bool(imports) or described.body != EMPTY
        modules[name] = Module(file, described.body, imports, described.affects_results and has_code)
        queue += [source for source, _, _ in imports]
        queue += [above for above, _, _ in [name.rpartition(".")] if above]
    return modules


class _Own:
    """The modules that belong to AdvSER, to the distribution of a module, or lie beside that plugin file."""

    def __init__(self, module: str) -> None:
        file = source_file(module) if module.startswith(PLUGIN_PREFIX) else None
        self._folder = None if file is None else file.parent
        # A search of all import paths for each import would take most of a plan's time.
        self._tops = {"advser": True, module.partition(".")[0]: True}

    def __contains__(self, name: str) -> bool:
        top = name.partition(".")[0]
        if top not in self._tops:
            self._tops[top] = self._folder is not None and _beside(self._folder, top)
        return self._tops[top]


def _targets(item: Import, importer: str, own: _Own) -> Iterator[tuple[str, str, str]]:
    """Yield (module, name in it, bound name) of each name that a statement of ``importer`` imports.

    A name that a package loads lazily is looked up where it lives.
    """
    if not (item.base or item.level):
        yield from ((name, "", bound) for name, bound in item.names)
        return
    base = _absolute(item, importer)
    file = source_file(base) if base in own else None
    is_package = file is not None and file.name == "__init__.py"
    for name, bound in item.names:
        if name == "*" and file is not None:
            yield from _exported(base, file)
        if is_package and source_file(f"{base}.{name}") is not None:
            yield f"{base}.{name}", "", bound
        elif file is not None and is_package and (home := _home(base, file, name)):
            yield *home, bound
        else:
            yield base, name, bound


def _absolute(item: Import, module: str) -> str:
    if not item.level:
        return item.base
    file = source_file(module)
    package = module if file is not None and file.name == "__init__.py" else module.rpartition(".")[0]
    parts = package.split(".")
    return ".".join([*parts[: len(parts) + 1 - item.level], *filter(None, [item.base])])


def _home(package: str, file: Path, name: str) -> tuple[str, str] | None:
    """Return the module that a lazily loaded name of a package comes from, and its name there; None: not lazy."""
    for item in _read(file).exports:
        for original, bound in item.names:
            if bound == name:
                return _absolute(item, package), original
    return None


def _exported(package: str, file: Path) -> Iterator[tuple[str, str, str]]:
    """Yield what ``from package import *`` loads lazily."""
    for item in _read(file).exports:
        yield from ((_absolute(item, package), original, bound) for original, bound in item.names)


def _read(file: Path) -> Outline:
    return outline(file, file.read_bytes())


@cache
def imported_distributions(module: str) -> tuple[str, ...]:
    """Return the installed distributions that a module, and those of its own beside it, import, sorted.

    AdvSER's own modules are left out: their stages name the distributions that decide a result.
    """
    outside = [part for name, part in closure(module).items() if name.partition(".")[0] != "advser"]
    tops = {source.partition(".")[0] for part in outside for source, _, _ in part.imports} - {"advser"}
    if not tops:
        return ()
    providers = _providers()
    return tuple(sorted({distribution for top in tops for distribution in providers.get(top, ())}))


@cache
def _providers() -> Mapping[str, list[str]]:
    from importlib.metadata import packages_distributions

    # It reads the list of files of every distribution.
    return packages_distributions()


def _beside(folder: Path, top: str) -> bool:
    """Return whether the top-level module ``top`` is a file or package in ``folder``, not one from elsewhere."""
    spec = _find_spec(top)
    if spec is None or not (spec.has_location or spec.submodule_search_locations):
        return False
    places = spec.submodule_search_locations or [spec.origin or ""]
    return any(Path(place).parent.resolve() == folder for place in places)
