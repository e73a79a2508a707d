"""Keys of jobs change exactly when results would."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from planning import (
    FGSM,
    VANILLA,
    NotInstalled,
    plan,
    stages,
)

from advser.errors import InputError
from advser.plan.cells import Plan
from advser.plugins.fingerprint import code_fingerprint
from advser.plugins.registries import ATTACKS, DEFENSES, METRICS, MODELS
from advser.stages.specs import CraftSpec

BASE = {"defenses": ["none", VANILLA], "attacks": [{**FGSM, "domain": ["waveform"]}]}


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"name": "renamed", "title": "Another", "about": "More."}, {"train", "craft", "predict", "measure"}),
        ({"models": [{"name": "tiny", "label": "small"}]}, {"train", "craft", "predict", "measure"}),
        ({"attacks": [{**FGSM, "label": "ours"}]}, {"train", "craft", "predict", "measure"}),
        ({"metrics": ["uar", {"name": "snr", "label": "ratio"}]}, {"train", "craft", "predict", "measure"}),
        ({"bootstrap": 7}, {"train", "craft", "predict", "measure"}),
        ({"attacks": [{**FGSM, "params": {"epsilon": 0.01}}]}, {"train"}),
        ({"attacks": [{**FGSM, "labels": ["predicted"]}]}, {"train"}),
        ({"batch_size": 7}, {"train"}),
        # One step along the gradient is to be along it exactly; only attacks of many steps are as strong without.
        ({"attack_precision": "bf16"}, {"train", "craft", "predict", "measure"}),
        ({"models": [{"name": "tiny", "params": {"frames": 64}}]}, set()),
        ({"training": {"iterations": 6, "precision": "fp32"}}, set()),
        ({"seeds": [1]}, set()),
        ({"protocol": "6pair"}, set()),
        ({"folds": ["fold2"]}, set()),
    ],
    # Not by themselves: the order of a set differs between processes.
    ids=lambda value: json.dumps(value, default=sorted),
)
def test_keys_change_when_results_would_and_not_with_names(changes: dict[str, Any], same: set[str]) -> None:
    one_fold = {**BASE, "folds": ["fold1"]}
    before, after = plan(**one_fold).jobs, plan(**{**one_fold, **changes}).jobs
    for stage in ("train", "craft", "predict", "measure"):
        keys = [{key for key, job in jobs.items() if job.stage == stage} for jobs in (before, after)]
        assert (keys[0] == keys[1]) == (stage in same), stage
        if stage == "train" and stage not in same:
            assert not keys[0] & keys[1]


@pytest.mark.parametrize(
    ("wanted", "attack", "native", "precision"),
    [
        ("auto", "ifgsm", True, "bf16"),
        ("auto", "ifgsm", False, "fp32"),
        ("auto", "fgsm", True, "fp32"),
        ("bf16", "ifgsm", False, "bf16"),
        ("bf16", "fgsm", True, "fp32"),
        ("fp32", "ifgsm", True, "fp32"),
    ],
)
def test_gradients_are_in_bfloat16_where_the_suite_the_attack_and_the_processor_allow_it(
    wanted: str, attack: str, native: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advser.models.precision.computes_in_bf16", lambda device: native)
    planned = plan(attack_precision=wanted, attacks=[{**FGSM, "name": attack}], folds=["fold1"])
    rows = {job.spec.attack.name: job.spec.precision for job in planned.jobs.values() if job.stage == "craft"}
    assert rows == {"none": "fp32", attack: precision}


def test_the_code_of_every_attack_involved_is_in_the_key() -> None:
    nested = {"name": "nested", "params": {"inner": {"name": "nested", "params": {"inner": FGSM}}}}
    defenses = [{"name": "vanilla", "params": {"attack": nested}}]
    planned = plan(defenses=defenses, attacks=[{**nested, "domain": ["waveform"]}], folds=["fold1"])
    (train,) = [job for job in planned.jobs.values() if job.stage == "train"]
    craft = next(job for job in planned.jobs.values() if job.stage == "craft" and job.spec.attack.name == "nested")
    for job in (train, craft):
        assert job.code["attacks:fgsm"] == code_fingerprint("advser.attacks.gradient_sign")
        assert "attacks:nested" in job.code


def examined(planned: Plan) -> Counter[tuple[str, str]]:
    """Count the examine jobs by attack and metric."""
    titles = {key: cell.columns["attack"] for cell in planned.cells for key in cell.folds[0].examined.values()}
    return Counter((titles[key], job.spec.metric.name) for key, job in planned.jobs.items() if job.stage == "examine")


def test_a_victim_is_examined_only_where_the_metric_has_a_meaning() -> None:
    planned = plan(attacks=[{**FGSM}], metrics=["uar", "snr", "alignment", "gradient-mass"], folds=["fold1"])
    assert examined(planned) == {("none", "gradient-mass"): 1, ("fgsm", "alignment"): 1}
    assert stages(planned)["measure"] == 1


def test_the_packages_of_every_plugin_involved_are_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, name, package in (
        (ATTACKS, "nested", "jinja2"),
        (ATTACKS, "fgsm", "typer"),
        (ATTACKS, "generator", "pooch"),
        (DEFENSES, "vanilla", "rich"),
        (METRICS, "alignment", "pyyaml"),
    ):
        monkeypatch.setattr(kind.get(name), "packages", (package,))
    nested = {"name": "nested", "params": {"inner": FGSM}, "domain": ["waveform"]}
    generator = {"name": "generator", "params": {"epsilon": 0.01}}
    planned = plan(defenses=[VANILLA], attacks=[nested, generator], metrics=["uar", "alignment"], folds=["fold1"])
    rows: dict[str, set[str]] = {}
    for job in planned.jobs.values():
        packages = {name.removeprefix("package:") for name in job.code if name.startswith("package:")}
        attack = f" {job.spec.attack.name}" if isinstance(job.spec, CraftSpec) else ""
        rows.setdefault(job.stage + attack, set()).update(packages)
    assert {"jinja2", "typer"} <= rows["craft nested"]
    assert "pooch" in rows["learn generator"] & rows["craft generator"]
    assert {"rich", "typer"} <= rows["train"]
    assert "pyyaml" in rows["examine"]
    assert not {"jinja2", "typer", "pooch", "rich", "pyyaml"} & (rows["craft none"] | rows["predict"])


def test_attacks_declare_the_packages_that_affect_their_results() -> None:
    for name, package in {"art": "adversarial-robustness-toolbox", "chain-rule": "scipy"}.items():
        assert ATTACKS.get(name).packages == (package,)
    assert ATTACKS.get("hopskipjump").packages == ATTACKS.get("art").packages


def test_a_missing_package_is_reported_with_its_extra_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MODELS._decorated, "not-installed", NotInstalled)
    listed = ["not-there-at-all>=1; extra == 'other'", 'not-there[all]>=2.6; extra == "encoders"']
    monkeypatch.setattr("advser.plugins.extras.requires", lambda _: listed)
    with pytest.raises(InputError, match=r"^model 'not-installed': not-there is not installed; .* '\.\[encoders\]' "):
        plan(models=["not-installed"])
    monkeypatch.setattr("advser.plugins.extras.requires", lambda _: [])
    with pytest.raises(InputError, match=r"pip install 'not-there'$"):
        plan(models=["not-installed"])
