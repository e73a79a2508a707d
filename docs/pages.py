"""Blocks of the pages that cog generates and writes between its markers (`tox -e pages`).

No measured number on a page is typed. Published results give boards (`board`), sentences with figures (`sentences`),
the command of a run (`command`) and its figures (`figure`). The code gives the checks of the audit, the keys of a suite
and the plugins (`checks`, `keys`, `plugins`).
"""

from __future__ import annotations

import inspect
import re
import shlex
import sys
import textwrap
from contextlib import chdir, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from advser.audit.audit import CHECKS
from advser.commands.cli import app
from advser.leaderboards.boards.exhibits import picked
from advser.leaderboards.boards.flags import Flags
from advser.leaderboards.boards.layout import metric_column
from advser.leaderboards.boards.rows import Row, rows
from advser.leaderboards.boards.sheet import figure_text
from advser.plugins.parameters import describe
from advser.plugins.registries import REGISTRIES
from advser.results.folder import Results
from advser.suite import schema as suite
from advser.suite import training

ROOT = Path(__file__).parents[1]
PUBLISHED = "leaderboards/published"
WORDS: dict[Any, str] = {
    str: "text", int: "whole number", float: "number", bool: "truth value", type(None): "none", Any: "anything",
}  # fmt: skip
"""Type → its name on a page."""

FIELD = re.compile(r"\{([a-z0-9][^\s{}]*)((?:\s+[\w.]+=[^\s{}]+)*)\}")


def board(arguments: str, *, notes: bool = True) -> str:
    """Return the command ``advser board ARGUMENTS``, followed by the Markdown that it prints.

    Args:
        arguments: of the command.
        notes: whether to include the notes on the whole run, which `command` returns too.

    Raises:
        InputError: if the command refuses its arguments.
    """
    command = f"board {arguments} --format markdown"
    with chdir(ROOT), redirect_stdout(StringIO()) as printed:
        app(shlex.split(command), standalone_mode=False)
    lines = printed.getvalue().strip().splitlines()
    if not notes:
        of_the_run = {f"- {note}" for note in Results.load(ROOT / shlex.split(arguments)[0]).notes}
        lines = [line for line in lines if line not in of_the_run]
    return f"`advser {command}`:\n\n" + "\n".join(lines).strip()


def command(name: str) -> str:
    """Return the command of a published run, its commit and host, and its notes, all from ``run.json``."""
    run = _results(name).run
    sphinx = any(part["name"] == "pocketsphinx" for part in run["transcribers"].values())
    recogniser = "ADVSER_SPHINX_DIR=DIR " if sphinx else ""
    corpus = run["suite"]["corpus"]["name"]
    changes = [f"--set {shlex.quote(change)}" for change in run["set"]]
    line = " \\\n    ".join([f"{recogniser}advser run {name} --data {corpus}=DIR", *changes])
    host = f"{run['host']['cores']} CPU cores, torch {run['packages']['torch']}"
    notes = "\n".join(f"- {note}" for note in run["notes"])
    return f"```sh\n{line}\n```\n\nCommit `{run['git']['commit'][:12]}`, {host}. Notes on the whole run:\n\n{notes}"


def performance() -> str:
    """Return the last table of ``tox -e bench`` and the machine on which it was measured."""
    sys.path.append(str(ROOT / "perf"))
    from measuring import Table

    table = Table.load(ROOT / "perf" / "table.json")
    about, host = table.circumstances, table.circumstances["host"]
    peers = ("foolbox", "torchattacks", "adversarial-robustness-toolbox", "pesq", "pystoi", "faster-whisper")
    versions = ", ".join(f"{name} {about['packages'][name]}" for name in ("torch", *peers))
    machine = f"{host['cores']} CPU cores ({host['processor']}), {host['memory_gib']} GiB, Python {about['python']}"
    circumstances = f"{machine}; {versions}; AdvSER at the commits {table.commits}."
    return "\n\n".join([circumstances, table.goals_met, table.text("github"), table.growth_text("github")])


def sentences(name: str, text: str) -> str:
    """Return ``text`` as a wrapped paragraph, with figures of a published folder in place of its fields.

    A field ``{METRIC KEY=VALUE …}``, such as ``{accuracy part=fair attack=none}``, becomes the figure and its interval.
    Its keys are those of a suite's exhibits. ``{clips KEY=VALUE …}`` becomes the number of clips that count.

    Raises:
        ValueError: if a field picks no cell or several, or the cell has no figure.
    """
    filled = FIELD.sub(lambda match: _figure(name, match[1], match[2]), " ".join(text.split()))
    return textwrap.fill(filled, 118, break_long_words=False, break_on_hyphens=False)


def figure(name: str, stem: str, about: str) -> str:
    """Return a figure of a published folder, as a page in ``docs/papers`` links it; `published` draws and checks it."""
    return f"![{about}](../../{PUBLISHED}/{name}/figures/{stem}.png)"


def _figure(name: str, metric: str, where: str) -> str:
    selection: dict[str, Any] = {}
    for pair in where.split():
        key, _, value = pair.partition("=")
        selection[key] = value if key == "labels" else yaml.safe_load(value)
    cells = picked(_rows(name), selection)
    if len(cells) != 1:
        raise ValueError(f"{name}: {metric}{where} got {len(cells)} cells, expected 1")
    if metric == "clips":
        return str(cells[0].figure("accuracy").n)
    cell = cells[0].figure(metric)
    if cell.status != "ok":
        raise ValueError(f"{name}: {metric}{where}: got status {cell.status} ({cell.reason}), expected ok")
    return figure_text(cell, metric_column(_results(name), metric).decimals, interval=True)


def checks() -> str:
    """Return a table of the audit's checks: flag, name, meaning, requirements."""
    flags = Flags((), {check.name: check.meaning for check in CHECKS}, {})
    lines = [f"| {flags.letter(check.name)} | {check.name} | {check.meaning} | {check.needs} |" for check in CHECKS]
    return "\n".join(["| flag | check | meaning | requires |", "| --- | --- | --- | --- |", *lines])


def keys(name: str) -> str:
    """Return a table of the keys of a suite's entry, from the schema ``name``: type, default, meaning."""
    schema: type[BaseModel] = getattr(suite, name, None) or getattr(training, name)
    about = _described(schema)
    lines = [
        f"| `{key}` | {_cell(_type(field.annotation))} | {_default(field)} | {_cell(about.get(key, ''))} |"
        for key, field in schema.model_fields.items()
    ]
    return "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *lines])


def plugins(kind: str) -> str:
    """Return a section for each plugin of a kind, with a table of its parameters."""
    blocks = []
    for name in sorted(REGISTRIES[kind]):
        plugin = REGISTRIES[kind].get(name)
        summary = (plugin.__doc__ or "").strip().partition("\n")[0]
        cited = str(getattr(plugin, "citation", ""))
        blocks.append(f"### `{name}`\n\n{summary}\n" + (f"\n*Source: {cited}*\n" if cited else ""))
        if parameters := describe(plugin):
            lines = ["| parameter | type | default | unit | meaning |", "| --- | --- | --- | --- | --- |"]
            lines += [
                f"| `{item.name}` | {_cell(item.type)} | {_cell(item.default)} | {item.unit} | {_cell(item.about)} |"
                for item in parameters
            ]
            blocks[-1] += "\n" + "\n".join(lines) + "\n"
    return "\n".join(blocks).rstrip()


def _described(schema: type[Any]) -> dict[str, str]:
    """Return the docstrings' description of each attribute; names on one line share it."""
    descriptions: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        text = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for match in re.finditer(r"^    ([\w, ]+): (.*(?:\n        .*)*)", text, flags=re.MULTILINE):
            descriptions |= dict.fromkeys(match[1].split(", "), match[2].replace("``", "`"))
    return descriptions


def _type(hint: Any) -> str:
    """Return the name of a type in words, such as ``list of attack entry or none``."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(inner[0])
    if origin in (Union, UnionType):
        return " or ".join(map(_type, inner))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (list, dict):
        return f"list of {_type(inner[0])}" if origin is list else f"mapping to {_type(inner[-1])}"
    return WORDS.get(hint) or re.sub(r"(?<!^)(?=[A-Z])", " ", getattr(hint, "__name__", str(hint))).lower()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return f"`{value.name}`" if isinstance(value, suite.PluginEntry) else "its own defaults"
    return "none" if value is None else _cell(f"`{value!r}`")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


@cache
def _results(name: str) -> Results:
    return Results.load(ROOT / PUBLISHED / name)


@cache
def _rows(name: str) -> list[Row]:
    return rows(_results(name))
