"""Adaptive attacks: their objectives, their access to clean embeddings, and their jobs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
import toys
from commandline import advser_here
from torch.nn import functional

from advser.attacks.reference import AttackReference
from advser.defenses.adversarial_training import Similarity
from advser.defenses.base import Defense
from advser.defenses.detection import Detector
from advser.models.base import Outputs
from advser.plan.cells import Corpus, Plan, Speech
from advser.plan.jobs import prepare_job
from advser.plan.planner import make_plan
from advser.plugins.registries import DEFENSES
from advser.results.folder import Results
from advser.suite.schema import Suite
from advser.threat.model import Access
from advser.threat.objectives import cross_entropy, evasion
from advser.threat.target import Target

FGSM = AttackReference(name="fgsm", params={"epsilon": 0.05})
WITH_OWN_LOSS = {"similarity", "detector"}


def four_outputs(*, reference: bool = True) -> Outputs:
    generator = torch.Generator().manual_seed(0)
    logits, detection, embedding, clean = (torch.randn(4, size, generator=generator) for size in (3, 1, 5, 5))
    return Outputs(logits, embedding, detection[:, 0], clean if reference else None)


LABELS = torch.tensor([0, 2, 1, 1])


@pytest.mark.parametrize("name", list(DEFENSES))
def test_every_defense_has_a_loss_per_clip_with_and_without_the_clean_embedding(name: str) -> None:
    defense = DEFENSES.get(name).model_validate(toys.row(DEFENSES.get(name)))
    for outputs in (four_outputs(), four_outputs(reference=False)):
        assert defense.adaptive(outputs, LABELS).shape == (4,)
        assert defense.adaptive(outputs, LABELS).isfinite().all()
        assert defense.adaptive(outputs, outputs.logits.softmax(1)).shape == (4,)
    if name not in WITH_OWN_LOSS:
        assert torch.equal(defense.adaptive(four_outputs(), LABELS), cross_entropy(four_outputs(), LABELS))


@pytest.mark.parametrize(("gamma", "weight"), [(0.4, 0.5), (0.2, 2.0), (0.0, 1.0)])
def test_against_similarity_the_distance_of_the_embeddings_joins_the_loss(gamma: float, weight: float) -> None:
    outputs = four_outputs()
    assert outputs.reference is not None
    loss = functional.cross_entropy(outputs.logits, LABELS, reduction="none")
    difference = outputs.embedding - outputs.reference
    for norm, distance in {"mse": (difference**2).sum(1) / 5, "l2": (difference**2).sum(1).sqrt()}.items():
        defense = Similarity.model_validate({"attack": FGSM, "beta": 0.4, "gamma": gamma, "norm": norm})
        torch.testing.assert_close(defense.adaptive(outputs, LABELS), loss + weight * distance)
        assert torch.equal(defense.adaptive(four_outputs(reference=False), LABELS), cross_entropy(outputs, LABELS))


def test_against_the_detector_it_is_evasion() -> None:
    assert torch.equal(Detector(attack=FGSM).adaptive(four_outputs(), LABELS), evasion(four_outputs(), LABELS))


@pytest.mark.parametrize("access", ["white-box", "scores"])
def test_a_target_passes_each_clean_embedding_to_white_box_objectives_alone(access: Access) -> None:
    model = toys.model(toys.Linear)
    x, lengths, labels = toys.sounds()
    clean = torch.arange(6.0)[:, None].expand(6, 4)
    references: list[torch.Tensor | None] = []

    def objective(outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
        references.append(outputs.reference)
        return cross_entropy(outputs, labels)

    rows = torch.tensor([4, 1, 4])
    with Target(model, lengths, "waveform", access, objective=objective, reference=clean) as target:
        target.loss(x, labels)
        target.at(rows).loss(x[rows], labels[rows])
        if access == "white-box":
            target.gradient(x, labels)
            torch.testing.assert_close(references, [clean, clean[rows], clean])
        else:
            assert references == [None, None]


def planned(objective: str) -> Plan:
    reference = FGSM.model_dump()
    named = [{"name": name, "params": {"attack": reference}} for name in ("vanilla", "similarity", "detector")]
    data = {
        "name": "small",
        "corpus": "demo",
        "protocol": "3pair",
        "models": ["tiny"],
        "defenses": ["none", *named],
        "attacks": [
            {"name": "ifgsm", "params": {"epsilon": 0.001}, "surrogates": [["tiny", "tiny/similarity"]]},
            {"name": "ifgsm", "objective": objective, "params": {"epsilon": 0.001}, "surrogates": [["tiny/vanilla"]]},
        ],
        "metrics": ["uar"],
        "transcriber": "none",
        "noise": False,
        "training": {"iterations": 5, "precision": "fp32"},
    }
    suite = Suite.model_validate(data)
    corpus = Corpus({0: prepare_job(suite, 0, None).key}, ("fold1",), "en")
    return make_plan(suite, corpus, Speech(None, "none", "not requested"), {}, "cpu")


def test_a_job_is_adaptive_if_the_defense_of_its_source_has_its_own_loss() -> None:
    plan = planned("adaptive")
    crafted = [job for job in plan.jobs.values() if job.stage == "craft" and "ifgsm" in job.title]
    objectives = Counter(job.spec.objective for job in crafted)
    # Each of the four victims, and the group; where the two entries ascend the same, there is one job.
    assert objectives == {"cross-entropy": 5, "adaptive": 2}
    attacked = [cell.columns for cell in plan.cells if cell.columns["attack"] == "ifgsm"]
    declared = Counter(json.loads(columns["params"]).get("objective") for columns in attacked)
    assert declared == {None: 4 + 2, "adaptive": 4 + 3}
    for name in DEFENSES:
        assert (DEFENSES.get(name).adaptive is not Defense.adaptive) == (name in WITH_OWN_LOSS), name


SUITE = """\
name: adaptive
corpus: demo
protocol: loso
folds: [f1]
classes: [anger, sadness]
training: {iterations: 40, batch_size: 16, learning_rate: 2e-3, precision: fp32}
models: [tiny]
defenses:
  - {name: similarity, params: {beta: 0.3, gamma: 0.3, attack: {name: fgsm, params: {epsilon: 0.06}}}}
attacks:
  - {name: ifgsm, params: {epsilon: 0.001, steps: 3}}
  - {name: ifgsm, objective: adaptive, params: {epsilon: 0.001, steps: 3}}
  - {name: ifgsm, label: features, domain: spectrogram, delivery: features, objective: adaptive,
     params: {epsilon: 0.06, steps: 2}}
  - {name: generator, objective: adaptive, params: {epsilon: 0.001, steps: 2}}
metrics: [accuracy, loss]
transcriber: none
noise: false
audit: false
bootstrap: 20
"""


def test_a_suite_runs_adaptive_attacks_including_attacks_with_a_network(tmp_path: Path) -> None:
    (tmp_path / "adaptive.yaml").write_text(SUITE)
    done = advser_here("run", "adaptive.yaml", "--store", "store", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    table = Results.load(tmp_path / "out").table
    assert (table["status"] == "ok").all()
    loss = table[(table["metric"] == "loss") & (table["attack"] == "ifgsm")]
    by_objective = {json.loads(row.params).get("objective"): row.value for row in loss.itertuples()}
    assert set(by_objective) == {None, "adaptive"}
    assert by_objective[None] != by_objective["adaptive"]
