"""``@advser.attack`` on a class or a function; in a notebook or a script, what it stands on is written to a file.

Workers are processes of their own: they load plugins from files, and a file is what can be hashed, sent and verified.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from platformdirs import user_cache_path

from advser.errors import InputError
from advser.plugins.fingerprint import source_file
from advser.plugins.registries import ATTACKS
from advser.plugins.registry import load_plugin_file

MAIN: Final = "__main__"
"""The module of what is typed into a notebook, or stands in a script."""

WORKERS_MAIN: Final = "__mp_main__"
"""What it is called in a process that the script has started by itself."""

EVERYWHERE: Final = ("waveform", "spectrogram")


def attack(
    name: str | Callable[..., Any] | None = None,
    *,
    access: str = "white-box",
    domains: tuple[str, ...] = EVERYWHERE,
    citation: str = "",
    single_step: bool = False,
) -> Any:
    """Register an attack: a class derived from `advser.attacks.base.Attack`, or a function.

    A function ``f(target, x, labels, generator, *, epsilon: float, steps: int = 10)`` is an attack whose ``perturb`` it
    is, and whose further arguments are the parameters; ``Annotated[int, Field(ge=1, description="…")]`` gives one a
    limit and a line about it. What is typed into a notebook, or stands in the script that is run, is written to a
    plugin file first, with whatever it uses: modules, functions and classes, and plain constants.
    What is typed anew under the same name takes the place of the former.

    Args:
        name: what suites call it; by default its own name, with ``-`` for ``_``. ``@advser.attack`` alone will do.
        access: of a function, as `Attack.access`.
        domains: of a function, as `Attack.domains`.
        citation: of a function, as `Attack.citation`: its source.
        single_step: of a function, as `Attack.single_step`: whether it takes one step; what takes more must not be
            weaker than one.

    Raises:
        InputError: if the name is taken, or what is registered is no attack.
    """

    def add(plugin: Any) -> Any:
        # Such a process may be a worker of the script's own scheduler, which has the file from the run.
        if plugin.__module__ == WORKERS_MAIN:
            return plugin
        title = name if name and isinstance(name, str) else plugin.__name__.replace("_", "-")
        ATTACKS.refuse_name(title)
        if plugin.__module__ == MAIN:
            _withdraw(title)
            load_plugin_file(_cell(plugin, title))
        elif isinstance(plugin, type):
            ATTACKS.register(title)(plugin)
        else:
            from advser.attacks.function import attack_of

            made = attack_of(plugin, access, domains, citation, single_step=single_step)  # type: ignore[arg-type]
            ATTACKS.register(title)(made)
        return plugin

    return add(name) if callable(name) else add


def _cells() -> Path:
    return user_cache_path("advser") / "cells"


def cells() -> tuple[Path, ...]:
    """Return the files of the attacks that were registered from a notebook or script in this process."""
    files = (source_file(ATTACKS.get(name).__module__) for name in ATTACKS.decorated())
    return tuple(file for file in files if file is not None and file.parent == _cells())


def _withdraw(name: str) -> None:
    """Forget an attack that was typed before."""
    if name in ATTACKS.decorated():
        file = source_file(ATTACKS.get(name).__module__)
        if file is not None and file.parent == _cells():
            ATTACKS.withdraw(name)


def _cell(plugin: Any, name: str) -> Path:
    """Write a plugin file with what is defined in a notebook or script, and all that it uses; return it."""
    imports: dict[str, None] = {"import advser": None}
    definitions: dict[str, str] = {}
    _gather(plugin, plugin, imports, definitions)
    text = "\n".join(
        ["from __future__ import annotations", "", *imports, "", "", "\n\n\n".join(definitions.values()), ""]
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = _cells() / f"{name}-{digest[:12]}.py"
    if not path.exists():
        from advser.store.files import replacing

        with replacing(path) as beside:
            beside.write_text(text, encoding="utf-8")
    return path


def _gather(value: Any, of: Any, imports: dict[str, None], definitions: dict[str, str]) -> None:
    """Add the source of a function or class, after that of what it uses."""
    try:
        source = textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):
        raise InputError(f"'{value.__name__}': its source is not found; put the code into a file") from None
    used = dict(_globals(value, source))
    for name, found in used.items():
        if name in definitions or name == value.__name__:
            continue
        if isinstance(found, (type, FunctionType)) and found.__module__ == MAIN:
            _gather(found, of, imports, definitions)
        elif line := _import(name, found):
            imports[line] = None
        else:
            definitions[name] = f"{name} = {_constant(name, found, of)}"
    definitions[value.__name__] = source.rstrip()


def _globals(value: Any, source: str) -> Iterator[tuple[str, Any]]:
    """Yield the global names that a source uses, with their values."""
    there = inspect.getmodule(value).__dict__ if isinstance(value, type) else value.__globals__
    tree = ast.parse(source)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for name in dict.fromkeys(node.id for node in names):
        if name in there and name not in bound:
            yield name, there[name]


def _import(name: str, value: Any) -> str:
    """Return the statement that makes ``name`` mean an imported ``value``; empty if it is none."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__}" if value.__name__ == name else f"import {value.__name__} as {name}"
    module, found = getattr(value, "__module__", None) or _home(value), getattr(value, "__name__", "")
    if not module or module == MAIN or not found.isidentifier():
        return ""
    return f"from {module} import {found}" + ("" if found == name else f" as {name}")


def _home(value: Any) -> str:
    """Return the module with the shortest name that has a compiled function, which does not say where it is from."""
    name = getattr(value, "__name__", "")
    if not callable(value) or not name:
        return ""
    homes = [module for module, there in [*sys.modules.items()] if getattr(there, "__dict__", {}).get(name) is value]
    return min((home for home in homes if home != MAIN), key=len, default="")


def _constant(name: str, value: Any, of: Any) -> str:
    text = repr(value)
    try:
        if ast.literal_eval(text) == value:
            return text
    except (ValueError, SyntaxError):
        pass
    raise InputError(
        f"'{of.__name__}' uses '{name}': got {type(value).__name__}, expected modules, functions, classes and plain "
        "constants (numbers, texts, lists of them)"
    )
