"""What the pages show of published results: cog runs it and writes the output between its markers (`tox -e pages`).

No measured number on a page is typed: a page has boards (`board`), sentences with figures in them (`told`), the command
that made both (`command`), and figures (`figure`). The checks of the audit, the keys of a suite and the plugins are
listed from the code (`checks`, `keys`, `plugins`).
"""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from advser.audit.audit import CHECKS
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
"""Types in words."""

FIELD = re.compile(r"\{([a-z0-9][^\s{}]*)((?:\s+[\w.]+=[^\s{}]+)*)\}")


def board(arguments: str, *, notes: bool = True) -> str:
    """Return the command ``advser board ARGUMENTS`` and, below it, the Markdown that it prints.

    Without ``notes``, those that hold for the whole run are left out: `command` has them.

    Raises:
        CalledProcessError: if it fails.
    """
    command = f"board {arguments} --format markdown"
    line = [Path(sys.executable).parent / "advser", *shlex.split(command)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)  # noqa: S603 (the pages' own)
    lines = done.stdout.strip().splitlines()
    if not notes:
        known = {f"- {note}" for note in Results.load(ROOT / shlex.split(arguments)[0]).notes}
        lines = [shown for shown in lines if shown not in known]
    return f"`advser {command}`:\n\n" + "\n".join(lines).strip()


def command(name: str) -> str:
    """Return the command that made a published folder, on what, and the run's notes: from its ``run.json``."""
    run = _results(name).run
    sphinx = any(part["name"] == "pocketsphinx" for part in run["transcribers"].values())
    recogniser = "ADVSER_SPHINX_DIR=DIR " if sphinx else ""
    corpus = run["suite"]["corpus"]["name"]
    changes = [f"--set {shlex.quote(change)}" for change in run["set"]]
    line = " \\\n    ".join([f"{recogniser}advser run {name} --data {corpus}=DIR", *changes])
    host = f"{run['host']['cores']} CPU cores, torch {run['packages']['torch']}"
    notes = "\n".join(f"- {note}" for note in run["notes"])
    return f"```sh\n{line}\n```\n\nCommit `{run['git']['commit'][:12]}`, {host}. Of the whole run:\n\n{notes}"


def performance() -> str:
    """Return the last table of ``tox -e bench``, and the machine that it was measured on."""
    sys.path.append(str(ROOT / "perf"))
    from measuring import Table

    found = Table.load(ROOT / "perf" / "table.json")
    about, host = found.circumstances, found.circumstances["host"]
    peers = ("foolbox", "torchattacks", "adversarial-robustness-toolbox", "pesq", "pystoi", "faster-whisper")
    versions = ", ".join(f"{name} {about['packages'][name]}" for name in ("torch", *peers))
    machine = f"{host['cores']} CPU cores ({host['processor']}), {host['memory_gib']} GiB, Python {about['python']}"
    told = f"{machine}; {versions}; AdvSER at the commits {found.commits}."
    return "\n\n".join([told, found.standing, found.text("github"), found.growth_text("github")])


def told(name: str, text: str) -> str:
    """Return ``text`` with a published folder's figures in place of fields, as a wrapped paragraph.

    A field is ``{METRIC KEY=VALUE …}``, such as ``{accuracy part=fair attack=none}``, with keys as in a suite's
    exhibits; the figure is followed by its interval. ``{clips KEY=VALUE …}`` is how many clips count.

    Raises:
        ValueError: if a field picks no cell, or several, or one without a figure.
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
        raise ValueError(f"{name}: {metric}{where} picks {len(cells)} cells, expected 1")
    if metric == "clips":
        return str(cells[0].figure("accuracy").n)
    cell = cells[0].figure(metric)
    if cell.status != "ok":
        raise ValueError(f"{name}: {metric}{where} is {cell.status}: {cell.reason}")
    return figure_text(cell, metric_column(_results(name), metric).decimals, interval=True)


def checks() -> str:
    """Return the checks of the audit and what their flags mean, as a table."""
    flags = Flags((), {check.name: check.meaning for check in CHECKS}, {})
    lines = [f"| {flags.letter(check.name)} | {check.name} | {check.meaning} | {check.needs} |" for check in CHECKS]
    return "\n".join(["| flag | check | what it means | what it needs |", "| --- | --- | --- | --- |", *lines])


def keys(name: str) -> str:
    """Return the keys of one kind of entry of a suite, with type, default and meaning, as a table from the schema."""
    schema: type[BaseModel] = getattr(suite, name, None) or getattr(training, name)
    about = _described(schema)
    lines = [
        f"| `{key}` | {_cell(_type(field.annotation))} | {_default(field)} | {_cell(about.get(key, ''))} |"
        for key, field in schema.model_fields.items()
    ]
    return "\n".join(["| key | type | default | what |", "| --- | --- | --- | --- |", *lines])


def plugins(kind: str) -> str:
    """Return what there is of one kind, each with its parameters, as tables from the code."""
    blocks = []
    for name in sorted(REGISTRIES[kind]):
        plugin = REGISTRIES[kind].get(name)
        summary = (plugin.__doc__ or "").strip().partition("\n")[0]
        cited = str(getattr(plugin, "citation", ""))
        blocks.append(f"### `{name}`\n\n{summary}\n" + (f"\n*Source: {cited}*\n" if cited else ""))
        if found := describe(plugin):
            rows_of = [
                f"| `{one.name}` | {_cell(one.type)} | {_cell(one.default)} | {one.unit} | {_cell(one.about)} |"
                for one in found
            ]
            heads = ["| parameter | type | default | unit | what |", "| --- | --- | --- | --- | --- |"]
            blocks[-1] += "\n" + "\n".join([*heads, *rows_of]) + "\n"
    return "\n".join(blocks).rstrip()


def _described(schema: type[Any]) -> dict[str, str]:
    """Return what docstrings say of each attribute; names that share a line share what it says."""
    told: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        text = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for match in re.finditer(r"^    ([\w, ]+): (.*(?:\n        .*)*)", text, flags=re.MULTILINE):
            told |= dict.fromkeys(match[1].split(", "), match[2].replace("``", "`"))
    return told


def _type(hint: Any) -> str:
    """Return a type in words: ``list of attack entry or none``."""
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
        return "needed"
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
