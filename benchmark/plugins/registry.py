"""Registries of plugins: by decorator, by entry point, or from a file named on the command line.

A registry knows the names of its plugins without importing them, so that listing stays quick. It imports a class when
the class is used.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, get_origin

from advser.errors import InputError, did_you_mean, nearest, one_line
from advser.plugins.fingerprint import PLUGIN_PREFIX, closure, code_fingerprint, imported_distributions, source_file
from advser.plugins.outline import parse

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__affects_results__ = False

T = TypeVar("T")

NAME = "[a-z0-9][a-z0-9._-]*"
"""The names that a plugin may have: they occur in suites, command lines and file names."""


@dataclass(frozen=True)
class Origin:
    """The source of a plugin: its module and class, the file, the line of the class, and the docstring's first line."""

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
        kind: the kind of plugin in messages, in the singular (``"attack"``).
        group: the entry-point group of plugins in installed distributions.
        base: the class that every plugin derives from, as ``module:class``; None: any class.
    """

    def __init__(self, kind: str, group: str, base: str | None = None) -> None:
        self.kind = kind
        self.group = group
        self.base = base
        self._decorated: dict[str, type[T]] = {}
        self._loaded: dict[EntryPoint, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return a class decorator that adds the class under ``name``.

        Raises:
            InputError: if the name is taken by another class, or the class does not derive from the base or lacks a
                method or class variable that the base declares.
        """

        def add(plugin: type[T]) -> type[T]:
            self.refuse_name(name)
            self._refuse_stranger(name, plugin)
            self._refuse_incomplete(name, plugin)
            self._refuse_duplicate(name, plugin)
            self._decorated[name] = plugin
            return plugin

        return add

    def refuse_name(self, name: str) -> None:
        """Raise InputError if a plugin cannot have this name."""
        if not re.fullmatch(NAME, name):
            raise InputError(f"{self.kind} '{name}': name: got '{name}', expected lower-case letters, digits and . _ -")

    def _refuse_stranger(self, name: str, plugin: object) -> None:
        # By name, since importing the base would import torch.
        bases = [_address(base) for base in plugin.__mro__] if isinstance(plugin, type) else []
        if not bases or self.base not in (None, *bases):
            wanted = self.base or "a class"
            raise InputError(f"{self.kind} '{name}': got {plugin!r}, expected a class derived from {wanted}")

    def _refuse_incomplete(self, name: str, plugin: type[Any]) -> None:
        """Raise InputError if a class lacks an abstract method, or a class variable that its bases declare."""
        if missing := sorted(getattr(plugin, "__abstractmethods__", ())):
            near = nearest(missing[0], vars(plugin))
            got = f"'{near}'" if near else "none"
            raise InputError(f"{self.kind} '{name}': got {got}, expected a method '{missing[0]}'")
        for variable in _class_variables(plugin):
            if not hasattr(plugin, variable):
                raise InputError(f"{self.kind} '{name}': got no {variable}, expected a class variable {variable}")

    def _refuse_duplicate(self, name: str, plugin: type[T]) -> None:
        here = _address(plugin)
        taken = {point.value for point in self._announced().get(name, ())}
        if name in self._decorated:
            taken.add(_address(self._decorated[name]))
        if others := taken - {here}:
            raise InputError(f"{self.kind} '{name}': the name is taken by {min(others)}; {here} needs another")

    def _announced(self) -> Mapping[str, Sequence[EntryPoint]]:
        return _entry_points(self.group)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._announced(), *self._decorated}))

    def __contains__(self, name: object) -> bool:
        return name in self._decorated or name in self._announced()

    def is_shipped(self, name: str) -> bool:
        """Return whether AdvSER itself announces a plugin of this name; nothing is imported."""
        return any(point.value.startswith("advser.") for point in self._announced().get(name, ()))

    def withdraw(self, name: str) -> None:
        """Remove a plugin that was added by decorator, so that its name is free."""
        del self._decorated[name]

    def decorated(self) -> tuple[str, ...]:
        """Return the names that were added by decorator in this process, in order of registration."""
        return tuple(self._decorated)

    def get(self, name: str) -> type[T]:
        """Import and return the plugin class called ``name``.

        Raises:
            InputError: if there is no such plugin (the message suggests a near name), two distributions announce it, it
                cannot be imported, or it is not a complete class derived from the base.
        """
        if name in self._decorated:
            return self._decorated[name]
        point = self._find(name)
        if point in self._loaded:
            return self._loaded[point]
        try:
            plugin = point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise InputError(f"{self.kind} '{name}' ({point.value}) cannot be imported: {one_line(error)}") from error
        self._refuse_stranger(name, plugin)
        self._refuse_incomplete(name, plugin)
        self._loaded[point] = plugin
        return plugin  # type: ignore[no-any-return]

    def _find(self, name: str) -> EntryPoint:
        announced = self._announced()
        if name not in announced:
            hint = did_you_mean(name, list(self))
            raise InputError(f"unknown {self.kind} '{name}'{hint} (known: {', '.join(self)})")
        values = sorted({point.value for point in announced[name]})
        if len(values) > 1:
            raise InputError(
                f"{self.kind} '{name}' is announced as {' and as '.join(values)}: "
                "uninstall all but one of these distributions"
            )
        return announced[name][0]

    def origin(self, name: str) -> Origin:
        """Return where a plugin is defined, without importing it.

        A plugin without readable source has an origin too, so that a broken plugin spoils no list.

        Raises:
            InputError: if there is no such plugin, or two distributions announce it.
        """
        module, _, qualname = self._module_and_class(name)
        file = source_file(module)
        if file is None:
            return Origin(module, qualname, "?", 0, "")
        try:
            tree = parse(file, file.read_bytes())
        except InputError:
            return Origin(module, qualname, str(file), 1, "")
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == qualname.rpartition(".")[2]:
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                return Origin(module, qualname, str(file), node.lineno, summary)
        return Origin(module, qualname, str(file), 1, "")

    def fingerprint(self, name: str) -> str:
        """Return the hash of a plugin's code (`code_fingerprint`)."""
        return code_fingerprint(self._module_and_class(name)[0])

    def packages(self, name: str) -> tuple[str, ...]:
        """Return the distributions that a plugin's own modules import, sorted; none for AdvSER's own plugins."""
        return imported_distributions(self._module_and_class(name)[0])

    def _module_and_class(self, name: str) -> tuple[str, str, str]:
        value = _address(self._decorated[name]) if name in self._decorated else self._find(name).value
        return value.partition(":")


def _class_variables(plugin: type[Any]) -> Iterator[str]:
    """Yield the class variables that a class and its bases declare with ``ClassVar``."""
    for base in plugin.__mro__:
        module = sys.modules.get(base.__module__)
        for name, annotation in inspect.get_annotations(base).items():
            hint: Any = annotation
            if isinstance(hint, str):
                # Only the outermost name matters: the rest may be for type checkers alone.
                hint = vars(module).get(hint.partition("[")[0].rpartition(".")[2]) if module else None
            if hint is ClassVar or get_origin(hint) is ClassVar:
                yield name


def _address(plugin: type[Any]) -> str:
    return f"{plugin.__module__}:{plugin.__qualname__}"


@cache
def _entry_points(group: str) -> Mapping[str, Sequence[EntryPoint]]:
    """Return the entry points of a group by name."""
    from importlib.metadata import entry_points

    points: dict[str, list[EntryPoint]] = {}
    # A distribution that is installed twice (a wheel beside an editable copy) announces each plugin twice.
    for point in dict.fromkeys(entry_points(group=group)):
        points.setdefault(point.name, []).append(point)
    return points


def load_plugin_file(path: Path) -> ModuleType:
    """Import a Python file once, so that its decorators register the plugins in it.

    The file may import modules that lie beside it: its folder is last on the search path.

    Raises:
        InputError: if the file is missing or cannot be imported.
    """
    if not path.is_file():
        raise InputError(f"plugin file {path}: got no such file, expected a Python file")
    path = path.resolve()
    name = _module_name(path)
    contents = hashlib.sha256(path.read_bytes()).hexdigest()
    if name in sys.modules:
        if sys.modules[name].__dict__["__contents__"] != contents:
            raise InputError(f"plugin file {path}: changed since this process loaded it; start the process anew")
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"plugin file {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__contents__"] = contents
    sys.modules[name] = module
    _search_beside(path)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, InputError | KeyboardInterrupt):
            raise
        raise InputError(f"plugin file {path}: {one_line(error)}") from error
    return module


def _module_name(path: Path) -> str:
    return f"{PLUGIN_PREFIX}{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"


def _search_beside(path: Path) -> None:
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))


def source_files(path: Path) -> list[Path]:
    """Return a plugin file, and the modules beside it that it imports, without running them.

    Raises:
        InputError: if a file is not Python.
    """
    path = path.resolve()
    name = _module_name(path)
    _search_beside(path)
    stands_in = ModuleType(name)
    stands_in.__file__ = str(path)
    before = sys.modules.setdefault(name, stands_in)
    try:
        return [part.file for part in closure(name).values()]
    finally:
        if before is stands_in:
            del sys.modules[name]


def raised_in(error: BaseException) -> str:
    """Return `` (FILE:LINE)``, the last line of a plugin file in an error's traceback; empty if there is none."""
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").startswith(PLUGIN_PREFIX)
    ]
    return f" ({Path(frames[-1][0]).name}:{frames[-1][1]})" if frames else ""


def plugin_files(path: Path) -> dict[str, Path]:
    """Return a plugin file and the modules beside it that it imports: path from its folder → file.

    Raises:
        InputError: if it cannot be imported.
    """
    modules = closure(load_plugin_file(path).__name__)
    folder = path.resolve().parent
    files = sorted(part.file for name, part in modules.items() if name.partition(".")[0] != "advser")
    for file in files:
        if not file.is_relative_to(folder):
            raise InputError(f"plugin file {path}: imports {file}, expected files in its own folder")
    return {file.relative_to(folder).as_posix(): file for file in files}


def plugin_names(module: ModuleType, registries: Iterable[Registry[Any]]) -> list[str]:
    """Return the names of the plugins that a plugin file and the modules beside it registered."""
    beside = {name for name in closure(module.__name__) if not name.startswith("advser.")}
    return [name for registry in registries for name in registry.decorated() if registry.get(name).__module__ in beside]
