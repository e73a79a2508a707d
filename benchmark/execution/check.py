"""Tries one plugin: what its users are told, its contract, and a run of the suite ``mock`` with its audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml
from rich.console import Console

from advser.attacks.base import Attack
from advser.audit import attack_checks as attacks
from advser.audit import model_checks as models
from advser.audit import plugin_contract as contract
from advser.audit.check import Check
from advser.audit.contract import Finding
from advser.errors import AdvserError, InputError
from advser.execution.cluster import Workers
from advser.execution.execute import Report, carry_out
from advser.execution.prepare import prepare
from advser.execution.request import Request
from advser.execution.worker import raised_in
from advser.plugins.parameters import validated
from advser.plugins.registries import ATTACKS, BY_KIND
from advser.suite.loading import load

SUITE: Final = "mock"
OF_VICTIMS: Final = (
    attacks.iterative_attack_weaker_than_single_step,
    attacks.noise_beats_attack,
    attacks.transfer_beats_white_box,
    attacks.queries_beat_white_box,
    attacks.undefended_model_robust,
    attacks.not_attacked_adaptively,
    *models.OF_MODELS,
)
CHECKS_OF: Final[Mapping[str, tuple[Check, ...]]] = {
    "attack": (
        attacks.iterative_attack_weaker_than_single_step,
        attacks.smaller_budget_stronger,
        attacks.noise_beats_attack,
        attacks.not_converged,
    ),
    "defense": OF_VICTIMS,
    "model": OF_VICTIMS,
    "metric": (),
}
"""Kind of plugin → the checks of the audit that tell of it."""

LOUDER: Final[Mapping[str, float]] = {"linf": 1, "l2": 150, "relative-l2": 10}
"""What the mock suite's budgets in L∞ are multiplied by in other norms, for about the same loudness of its clips."""

EPSILON: Final = 0.004
"""Budget of an attack that is held against its contract."""


def check(kind: str, name: str, params: Mapping[str, Any], store: Path, plugins: tuple[Path, ...]) -> Iterator[Finding]:
    """Yield what was found of a plugin, the quickest first; a plugin that breaks its contract is not run.

    Args:
        kind: ``attack``, ``defense``, ``model`` or ``metric``.
        name: in its registry.
        params: its parameters; an attack's ``epsilon`` is chosen by the mock task.
        store: the artefact store's root.
        plugins: plugin files, loaded already, for the workers.

    Raises:
        InputError: if there is no such plugin, or its parameters are wrong.
    """
    if kind not in contract.CONTRACTS:
        raise InputError(f"check {kind}: allowed: {', '.join(contract.CONTRACTS)}")
    plugin = BY_KIND[kind].get(name)
    bounded = kind == "attack" and "epsilon" in plugin.model_fields
    given = {**params, "epsilon": EPSILON} if bounded else params
    if kind != "model":
        validated(plugin, given, f"{kind} '{name}'")
    yield from contract.described(kind, name)
    broken = False
    for finding in _held(kind, plugin, given, plugins):
        broken = broken or bool(finding.wrong)
        yield finding
    if broken:
        yield Finding(f"suite '{SUITE}'", note="not run: it would mostly tell the same, once a cell")
        return
    yield from _mock_run(kind, name, params, store, plugins)


def _held(kind: str, plugin: Any, params: Mapping[str, Any], plugins: tuple[Path, ...]) -> Iterator[Finding]:
    """Hold a plugin against its contract; what it raises is a finding."""
    try:
        yield from contract.CONTRACTS[kind](plugin, params)
    except AdvserError as error:
        yield Finding("contract", str(error))
    except Exception as error:
        text = " ".join(str(error).split())
        yield Finding("contract", f"{type(error).__name__}: {text}{raised_in(error, plugins)}")


def _mock_run(
    kind: str, name: str, params: Mapping[str, Any], store: Path, plugins: tuple[Path, ...]
) -> Iterator[Finding]:
    with TemporaryDirectory(prefix="advser-check-") as folder:
        file = Path(folder) / f"{SUITE}.yaml"
        file.write_text(yaml.safe_dump(_with(kind, name, dict(params))), encoding="utf-8")
        request = Request(str(file), store, out=Path(folder) / "out", workers=Workers(plugins=plugins), joining=False)
        report = carry_out(request, prepare(request), Console(quiet=True))
    yield from _judged(kind, name, report)


def _with(kind: str, name: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the mock suite as data, with the plugin in it."""
    suite = load(SUITE).model_dump(mode="json")
    entry = {"name": name, "params": params}
    if kind == "attack":
        plugin = ATTACKS.get(name)
        own = [
            _attack_entry(plugin, entry, attack["domain"], attack["params"]["epsilon"])
            for attack in suite["attacks"]
            if attack["name"] == "fgsm"
            if attack["domain"][0] in plugin.domains
        ]
        return {**suite, "audit": False, "attacks": [*(one for one in suite["attacks"] if one["name"] != name), *own]}
    # Beside the plugin stay the undefended model, and a model for examples to be crafted on.
    listed = [one for one in suite[f"{kind}s"] if one["name"] != name]
    return {**suite, "audit": kind != "metric", f"{kind}s": [*listed, entry]}


def _attack_entry(
    plugin: type[Attack], entry: dict[str, Any], domain: list[str], budgets: list[float]
) -> dict[str, Any]:
    louder = LOUDER[entry["params"].get("norm", getattr(plugin, "norm", "linf"))]
    budget = {"epsilon": [louder * epsilon for epsilon in budgets]} if "epsilon" in plugin.model_fields else {}
    return {
        "name": entry["name"],
        "params": {**entry["params"], **budget, **_twice(plugin, entry["params"])},
        # As of the attacks that it is held against; of an undefended model that is the cross-entropy.
        "objective": "adaptive",
        "domain": domain,
        "delivery": ["features"] if domain == ["spectrogram"] else ["audio"],
    }


def _twice(plugin: type[Attack], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameter ``steps`` of an attack once and twice as large, if it has one that can be doubled."""
    steps = params.get("steps", getattr(plugin.model_fields.get("steps"), "default", None))
    if plugin.single_step or not isinstance(steps, int) or not steps:
        return {}
    try:
        validated(plugin, {"epsilon": EPSILON, **params, "steps": 2 * steps}, "twice the steps")
    except InputError:
        return {}
    return {"steps": [steps, 2 * steps]}


def _judged(kind: str, name: str, report: Report) -> Iterator[Finding]:
    """Yield whether every cell of the plugin has its figures, and what the audit says of it."""
    table = report.results.table
    own = table[table[kind] == name]
    failed = own[own["status"] == "failed"]["reason"].drop_duplicates().tolist()
    yield from (Finding("a run on the mock task", reason) for reason in failed or [""])
    for check in CHECKS_OF[kind]:
        answers = [answer for answer in report.audit.verdicts[check.name] if answer.where.get(kind, name) == name]
        wrong = next((f"{check.meaning} ({answer.wrong})" for answer in answers if answer.wrong), "")
        note = "" if answers else f"nothing to look at; it needs {check.needs}"
        yield Finding(f"audit: {check.name.replace('-', ' ')}", wrong, note)
