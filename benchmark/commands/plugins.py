"""Commands on plugins: `advser list`, `advser show`, `advser check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from advser.commands.usage import EXIT_FINDINGS, Plugins, console, parameters
from advser.errors import InputError, did_you_mean
from advser.plugins.registries import BY_KIND, REGISTRIES


def list_plugins(
    kind: Annotated[str, typer.Argument(help="models, attacks, defenses, corpora, suites, metrics or transcribers.")],
    plugin: Plugins = [],
) -> None:
    """List the plugins of one kind, or the shipped suites."""
    from advser.plugins.registries import load_plugin_files

    load_plugin_files(plugin)
    if kind == "suites":
        from advser.suite.loading import load, shipped

        rows = [(name, load(name).title) for name in shipped()]
    elif kind in REGISTRIES:
        registry = REGISTRIES[kind]
        rows = [(name, registry.origin(name).summary) for name in registry]
    else:
        allowed = [*REGISTRIES, "suites"]
        raise InputError(f"list {kind}: got kind '{kind}', expected {', '.join(allowed)}{did_you_mean(kind, allowed)}")
    width = max((len(name) for name, _ in rows), default=0)
    for name, summary in rows:
        console().print(f"{name:<{width}}  {summary}", markup=False, soft_wrap=True)


def show(
    kind: Annotated[str, typer.Argument(help="model, attack, defense, corpus, metric, transcriber or suite.")],
    name: Annotated[str, typer.Argument(help="The plugin's name.")],
    plugin: Plugins = [],
) -> None:
    """Show a plugin: file, documentation, parameters with units. For a suite: its YAML."""
    import inspect

    from tabulate import tabulate

    from advser.plugins.parameters import describe
    from advser.plugins.registries import load_plugin_files
    from advser.plugins.summary import facts

    load_plugin_files(plugin)
    if kind == "suite":
        from advser.suite.loading import source

        sys.stdout.write(source(name))
        return
    if kind not in BY_KIND:
        allowed = [*BY_KIND, "suite"]
        raise InputError(f"show {kind}: got kind '{kind}', expected {', '.join(allowed)}{did_you_mean(kind, allowed)}")
    plugin_class = BY_KIND[kind].get(name)
    print_line = console().print
    print_line(f"{kind} {name}\n{BY_KIND[kind].origin(name)}\n", markup=False, soft_wrap=True)
    print_line(inspect.getdoc(plugin_class) or "", markup=False, soft_wrap=True)
    for heading, text in facts(plugin_class):
        print_line(f"\n{heading}: {text}", markup=False, soft_wrap=True)
    rows = [(p.name, p.type, p.default, p.unit, p.about) for p in describe(plugin_class)]
    if rows:
        table = tabulate(rows, headers=["parameter", "type", "default", "unit", "about"])
        print_line(f"\n{table}", markup=False, soft_wrap=True)


def check(
    kind: Annotated[str, typer.Argument(help="attack, defense, model or metric.")],
    name: Annotated[str, typer.Argument(help="The plugin's name.")],
    params: Annotated[list[str], typer.Option("--param", metavar="KEY=VALUE", help="A parameter; VALUE is YAML.")] = [],
    store: Annotated[Path | None, typer.Option(help="Artefact store.  [default: $ADVSER_STORE or a cache]")] = None,
    plugin: Plugins = [],
) -> None:
    """Check a plugin in half a minute: its contract, then the suite 'mock' with its audit.

    Exit code: 0 no findings, 1 findings to fix or to explain, 2 unusable input.
    """
    from advser.execution.check import check as findings
    from advser.plugins.registries import load_plugin_files
    from advser.store.artefacts import default_store

    load_plugin_files(plugin)
    values = parameters(params)
    wrong = 0
    for finding in findings(kind, name, values, store or default_store(), tuple(path.absolute() for path in plugin)):
        wrong += bool(finding.wrong)
        line = f"note   {finding.part}: {finding.note}" if finding.note else f"ok     {finding.part}"
        line = f"FAIL   {finding.part}: {finding.wrong}" if finding.wrong else line
        console().print(line, markup=False, soft_wrap=True)
    result = f"{wrong} to fix or to explain" if wrong else "No problem"
    console().print(f"{result} in {BY_KIND[kind].origin(name)}", markup=False, soft_wrap=True)
    if wrong:
        raise typer.Exit(EXIT_FINDINGS)
