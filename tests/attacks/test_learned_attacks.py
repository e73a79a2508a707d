"""Attacks with a trained network: their training, limits, and stage in a run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from advser.attacks.controls import Noise
from advser.attacks.generator import AtrousCNN, Generator
from advser.audio.pcm import PCM_STEP
from advser.errors import ContractError
from advser.execution.jobs.worker import execute
from advser.models.base import EmotionModel
from advser.plan.cells import Corpus, Plan, Speech
from advser.plan.jobs import prepare_job
from advser.plan.planner import make_plan
from advser.stages.craft import COSTS, NETWORK
from advser.stages.job import Job, Task
from advser.stages.judge import LOGITS
from advser.stages.learn import learn
from advser.stages.prepare import AUDIO, load_clips, load_prepared
from advser.store.artefacts import Store
from advser.suite.schema import Suite
from advser.threat.target import Target


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_learned_attack_refuses_to_perturb_without_a_network() -> None:
    x, lengths, labels = toys.sounds()
    model = toys.model(toys.Linear)
    with Target(model, lengths, "waveform") as target, pytest.raises(ContractError, match="network is not trained"):
        Generator(epsilon=0.01).perturb(target, x, labels, generator())


def tones(clips: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return clips of a low (0), middle (1) or high (2) tone of random phase in noise, their lengths, and labels."""
    draws = generator(seed)
    labels = torch.arange(clips) % toys.CLASSES
    cycles = torch.tensor([0.03, 0.08, 0.2])[labels][:, None] * torch.arange(toys.SAMPLES)
    x = 0.05 * (2 * torch.pi * (cycles + torch.rand(clips, 1, generator=draws))).sin()
    return x + 0.05 * torch.randn(x.shape, generator=draws), torch.full((clips,), toys.SAMPLES), labels


def trained(seed: int) -> EmotionModel:
    """Return a toy model that classifies tones."""
    model = toys.model(toys.Waveform, seed)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(80):
        x, lengths, labels = tones(24, 1000 + step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x, lengths), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model


class Surrogates:
    """Batches for several toy models in turn; each target is open until the next batch."""

    def __init__(self, *models: EmotionModel) -> None:
        self.models = models
        self.batch_counts = [0] * len(models)

    def batches(self) -> Iterator[tuple[Target, Tensor, Tensor]]:
        for number, (index, model) in enumerate(cycle(enumerate(self.models))):
            x, lengths, labels = tones(12, number)
            with Target(model, lengths, "waveform") as target:
                self.batch_counts[index] += 1
                yield target, x, labels


def learned(attack: Generator, *models: EmotionModel, seed: int = 0) -> tuple[nn.Module, Surrogates]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = attack.network()
    surrogates = Surrogates(*models)
    batches = surrogates.batches()
    attack.learn(network, batches, generator(seed))
    batches.close()
    return network, surrogates


SMALL = {"epsilon": 0.02, "channels": 6, "layers": 5, "learning_rate": 5e-3}


@pytest.mark.parametrize("seeds", [(0,), (0, 1)], ids=["one surrogate", "two in turn"])
def test_a_generator_beats_noise_on_new_clips(seeds: tuple[int, ...]) -> None:
    models = [trained(seed) for seed in seeds]
    attack = Generator(steps=60, **SMALL)
    states, random_state = [toys.state(model) for model in models], torch.get_rng_state()
    network, surrogates = learned(attack, *models)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert surrogates.batch_counts == [60 // len(models)] * len(models)
    for model, before in zip(models, states, strict=True):
        toys.assert_same_state(model, before)
        x, lengths, labels = tones(30, 500)
        with Target(model, lengths, "waveform") as target:
            clean = target.loss(x, labels).mean()
            noisy = target.loss(Noise(epsilon=0.02).perturb(target, x, labels, generator()), labels).mean()
            attacked = target.loss(attack.apply(network, x), labels).mean()
        assert attacked > clean
        assert attacked - clean > 2 * (noisy - clean).abs()


def test_a_generator_learns_equal_networks_from_equal_seeds() -> None:
    model = toys.model(toys.Waveform)
    attack = Generator(steps=4, **SMALL)
    first, again, other = (learned(attack, model, seed=seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


@settings(max_examples=20)
@given(gain=st.floats(0.01, 1), epsilon=st.floats(0, 0.1), seed=st.integers(0, 5))
def test_a_generator_respects_its_budget_and_ignores_loudness(gain: float, epsilon: float, seed: int) -> None:
    x = toys.sounds(2, seed)[0]
    attack = Generator(epsilon=epsilon, channels=4, layers=3)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = attack.network()
    change = attack.apply(network, x) - x
    assert (change.abs() <= epsilon + 1e-6).all()
    torch.testing.assert_close(attack.apply(network, gain * x) - gain * x, change, atol=1e-4 * epsilon + 1e-6, rtol=0)


def test_a_generator_accepts_silence() -> None:
    attack = Generator(epsilon=0.01, channels=4, layers=3)
    assert attack.apply(attack.network(), torch.zeros(2, 50)).isfinite().all()


@pytest.mark.parametrize("layers", [1, 3, 5])
def test_each_layer_doubles_the_receptive_field(layers: int) -> None:
    network = AtrousCNN(3, layers)
    for weight in network.parameters():
        # Positive, so that every ReLU passes its input.
        nn.init.constant_(weight, 0.1)
    x = torch.rand(1, 201, generator=generator())
    # A peak elsewhere, so that scaling connects no other samples.
    x[0, 0] = 100
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0, 100], x)
    field = gradient[0, 1:].nonzero().squeeze(1) + 1
    assert [int(field[0]), int(field[-1])] == [100 - (2**layers - 1), 100 + (2**layers - 1)]
    assert int(field[-1] - field[0]) + 1 == 2 * 2**layers - 1


def small_suite(**changes: Any) -> Suite:
    data = {
        "name": "small",
        "corpus": "demo",
        "protocol": "3pair",
        "folds": ["fold1"],
        "models": [{"name": "tiny", "params": {"frames": 48}}],
        "defenses": ["none"],
        "metrics": ["uar"],
        "transcriber": "none",
        "noise": False,
        "audit": False,
        "classes": ["anger", "sadness"],
        "training": {"iterations": 40, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32"},
        "attacks": [
            {
                "name": "generator",
                "params": {"epsilon": 0.005, "channels": 4, "layers": 3, "steps": 10, "learning_rate": 0.01},
            },
            {"name": "noise", "params": {"epsilon": 0.005}},
        ],
    }
    return Suite.model_validate(data | changes)


def planned(suite: Suite, prepare: Job) -> Plan:
    corpus = Corpus({0: prepare.key}, ("fold1", "fold2", "fold3"), "en")
    return make_plan(suite, corpus, Speech(None, "none", "not requested"), {}, "cpu")


def run(plan: Plan, prepare: Job, root: Path) -> Store:
    for job in (prepare, *plan.jobs.values()):
        outcome = execute(job, root, (), "cpu")
        assert outcome.status == "ok", outcome
    return Store(root)


def job_of(plan: Plan, stage: str, attack: str) -> Job:
    jobs = [job for job in plan.jobs.values() if job.stage == stage]
    (job,) = [job for job in jobs if job.spec.attack.name == attack]
    return job


def test_a_run_trains_and_stores_a_network_and_crafts_with_it(tmp_path: Path) -> None:
    prepare = prepare_job(small_suite(), 0, None)
    plan = planned(small_suite(), prepare)
    store = run(plan, prepare, tmp_path / "store")

    learning, craft = job_of(plan, "learn", "generator"), job_of(plan, "craft", "generator")
    assert craft.inputs["network"] == learning.key
    assert learning.inputs == {role: key for role, key in craft.inputs.items() if role != "network"}
    assert "network" not in job_of(plan, "craft", "noise").inputs
    costs = load_file(store.get(craft.key).path(COSTS))
    assert not costs["forwards"].any(), "crafting with a network used the target"

    prepared = load_prepared(store.get(prepare.key))
    test = list(prepared.folds["fold1"].test)
    clean, perturbed = prepared.clips.select(test), load_clips(store.get(craft.key).path(AUDIO))
    change = np.abs(perturbed.packed().astype(int) - clean.packed().astype(int))
    assert 0 < change.max() <= 0.005 / PCM_STEP

    losses: dict[str, float] = {}
    for cell in plan.cells:
        logits = load_file(store.get(cell.folds[0].predicted).path(LOGITS))["logits"]
        losses[cell.columns["attack"]] = float(
            nn.functional.cross_entropy(logits, torch.from_numpy(prepared.targets[test]))
        )
    assert losses["generator"] > losses["none"]

    random_state = torch.get_rng_state()
    learn(Task(learning.spec, {role: store.get(key) for role, key in learning.inputs.items()}, tmp_path))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert (tmp_path / NETWORK).read_bytes() == store.get(learning.key).path(NETWORK).read_bytes()


def test_a_network_trains_against_an_ensemble_of_surrogates(tmp_path: Path) -> None:
    models = [{"name": "tiny", "label": name, "params": {"frames": frames}} for name, frames in
              (("a", 16), ("b", 24), ("victim", 32))]  # fmt: skip
    attack = {
        "name": "generator",
        "params": {"epsilon": 0.005, "channels": 2, "layers": 2, "steps": 2},
        "surrogates": [["a", "b"]],
    }
    training = {"iterations": 2, "batch_size": 8, "precision": "fp32"}
    suite = small_suite(models=models, attacks=[attack], training=training)
    prepare = prepare_job(suite, 0, None)
    plan = planned(suite, prepare)
    learns = [job for job in plan.jobs.values() if job.stage == "learn"]
    assert sorted(len(job.inputs) for job in learns) == [2, 2, 2, 3], (
        "expected one network per victim, and one for the ensemble"
    )
    store = run(plan, prepare, tmp_path)
    networks = {store.get(job.key).path(NETWORK).read_bytes() for job in learns}
    assert len(networks) == 4
