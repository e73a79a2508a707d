"""Source files: where a module has its own, what it imports, and hashes of the code that it consists of.

Nothing of AdvSER's own is imported here except the error types and, to write an outline, the store; and no module that
is asked about.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Final

from advser.errors import InputError, one_line

PLUGIN_PREFIX: Final = "advser_plugin_"
"""Begins the module names of plugin files."""

FORGOTTEN_AFTER: Final = 30 * 86_400.0
"""Seconds for which an outline is kept that no process reads."""

_HERE: Final = Path(__file__)
"""This file, whose contents decide what outlines are: those of another version are kept under other names."""


def source_file(module: str) -> Path | None:
    """Return the Python source of a module, or None if it has none. Neither it nor its packages are imported."""
    if module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)
    else:
        spec = _find_spec(module)
        file = spec.origin if spec else None
    return Path(file) if file and file.endswith(".py") else None


def _find_spec(module: str) -> ModuleSpec | None:
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


@cache
def code_fingerprint(module: str) -> str:
    """Hash a module's code together with that of the modules it imports from AdvSER and from its own distribution.

    For a plugin file, the modules that lie beside it count as its own. Comments, docstrings and layout do not count,
    nor do imports made for type checkers only: the hash is over the syntax trees. Modules of other distributions are
    left out; their versions count by themselves (`imported_distributions`).

    Raises:
        InputError: if the module has no Python source (a class typed into a notebook, say): what cannot be hashed
            cannot be told from its next version.
    """
    digest = hashlib.sha256()
    files = closure(module)
    if module not in files:
        raise InputError(f"module {module}: its Python source is not found; put the code into a file")
    for name, file in sorted(files.items()):
        # A plugin file's module name depends on its path; its contents alone shall count.
        label = "plugin" if name.startswith(PLUGIN_PREFIX) else name
        digest.update(f"{label}\n{_outline(file, file.read_bytes()).essence}\n".encode())
    return digest.hexdigest()


@cache
def imported_distributions(module: str) -> tuple[str, ...]:
    """Return the installed distributions that a module, and those of its own beside it, import, sorted.

    Modules of AdvSER's own are not looked at: their stages name the distributions that decide a result.
    """
    files = {name: file for name, file in closure(module).items() if name.partition(".")[0] != "advser"}
    if not files:
        return ()
    providers = _providers()
    tops = {
        found.partition(".")[0] for name, file in files.items() for found in _imported(file, file.read_bytes(), name)
    }
    return tuple(sorted({dist for top in tops - {"advser"} for dist in providers.get(top, ())}))


@cache
def _providers() -> Mapping[str, list[str]]:
    from importlib.metadata import packages_distributions

    # It reads the list of files of every distribution.
    return packages_distributions()


_DECIDES_NOTHING = frozenset(
    f"advser.{name}" for name in ("errors", "extras", "job", "parameters", "plugins", "registry", "sources", "store")
)
"""Modules that carry data and messages about and decide no result: rewording an error must not retrain a model."""


def closure(module: str) -> dict[str, Path]:
    """Return a module and those it imports from AdvSER, from its own distribution and from beside it, with their files.

    Modules that decide no result are left out, as are those without Python source.

    Raises:
        InputError: if a file is not Python.
    """
    roots = {"advser", module.partition(".")[0]}
    own = source_file(module) if module.startswith(PLUGIN_PREFIX) else None
    seen: dict[str, Path] = {}
    queue = [module]
    while queue:
        name = queue.pop()
        top = name.partition(".")[0]
        ours = top in roots or (own is not None and _beside(own.parent, top))
        if name in seen or name in _DECIDES_NOTHING or not ours:
            continue
        file = source_file(name)
        if file is not None:
            seen[name] = file
            queue += _imported(file, file.read_bytes(), name)
    return seen


def _beside(folder: Path, top: str) -> bool:
    """Tell whether the top-level module ``top`` is a file or package in ``folder``, not one found elsewhere."""
    spec = _find_spec(top)
    if spec is None or not (spec.has_location or spec.submodule_search_locations):
        return False
    places = spec.submodule_search_locations or [spec.origin or ""]
    return any(Path(place).parent.resolve() == folder for place in places)


def _imported(file: Path, source: bytes, module: str) -> tuple[str, ...]:
    """Return what a module imports, in full: modules, and what may be one or something in one."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found: list[str] = []
    for one in _outline(file, source).imports:
        above = package.split(".")[: len(package.split(".")) + 1 - one.level] if one.level else []
        base = ".".join([*above, *filter(None, [one.base])])
        found += [base, *(f"{base}.{name}" for name in one.names)] if base else one.names
    return tuple(found)


@dataclass(frozen=True)
class _Import:
    """``import NAMES``, or, with a base or a level, ``from BASE import NAMES``."""

    level: int
    base: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Outline:
    """What a source file imports when it is executed, and a hash of its code less comments, docstrings and layout."""

    imports: tuple[_Import, ...]
    essence: str


@cache
def _outline(file: Path, source: bytes) -> _Outline:
    """Return a file's outline; it is kept for other processes, since a run looks at a hundred files."""
    kept = _place(source)
    with suppress(OSError, ValueError, TypeError, KeyError):
        told = json.loads(kept.read_text(encoding="utf-8"))
        imports = tuple(_Import(level, base, tuple(names)) for level, base, names in told["imports"])
        if len(bytes.fromhex(told["essence"])) == hashlib.sha256().digest_size:
            return _Outline(imports, told["essence"])
    tree = parse(file, source)
    imports = tuple(_imports(tree))
    made = _Outline(imports, hashlib.sha256(_essence(tree).encode()).hexdigest())
    told = {"imports": [[one.level, one.base, one.names] for one in imports], "essence": made.essence}
    with suppress(OSError):
        _keep(kept, json.dumps(told))
    return made


def _place(source: bytes) -> Path:
    from platformdirs import user_cache_path

    version = f"{_own_contents()} {sys.version_info[:2]}\n".encode()
    return user_cache_path("advser") / "outlines" / f"{hashlib.sha256(version + source).hexdigest()}.json"


@cache
def _own_contents() -> str:
    return hashlib.sha256(_HERE.read_bytes()).hexdigest()


def _keep(place: Path, text: str) -> None:
    from advser.store import replacing

    with replacing(place) as beside:
        beside.write_text(text, encoding="utf-8")
    _forget(place.parent)


@cache
def _forget(outlines: Path) -> None:
    """Remove old outlines, read last (or, where file systems tell no reading, made) long ago; once in a process."""
    for file in outlines.iterdir():
        with suppress(OSError):
            if time.time() - file.stat().st_atime > FORGOTTEN_AFTER:
                file.unlink()


def _imports(tree: ast.Module) -> Iterator[_Import]:
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            yield _Import(0, "", tuple(alias.name for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            yield _Import(node.level, node.module or "", tuple(alias.name for alias in node.names))


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk the statements of a syntax tree, less what stands under ``if TYPE_CHECKING:``."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.expr):
            continue
        yield child
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from _executed(ast.Module(child.orelse, []))
        else:
            yield from _executed(child)


def parse(file: Path, source: bytes) -> ast.Module:
    """Return the syntax tree of a file's contents.

    Raises:
        InputError: if it is not Python.
    """
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{file}: not Python: {one_line(error)}") from error


def _essence(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _is_text(statement: ast.stmt) -> bool:
    """Tell whether a statement is a string alone: a docstring, or the description of an attribute."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
