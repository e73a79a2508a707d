"""``@advser.attack`` on a class or a function; code from a notebook or a script is written to a file.

Workers are processes of their own: they load plugins from files, and only a file can be hashed, sent and verified.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from platformdirs import user_cache_path

from advser.errors import InputError
from advser.models.terms import DOMAINS
from advser.plugins.fingerprint import source_file
from advser.plugins.registries import ATTACKS
from advser.plugins.registry import load_plugin_file
from advser.store.files import replacing

MAIN: Final = "__main__"
"""The module of code in a notebook or a script."""

WORKERS_MAIN: Final = "__mp_main__"
"""The name of that module in a process that the script has started by itself."""


def attack(
    name: str | Callable[..., Any] | None = None,
    *,
    access: str = "white-box",
    domains: tuple[str, ...] = DOMAINS,
    citation: str = "",
    single_step: bool = False,
    unbounded: bool = False,
) -> Any:
    """Register an attack: a class derived from `advser.plugins.Attack`, or a function.

    A function ``f(target, x, labels, generator, *, epsilon: float = budget(), steps: int = 10)`` is an attack whose
    `Attack.perturb` it is; its further arguments are the parameters. Code from a notebook, or from the script that
    runs, is written to a plugin file first, with the modules, functions, classes and plain constants that it uses.
    A plugin that is typed again under the same name replaces the former.

    Args:
        name: the name in suites; by default its own name, with ``-`` for ``_``. ``@advser.attack`` alone works too.
        access: of a function, as `Attack.access`.
        domains: of a function, as `Attack.domains`.
        citation: of a function, as `Attack.citation`.
        single_step: of a function, as `Attack.single_step`.
        unbounded: of a function, as `Attack.unbounded`.

    Raises:
        InputError: if the name is taken, or the plugin is not an attack.
    """
    from advser.attacks.function import Declaration, attack_from

    declaration = Declaration(access, domains, citation, single_step, unbounded)

    def add(plugin: Any) -> Any:
        # Such a process may be a worker of the script's own scheduler, which has the file from the run.
        if plugin.__module__ == WORKERS_MAIN:
            return plugin
        title = name if name and isinstance(name, str) else plugin.__name__.replace("_", "-")
        ATTACKS.refuse_name(title)
        if plugin.__module__ == MAIN:
            _withdraw(title)
            load_plugin_file(_write_plugin_file(plugin, title))
        else:
            ATTACKS.register(title)(plugin if isinstance(plugin, type) else attack_from(plugin, declaration))
        return plugin

    return add(name) if callable(name) else add


def _folder() -> Path:
    return user_cache_path("advser") / "cells"


def notebook_files() -> tuple[Path, ...]:
    """Return the plugin files of the attacks that a notebook or script registered in this process."""
    files = (source_file(ATTACKS.get(name).__module__) for name in ATTACKS.decorated())
    return tuple(file for file in files if file is not None and file.parent == _folder())


def _withdraw(name: str) -> None:
    """Remove an attack that was typed before from the registry."""
    if name in ATTACKS.decorated():
        file = source_file(ATTACKS.get(name).__module__)
        if file is not None and file.parent == _folder():
            ATTACKS.withdraw(name)


@dataclass
class _Source:
    """The text of a plugin file in the making.

    Attributes:
        plugin: the attack that it is for.
        imports: import statements, in order.
        definitions: name → source, each after what it uses.
    """

    plugin: Any
    imports: dict[str, None] = field(default_factory=lambda: {"import advser": None})
    definitions: dict[str, str] = field(default_factory=dict)

    def add(self, value: Any) -> None:
        """Add the source of a function or class, after that of all that it uses."""
        try:
            source = textwrap.dedent(inspect.getsource(value))
        except (OSError, TypeError):
            raise InputError(f"'{value.__name__}': got no source, expected code in a file") from None
        for name, used in dict(_globals(value, source)).items():
            if name in self.definitions or name == value.__name__:
                continue
            if isinstance(used, (type, FunctionType)) and used.__module__ == MAIN:
                self.add(used)
            elif line := _import(name, used):
                self.imports[line] = None
            else:
                self.definitions[name] = f"{name} = {_constant(name, used, self.plugin)}"
        self.definitions[value.__name__] = source.rstrip()

    @property
    def text(self) -> str:
        """The whole file."""
        definitions = "\n\n\n".join(self.definitions.values())
        return "\n".join(["from __future__ import annotations", "", *self.imports, "", "", definitions, ""])


def _write_plugin_file(plugin: Any, name: str) -> Path:
    """Write a plugin file with the attack and all that it uses; return its path."""
    source = _Source(plugin)
    source.add(plugin)
    digest = hashlib.sha256(source.text.encode()).hexdigest()
    path = _folder() / f"{name}-{digest[:12]}.py"
    if not path.exists():
        with replacing(path) as beside:
            beside.write_text(source.text, encoding="utf-8")
    return path


def _globals(value: Any, source: str) -> Iterator[tuple[str, Any]]:
    """Yield the global names that a source uses, with their values."""
    namespace = vars(inspect.getmodule(value)) if isinstance(value, type) else value.__globals__
    tree = ast.parse(source)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for name in dict.fromkeys(node.id for node in names):
        if name in namespace and name not in bound:
            yield name, namespace[name]


def _import(name: str, value: Any) -> str:
    """Return the statement that binds ``name`` to an imported ``value``; empty if it is not imported."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__}" if value.__name__ == name else f"import {value.__name__} as {name}"
    module, own_name = getattr(value, "__module__", None) or _home(value), getattr(value, "__name__", "")
    if not module or module == MAIN or not own_name.isidentifier():
        return ""
    return f"from {module} import {own_name}" + ("" if own_name == name else f" as {name}")


def _home(value: Any) -> str:
    """Return the module with the shortest name that has a compiled function, which does not know its own module."""
    name = getattr(value, "__name__", "")
    if not callable(value) or not name:
        return ""
    loaded = [*sys.modules.items()]
    homes = [module for module, contents in loaded if getattr(contents, "__dict__", {}).get(name) is value]
    return min((home for home in homes if home != MAIN), key=len, default="")


def _constant(name: str, value: Any, plugin: Any) -> str:
    text = repr(value)
    try:
        if ast.literal_eval(text) == value:
            return text
    except (ValueError, SyntaxError):
        pass
    raise InputError(
        f"'{plugin.__name__}' uses '{name}': got {type(value).__name__}, expected modules, functions, classes and "
        "plain constants (numbers, texts, lists of them)"
    )
