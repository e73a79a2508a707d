"""Reading of YAML: one safe loader for suites, ``--set`` and ``--param``, with limits on what a text expands to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from advser.errors import InputError

MAXIMAL_NODES: Final = 100_000
"""Values in a text, where each alias counts as what it stands for."""

MAXIMAL_DEPTH: Final = 50
"""Levels of lists and mappings, one inside the other."""

_NOT_PLAIN: Final = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("timestamp", "binary", "set", "omap", "pairs"))
"""Kinds of values that JSON does not have; a date is read as text."""


class _Loader(yaml.SafeLoader):
    """Safe YAML of plain data: refuses duplicate keys and reads 1e-3 as a number, as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping, as the base class does; a duplicate key is an error."""
        seen: set[Any] = set()
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in (self.construct_object(key, deep=True) for key in keys):
            if isinstance(key, list | dict):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no text", node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key}'", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_PLAIN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)
for _tag in _NOT_PLAIN:
    _Loader.add_constructor(_tag, yaml.constructor.SafeConstructor.construct_undefined)  # type: ignore[type-var]


def read_yaml(text: str, where: str) -> Any:
    """Return the plain data of a YAML text: texts, numbers, truth values, null, lists and mappings.

    Raises:
        InputError: if the text is no YAML, has values of other kinds or half of a surrogate pair, or expands to more
            than `MAXIMAL_NODES` values or `MAXIMAL_DEPTH` levels; the message begins with ``where``.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _expanded(node, where, {}, ())
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML ({' '.join(str(error).split())}), expected YAML") from None
    except RecursionError:
        raise InputError(_too_deep(where)) from None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, IndexError) as error:
        # A tag promises what its text is not, as in `!!int abc`.
        problem = " ".join(str(error).split())[:100]
        raise InputError(f"{where}: not YAML ({problem}), expected YAML") from None
    finally:
        if loader is not None:
            loader.dispose()


def _expanded(node: yaml.Node, where: str, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Return how many values a node expands to; each node is visited once for any number of aliases."""
    if id(node) in above:
        raise InputError(f"{where}: got an alias inside its own anchor, expected values that end")
    if len(above) > MAXIMAL_DEPTH:
        raise InputError(_too_deep(where))
    if id(node) not in known:
        count = 1 + sum(_expanded(child, where, known, (*above, id(node))) for child in _children(node))
        if count > MAXIMAL_NODES:
            raise InputError(f"{where}: got over {MAXIMAL_NODES} values with aliases expanded, expected fewer")
        known[id(node)] = count
    return known[id(node)]


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif any("\ud800" <= letter <= "\udfff" for letter in node.value):
        raise ValueError("half of a surrogate pair")


def _too_deep(where: str) -> str:
    return f"{where}: got over {MAXIMAL_DEPTH} levels of lists and mappings, expected fewer"
