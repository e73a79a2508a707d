"""The stage of attacks that have a network of their own: trains it on the fold's training clips."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from advser.attacks.learned import LearnedAttack
from advser.stages.craft import NETWORK, harness_of
from advser.stages.harness import ClipBatch, Harness
from advser.stages.job import Task
from advser.stages.prepare import Prepared, load_prepared
from advser.stages.seeds import seed_of
from advser.stages.specs import LearnSpec
from advser.threat.target import Target


def learn(task: Task[LearnSpec]) -> None:
    """Train the attack's network against its source, and write its weights."""
    prepared = load_prepared(task.inputs["prepared"]).without_test_labels(task.spec.fold)
    task.admit_plugins()
    with torch.random.fork_rng(devices=[]):
        harness = harness_of(task)
        attack = harness.attack
        assert isinstance(attack, LearnedAttack)
        torch.manual_seed(seed_of(task.spec))
        network = attack.network().to(task.device).train()
        generator = torch.Generator(task.device).manual_seed(seed_of(task.spec, "learn"))
        # Closed, so that the last target restores its model.
        with closing(_batches(task, prepared, harness)) as batches:
            attack.learn(network, batches, generator)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, task.into / NETWORK)


def _batches(task: Task[LearnSpec], prepared: Prepared, harness: Harness) -> Generator[tuple[Target, Tensor, Tensor]]:
    """Yield training batches without end, in a new random order per pass; each target is open while in use."""
    clips = np.asarray(prepared.folds[task.spec.fold].train)
    shuffle = np.random.default_rng(seed_of(task.spec, "order"))
    size = min(task.spec.batch_size, len(clips))
    while True:
        order = shuffle.permutation(clips)
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size].tolist()
            waveform, lengths = (part.to(task.device) for part in prepared.clips.batch(rows))
            targets = torch.from_numpy(prepared.targets[rows]).to(task.device)
            with torch.no_grad():
                target, x, labels = harness.open(ClipBatch(waveform, lengths, targets))
            with target:
                yield target, x, labels
