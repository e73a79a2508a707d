"""Registries of plugins: by decorator, by entry point, or from a file named on the command line.

A registry knows the names of its plugins without importing them, so that listing stays quick; the class is
imported when it is asked for. Nothing of AdvSER's own is imported here except the error types.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from advser.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Origin:
    """Where a plugin comes from: its module and class, the source file, and the line of the class."""

    module: str
    qualname: str
    file: str
    line: int
    summary: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Registry(Generic[T]):
    """Named plugins of one kind.

    Args:
        kind: what a plugin is called in messages, in the singular (``"attack"``).
        group: the entry-point group that installed distributions announce plugins under.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._decorated: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return a class decorator that adds the class under ``name``.

        Raises:
            InputError: if the name is taken by another class.
        """

        def add(plugin: type[T]) -> type[T]:
            self._refuse_duplicate(name, plugin)
            self._decorated[name] = plugin
            return plugin

        return add

    def _refuse_duplicate(self, name: str, plugin: type[T]) -> None:
        here = f"{plugin.__module__}:{plugin.__qualname__}"
        taken = {n: f"{c.__module__}:{c.__qualname__}" for n, c in self._decorated.items()}
        taken |= {n: point.value for n, point in self._announced().items()}
        if name in taken and taken[name] != here:
            raise InputError(f"{self.kind} '{name}': the name is taken by {taken[name]}; {here} needs another")

    def _announced(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in _entry_points(self.group):
            other = found.setdefault(point.name, point)
            if other.value != point.value:
                raise InputError(
                    f"{self.kind} '{point.name}' is announced twice, as {other.value} and {point.value}: "
                    "uninstall one of the two distributions"
                )
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._announced(), *self._decorated}))

    def __contains__(self, name: object) -> bool:
        return name in self._decorated or name in self._announced()

    def decorated(self) -> tuple[str, ...]:
        """The names that were added by decorator in this process, in order of registration."""
        return tuple(self._decorated)

    def get(self, name: str) -> type[T]:
        """Import and return the plugin class called ``name``.

        Raises:
            InputError: if there is no such plugin (the message suggests a near name), or if it cannot be imported.
        """
        if name in self._decorated:
            return self._decorated[name]
        point = self._find(name)
        try:
            return point.load()  # type: ignore[no-any-return]
        except Exception as error:
            raise InputError(f"{self.kind} '{name}' ({point.value}) cannot be imported: {error}") from error

    def _find(self, name: str) -> EntryPoint:
        announced = self._announced()
        if name not in announced:
            near = difflib.get_close_matches(name, list(self), n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise InputError(f"unknown {self.kind} '{name}'{hint} (known: {', '.join(self)})")
        return announced[name]

    def origin(self, name: str) -> Origin:
        """Tell where a plugin is defined; an announced plugin is not imported for this."""
        if name in self._decorated:
            plugin = self._decorated[name]
            file = inspect.getsourcefile(plugin) or "?"
            line = inspect.getsourcelines(plugin)[1]
            doc = inspect.getdoc(plugin) or ""
            return Origin(plugin.__module__, plugin.__qualname__, file, line, doc.partition("\n")[0])
        module, _, qualname = self._find(name).value.partition(":")
        file = source_file(module)
        if file is None:
            return Origin(module, qualname, "?", 0, "")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name == qualname:
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                return Origin(module, qualname, str(file), node.lineno, summary)
        return Origin(module, qualname, str(file), 1, "")

    def fingerprint(self, name: str) -> str:
        """Hash the code that a plugin consists of: its own module and the modules of AdvSER that it imports."""
        if name in self._decorated:
            return code_fingerprint(self._decorated[name].__module__)
        return code_fingerprint(self._find(name).value.partition(":")[0])


@cache
def _entry_points(group: str) -> tuple[EntryPoint, ...]:
    # A distribution that is installed twice (a wheel beside an editable copy) announces each plugin twice.
    return tuple(dict.fromkeys(entry_points(group=group)))


def load_plugin_file(path: Path) -> ModuleType:
    """Import a Python file so that its decorators register what it defines.

    Raises:
        InputError: if the file is missing or cannot be imported.
    """
    if not path.is_file():
        raise InputError(f"plugin file {path}: not found")
    name = f"advser_plugin_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"plugin file {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, InputError):
            raise
        raise InputError(f"plugin file {path}: {type(error).__name__}: {error}") from error
    return module


def source_file(module: str) -> Path | None:
    """Return the source file of a module without importing the module itself, or None if it has none."""
    parent = module.rpartition(".")[0]
    if parent:
        above = source_file(parent)
        # Looking for a name inside a module that is no package would import that module.
        if above is None or above.name != "__init__.py":
            return None
    if module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            return None
        file = spec.origin if spec else None
    return Path(file) if file and file.endswith(".py") else None


@cache
def code_fingerprint(module: str) -> str:
    """Hash a module's code together with that of the modules it imports from the same distribution.

    Comments, docstrings and layout do not count: the hash is over the syntax tree. Modules of other
    distributions are left out; their versions are recorded in the results instead.
    """
    digest = hashlib.sha256()
    for name in sorted(_closure(module)):
        file = source_file(name)
        assert file is not None
        # A plugin file's module name depends on its path; its contents alone shall count.
        label = "plugin" if name.startswith("advser_plugin_") else name
        digest.update(f"{label}\n{_essence(file)}\n".encode())
    return digest.hexdigest()


def _closure(module: str) -> set[str]:
    roots = {"advser", module.partition(".")[0]}
    seen: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        if name in seen or name.partition(".")[0] not in roots:
            continue
        file = source_file(name)
        if file is None:
            continue
        seen.add(name)
        queue += _imported(file, name)
    return seen


def _imported(file: Path, module: str) -> list[str]:
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return found


def _essence(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
