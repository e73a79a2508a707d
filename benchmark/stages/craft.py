"""Stage 3: perturb the test clips of one fold, and verify what is stored.

The attack only returns perturbed inputs. The harness makes them admissible: it leaves padding alone, projects to the
budget, clips sound and rounds it to 16-bit PCM. This stage checks the budget again on the stored clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from advser.attacks.base import Attack
from advser.attacks.learned import LearnedAttack
from advser.audio.clips import Clips, batches_by_length
from advser.audio.pcm import Pcm
from advser.errors import ContractError
from advser.plugins.parameters import build
from advser.plugins.registries import ATTACKS
from advser.stages.harness import ClipBatch, Crafted, Harness
from advser.stages.job import Task
from advser.stages.prepare import AUDIO, load_clips, load_prepared, test_sound, writing_clips
from advser.stages.seeds import seed_of
from advser.stages.separate_attack import SeparateAttack
from advser.stages.specs import CraftSpec
from advser.stages.train import load_defense, load_models
from advser.store.tensors import StoredTensor, Writing, writing
from advser.threat.budget import Budget
from advser.threat.objectives import ADAPTIVE, OBJECTIVES, Loss

FEATURES = "features.safetensors"
COSTS = "costs.safetensors"
NETWORK = "network.safetensors"
"""The weights of an attack that has a network of its own."""


def harness_of(task: Task[CraftSpec]) -> Harness:
    """Return the harness of a job: its attack, on its source. Several sources become an ensemble."""
    spec = task.spec
    adaptive = spec.objective == ADAPTIVE
    objective = load_defense(task.inputs["source"]).adaptive if adaptive else OBJECTIVES[spec.objective]
    attack = _attack(task, objective)
    source = load_models(task.inputs, "source", task.device) if "source" in task.inputs else None
    network = None
    if isinstance(attack, LearnedAttack) and "network" in task.inputs:
        network = attack.network()
        network.load_state_dict(load_file(task.inputs["network"].path(NETWORK)))
        network = network.to(task.device).eval().requires_grad_(requires_grad=False)
    return Harness(
        attack,
        source,
        spec.domain,
        spec.access,
        spec.labels,
        spec.budget,
        objective=objective,
        precision=spec.precision,
        network=network,
        needs_reference=adaptive,
    )


def _attack(task: Task[CraftSpec], objective: Loss) -> Attack | SeparateAttack:
    """Return the attack, in this process, or in one of its own that has neither a model nor a label."""
    spec, admit = task.spec, task.admit_attack

    def built() -> Attack:
        params = {**spec.attack.params, **task.local}
        return build(ATTACKS.get(spec.attack.name), params, f"attack '{spec.attack.name}'")

    def admitted() -> Attack:
        assert admit is not None
        admit()
        return built()

    return built() if admit is None else SeparateAttack.start(admitted, spec.domain, spec.access, objective)


def craft(task: Task[CraftSpec]) -> None:
    """Attack all test clips of a fold, write the result, read it back, and verify it.

    Raises:
        ContractError: if the attack breaks its contract.
    """
    spec = task.spec
    clean = test_sound(task.inputs["prepared"], spec.fold)
    names, targets = _granted(task)
    task.admit_plugins()
    harness = harness_of(task)
    with _Output(task.into, clean.lengths) as output:
        for number, rows in enumerate(batches_by_length(clean.lengths, spec.batch_size)):
            waveform, lengths, classes = (part.to(task.device) for part in (*clean.batch(rows), targets[rows]))
            batch = ClipBatch(waveform, lengths, classes, [names[row] for row in rows] if names else [])
            generator = torch.Generator(task.device).manual_seed(seed_of(spec, number))
            output.add(rows, harness.craft(batch, generator))
    save_file(output.costs, task.into / COSTS)
    _verify(task, clean, harness)


def _granted(task: Task[CraftSpec]) -> tuple[list[str], Tensor]:
    """Return the names and classes of the test clips as far as the attack is given them; else empty, and zeros."""
    prepared = load_prepared(task.inputs["prepared"])
    indices = list(prepared.folds[task.spec.fold].test)
    # Only an attack that reads files has paths. Names may contain the class.
    names = prepared.rows["clip"].iloc[indices].tolist() if task.local else []
    targets = torch.from_numpy(prepared.targets[indices])
    return names, targets if task.spec.labels == "true" else torch.zeros_like(targets)


class _Output(ExitStack):
    """Writes batches as they are crafted. The first batch decides which files there are, and the features' shape.

    Args:
        into: the folder.
        lengths: of all clips, in samples (N,).
    """

    def __init__(self, into: Path, lengths: npt.NDArray[np.int64]) -> None:
        super().__init__()
        self._into, self._lengths = into, lengths
        self._sound: Callable[[int, Pcm], None] | None = None
        self._features: Writing | None = None
        self.costs: dict[str, Tensor] = {}

    def add(self, rows: Sequence[int], crafted: Crafted) -> None:
        """Write the result of a batch of the clips at ``rows``."""
        if not self.costs:
            self._begin(crafted)
        if self._sound is not None:
            assert crafted.audio is not None
            for row, clip in zip(rows, crafted.audio, strict=True):
                self._sound(row, clip)
        if self._features is not None:
            assert crafted.features is not None
            for row, features in zip(rows, crafted.features, strict=True):
                self._features.put("features", row, features[None])
        self.costs["seconds"][rows] = crafted.seconds
        self.costs["forwards"][rows] = crafted.forwards
        self.costs["backwards"][rows] = crafted.backwards

    def _begin(self, first: Crafted) -> None:
        clips = len(self._lengths)
        if first.audio is not None:
            self._sound = self.enter_context(writing_clips(self._into / AUDIO, self._lengths))
        if first.features is not None:
            layout = first.features.dtype, (clips, *first.features.shape[1:])
            self._features = self.enter_context(writing(self._into / FEATURES, {"features": layout}))
        self.costs = {
            "seconds": torch.zeros(clips, dtype=torch.float64),
            "forwards": first.forwards.new_zeros(clips),
            "backwards": first.backwards.new_zeros(clips),
        }


@torch.no_grad()
def _verify(task: Task[CraftSpec], clean: Clips, harness: Harness) -> None:
    """Check the stored clips against the clean ones: finiteness, budget, and untouched padding."""
    sound, features = task.into / AUDIO, task.into / FEATURES
    judged = load_clips(sound) if sound.exists() else clean
    stored = StoredTensor.find(features, "features") if features.exists() else None
    for rows in batches_by_length(clean.lengths, task.spec.batch_size):
        waveform, lengths = (part.to(task.device) for part in clean.batch(rows))
        x, mask = harness.inputs(ClipBatch(waveform, lengths, torch.zeros_like(lengths)))
        perturbed = judged.batch(rows)[0] if stored is None else stored.rows(rows)
        _check(perturbed.to(x), x, mask, task.spec.budget)


def _check(stored: Tensor, x: Tensor, mask: Tensor, budget: Budget | None) -> None:
    if not stored.isfinite().all():
        raise ContractError("stored examples are not finite")
    if not torch.equal(torch.where(mask, x, stored), x):
        raise ContractError("stored examples differ from the clean ones in the padding")
    if budget is not None and budget.exceeded(stored, x).any():
        size = float(budget.size(stored, x).amax())
        raise ContractError(f"a stored example has size {size:g}, expected at most {budget.epsilon:g} ({budget.norm})")
