"""Checks of one plugin: its documentation, its contract, and a run of the suite ``mock`` with its audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml
from rich.console import Console

from advser.attacks.base import Attack
from advser.audit import attack_checks as attacks
from advser.audit import masked_gradient_checks as gradients
from advser.audit import model_checks as models
from advser.audit import plugin_contract as contract
from advser.audit.check import Check
from advser.audit.contract import Finding
from advser.errors import AdvserError, InputError, one_line
from advser.execution.cluster import Workers
from advser.execution.execute import Report, carry_out
from advser.execution.prepare import prepare
from advser.execution.request import Request
from advser.plugins.parameters import validated
from advser.plugins.registries import ATTACKS, BY_KIND
from advser.plugins.registry import raised_in
from advser.plugins.roles import field_with_role, norm_of_budget
from advser.suite.loading import load

SUITE: Final = "mock"
VICTIM_CHECKS: Final = (
    attacks.iterative_attack_weaker_than_single_step,
    attacks.noise_beats_attack,
    attacks.undefended_model_robust,
    attacks.not_attacked_adaptively,
    *gradients.OF_GRADIENTS,
    *models.OF_MODELS,
)
AUDIT_CHECKS: Final[Mapping[str, tuple[Check, ...]]] = {
    "attack": (
        attacks.iterative_attack_weaker_than_single_step,
        attacks.smaller_budget_stronger,
        attacks.noise_beats_attack,
        attacks.not_converged,
    ),
    "defense": VICTIM_CHECKS,
    "model": VICTIM_CHECKS,
    "metric": (),
}
"""Kind of plugin → the checks of the audit that concern it."""

NORM_SCALE: Final[Mapping[str, float]] = {"linf": 1, "l2": 150, "relative-l2": 10}
"""Norm → factor on the mock suite's L∞ budgets, for about the same loudness on its clips."""

EPSILON: Final = 0.004
"""Budget of an attack while its contract is checked."""


def check(kind: str, name: str, params: Mapping[str, Any], store: Path, plugins: tuple[Path, ...]) -> Iterator[Finding]:
    """Yield the findings on a plugin, the quickest first. A plugin that breaks its contract is not run.

    Args:
        kind: ``attack``, ``defense``, ``model`` or ``metric``.
        name: its name in the registry.
        params: its parameters; the mock suite chooses an attack's budget.
        store: the artefact store's root.
        plugins: plugin files for the workers; this process has loaded them already.

    Raises:
        InputError: if there is no such plugin, or its parameters are wrong.
    """
    if kind not in contract.CONTRACTS:
        raise InputError(f"check {kind}: got kind '{kind}', expected {', '.join(contract.CONTRACTS)}")
    plugin = BY_KIND[kind].get(name)
    budget = field_with_role(plugin, "budget") if kind == "attack" else None
    if budget in params:
        raise InputError(f"{kind} '{name}': {budget}: got a budget, expected none: suite '{SUITE}' chooses it")
    contract_params = {**params, budget: EPSILON} if budget else params
    validated(plugin, contract_params, f"{kind} '{name}'")
    yield from contract.described(kind, name)
    broken = False
    for finding in _contract_findings(kind, plugin, contract_params, plugins):
        broken = broken or bool(finding.wrong)
        yield finding
    if broken:
        yield Finding(f"suite '{SUITE}'", note="not run, because the plugin breaks its contract")
        return
    yield from _mock_run(kind, name, params, store, plugins)


def _contract_findings(
    kind: str, plugin: Any, params: Mapping[str, Any], plugins: tuple[Path, ...]
) -> Iterator[Finding]:
    """Yield the findings of a plugin's contract; an exception of the plugin is a finding."""
    findings = contract.CONTRACTS[kind](plugin, params)
    while True:
        try:
            finding = next(findings)
        except StopIteration:
            return
        except AdvserError as error:
            finding = Finding("contract", str(error) or one_line(error))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            finding = Finding("contract", f"{one_line(error)}{raised_in(error)}")
        yield finding


def _mock_run(
    kind: str, name: str, params: Mapping[str, Any], store: Path, plugins: tuple[Path, ...]
) -> Iterator[Finding]:
    with TemporaryDirectory(prefix="advser-check-") as folder:
        file = Path(folder) / f"{SUITE}.yaml"
        file.write_text(yaml.safe_dump(_mock_suite(kind, name, dict(params))), encoding="utf-8")
        request = Request(str(file), store, out=Path(folder) / "out", workers=Workers(plugins=plugins), joining=False)
        report = carry_out(request, prepare(request), Console(quiet=True))
    yield from _run_findings(kind, name, report)


def _mock_suite(kind: str, name: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the mock suite with the plugin in it, as data."""
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
        others = [attack for attack in suite["attacks"] if attack["name"] != name]
        return {**suite, "audit": False, "attacks": [*others, *own]}
    # The suite's own entries stay: an undefended twin, and a surrogate.
    others = [other for other in suite[f"{kind}s"] if other["name"] != name]
    return {**suite, "audit": kind != "metric", f"{kind}s": [*others, entry]}


def _attack_entry(
    plugin: type[Attack], entry: dict[str, Any], domain: list[str], budgets: list[float]
) -> dict[str, Any]:
    scale = NORM_SCALE[norm_of_budget(plugin, entry["params"])]
    name = field_with_role(plugin, "budget")
    budget = {name: [scale * epsilon for epsilon in budgets]} if name else {}
    return {
        "name": entry["name"],
        "params": {**entry["params"], **budget, **_doubled_steps(plugin, entry["params"])},
        # The objective of the attacks that it is compared with; on an undefended model that is the cross-entropy.
        "objective": "adaptive",
        "domain": domain,
        "delivery": ["features"] if domain == ["spectrogram"] else ["audio"],
    }


def _doubled_steps(plugin: type[Attack], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return an attack's gradient steps and twice as many; empty if it declares none, or none that can be doubled."""
    name = field_with_role(plugin, "steps")
    steps = params.get(name, plugin.model_fields[name].default) if name else None
    if name is None or plugin.single_step or not isinstance(steps, int) or not steps:
        return {}
    try:
        budget = field_with_role(plugin, "budget")
        bounded = {budget: EPSILON} if budget else {}
        validated(plugin, {**bounded, **params, name: 2 * steps}, "twice the steps")
    except InputError:
        return {}
    return {name: [steps, 2 * steps]}


def _run_findings(kind: str, name: str, report: Report) -> Iterator[Finding]:
    """Yield the failures of the plugin's cells, and the answers of the audit's checks."""
    table = report.results.table
    own = table[table[kind] == name]
    failed = own[own["status"] == "failed"]["reason"].drop_duplicates().tolist()
    yield from (Finding("a run on the mock task", reason) for reason in failed or [""])
    for check in AUDIT_CHECKS[kind]:
        answers = [answer for answer in report.audit.verdicts[check.name] if answer.where.get(kind, name) == name]
        wrong = next((f"{check.meaning} ({answer.wrong})" for answer in answers if answer.wrong), "")
        note = "" if answers else f"not applicable; it needs {check.needs}"
        yield Finding(f"audit: {check.name.replace('-', ' ')}", wrong, note)
