"""YAML texts of users: safe, without duplicate keys, and within limits."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from advser.errors import InputError, printable

MOST_NODES: Final = 100_000
"""Values that a text may have after its aliases are expanded: a few hundred bytes of aliases can stand for billions."""

DEEPEST: Final = 50
"""Levels of lists and mappings within each other."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and reads 1e-3 as a number, as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping, as the base class does; a duplicate key is an error."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key}'", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def read_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text: plain data in which no two places share an object.

    Raises:
        InputError: if the text is not YAML, refers to itself, or exceeds `MOST_NODES` or `DEEPEST`; the message begins
            with ``where``.
    """
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        raise _not_yaml(error, where) from None
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _Expansion(where).count(node, 0)
        return _separate(loader.construct_document(node))
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _not_yaml(error, where) from None
    finally:
        loader.dispose()


def _not_yaml(error: Exception, where: str) -> InputError:
    reason = "too deep" if isinstance(error, RecursionError) else printable(str(error), 200)
    return InputError(f"{where}: not YAML ({reason}), expected YAML")


class _Expansion:
    """Counts the values of a text with its aliases expanded; each node is visited once."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._sizes: dict[int, int] = {}
        self._above: set[int] = set()

    def count(self, node: yaml.Node, depth: int) -> int:
        """Return the number of values in a node.

        Raises:
            InputError: if it refers to itself, or a limit is exceeded.
        """
        if id(node) in self._above:
            raise InputError(f"{self._where}: got an alias within its own value, expected none")
        if depth > DEEPEST:
            raise InputError(f"{self._where}: got more than {DEEPEST} levels of lists and mappings, expected fewer")
        if id(node) not in self._sizes:
            self._above.add(id(node))
            size = 1 + sum(self.count(child, depth + 1) for child in _children(node))
            self._above.remove(id(node))
            if size > MOST_NODES:
                raise InputError(
                    f"{self._where}: got more than {MOST_NODES:,} values, expected fewer (see its aliases)"
                )
            self._sizes[id(node)] = size
        return self._sizes[id(node)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _separate(data: Any) -> Any:
    """Return a copy in which aliases share no objects, so that a change affects one place only."""
    if isinstance(data, dict):
        return {key: _separate(value) for key, value in data.items()}
    return [_separate(value) for value in data] if isinstance(data, list) else data
