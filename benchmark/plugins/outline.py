"""Outlines of Python source files: what a file imports, and a hash of its code that names no module.

Outlines are read from syntax trees; no module is imported. They are cached on disk, since a run reads a hundred files.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from advser.errors import InputError, one_line

__affects_results__ = False

MARK: Final = "__affects_results__"
"""A module that sets this name to False carries data or messages and decides no result: no fingerprint counts it."""

EXPIRY: Final = 30 * 86_400.0
"""Seconds after which an outline that no process reads is removed from the cache."""

EMPTY: Final = hashlib.sha256(b"pass").hexdigest()
"""The `Outline.body` of a module without code."""

_THIS_FILE: Final = Path(__file__)


@dataclass(frozen=True)
class Import:
    """One import statement: ``from BASE import NAME as BOUND, …``; ``import NAME as BOUND`` has neither base nor level.

    Attributes:
        level: number of leading dots.
        base: the module that names are imported from; empty for ``import NAME``.
        names: (name, bound name) pairs.
    """

    level: int
    base: str
    names: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Outline:
    """What a fingerprint needs to know of a source file.

    Attributes:
        imports: import statements that run, and ``module.NAME`` of imported modules as imports of the name.
        exports: of a package that loads its names lazily (``__getattr__``), the imports under ``if TYPE_CHECKING:``,
            which say where each name lives.
        affects_results: False if the module sets `MARK` to False.
        body: SHA-256 of the code without imports, comments, docstrings and layout.
    """

    imports: tuple[Import, ...]
    exports: tuple[Import, ...]
    affects_results: bool
    body: str


@cache
def outline(file: Path, source: bytes) -> Outline:
    """Return the outline of a source file, from the cache if it is there.

    Raises:
        InputError: if the file is not Python.
    """
    place = _cache_file(source)
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        return _from_json(json.loads(place.read_text(encoding="utf-8")))
    result = _outline(parse(file, source))
    with suppress(OSError):
        _write(place, json.dumps(asdict(result)))
    return result


def parse(file: Path, source: bytes) -> ast.Module:
    """Return the syntax tree of a file's contents.

    Raises:
        InputError: if the file is not Python.
    """
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{file}: not Python: {one_line(error)}") from error


def _from_json(data: dict[str, Any]) -> Outline:
    def imports(key: str) -> tuple[Import, ...]:
        return tuple(
            Import(
                int(item["level"]), str(item["base"]), tuple((str(name), str(bound)) for name, bound in item["names"])
            )
            for item in data[key]
        )

    if len(bytes.fromhex(data["body"])) != hashlib.sha256().digest_size:
        raise ValueError("body: expected a SHA-256 digest")
    return Outline(imports("imports"), imports("exports"), bool(data["affects_results"]), data["body"])


def _cache_file(source: bytes) -> Path:
    from platformdirs import user_cache_path

    version = f"{_own_digest()} {sys.version_info[:2]}\n".encode()
    return user_cache_path("advser") / "outlines" / f"{hashlib.sha256(version + source).hexdigest()}.json"


@cache
def _own_digest() -> str:
    """Return the digest of this file: outlines of another version of it lie under other names."""
    return hashlib.sha256(_THIS_FILE.read_bytes()).hexdigest()


def _write(place: Path, text: str) -> None:
    from advser.store.files import replacing

    with replacing(place) as beside:
        beside.write_text(text, encoding="utf-8")
    _remove_expired(place.parent)


@cache
def _remove_expired(folder: Path) -> None:
    """Remove outlines that were last read (or written, without access times) too long ago; once per process."""
    for file in folder.iterdir():
        with suppress(OSError):
            if time.time() - file.stat().st_atime > EXPIRY:
                file.unlink()


def _outline(tree: ast.Module) -> Outline:
    exports: list[Import] = []
    if any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body):
        for node in tree.body:
            if isinstance(node, ast.If) and _is_typing_block(node):
                exports += [item for statement in node.body for item in _imports_of(statement)]
    imports = [item for node in _executed(tree) for item in _imports_of(node)]
    affects = not any(_is_mark(node) for node in tree.body)
    used = _attributes_of_modules(tree, imports)
    return Outline((*imports, *used), tuple(exports), affects, hashlib.sha256(_code(tree).encode()).hexdigest())


def _imports_of(node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield Import(0, "", tuple((alias.name, alias.asname or "") for alias in node.names))
    elif isinstance(node, ast.ImportFrom):
        names = tuple((alias.name, alias.asname or alias.name) for alias in node.names)
        yield Import(node.level, node.module or "", names)


def _attributes_of_modules(tree: ast.Module, imports: list[Import]) -> Iterator[Import]:
    """Yield ``from module import NAME`` for each ``module.NAME`` in the code, along dotted chains too."""
    modules: dict[str, str] = {}
    for item in imports:
        for name, bound in item.names:
            if item.base or item.level:
                modules[bound] = "" if item.level else f"{item.base}.{name}"
            else:
                modules[bound or name.partition(".")[0]] = name if bound else name.partition(".")[0]
    used: set[tuple[str, str]] = set()
    for node in ast.walk(tree):
        chain = ast.unparse(node).split(".") if isinstance(node, ast.Attribute) and _is_chain(node) else []
        if chain and modules.get(chain[0]):
            used.add((".".join([modules[chain[0]], *chain[1:-1]]), chain[-1]))
    for module, name in sorted(used):
        yield Import(0, module, ((name, name),))


def _is_chain(node: ast.expr) -> bool:
    """Return whether an expression is names joined by dots."""
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_chain(node.value))


def _is_typing_block(node: ast.AST) -> bool:
    is_name = isinstance(node, ast.If) and isinstance(node.test, ast.Name | ast.Attribute)
    return is_name and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING"  # type: ignore[attr-defined]


def _is_mark(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return ast.unparse(node) == f"{MARK} = False"
    return (
        isinstance(node, ast.AnnAssign)
        and node.value is not None
        and ((ast.unparse(node.target), ast.unparse(node.value)) == (MARK, "False"))
    )


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk the statements of a syntax tree, except those under ``if TYPE_CHECKING:``."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.expr):
            continue
        yield child
        yield from _executed(ast.Module(child.orelse, []) if _is_typing_block(child) else child)  # type: ignore[attr-defined]


def _code(tree: ast.Module) -> str:
    """Return the code as text, without imports, docstrings and blocks for type checkers; changes the tree."""
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and (block or node is tree):
                kept = [statement for statement in _flattened(block) if not _is_ignored(statement)]
                setattr(node, field, kept or [ast.Pass()])
    return ast.unparse(tree)


def _flattened(block: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in block:
        if _is_typing_block(statement):
            yield from statement.orelse  # type: ignore[attr-defined]
        else:
            yield statement


def _is_ignored(statement: ast.stmt) -> bool:
    """Return whether a statement is an import, or a string alone: a docstring or the description of an attribute."""
    text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Import | ast.ImportFrom) or (
        text and isinstance(statement.value.value, str)  # type: ignore[attr-defined]
    )
