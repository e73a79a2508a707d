"""Runs one attack on one source model and admits what it returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from advser.attacks.base import Attack
from advser.attacks.learned import LearnedAttack
from advser.audio.clips import sound_mask
from advser.audio.pcm import Pcm, to_pcm
from advser.errors import ContractError
from advser.models.base import EmotionModel, Outputs
from advser.models.terms import Domain, Precision
from advser.threat.admission import admissible
from advser.threat.budget import Budget
from advser.threat.model import Labels
from advser.threat.objectives import Loss, cross_entropy
from advser.threat.target import Target, drawing


@dataclass(frozen=True)
class Crafted:
    """What one batch came to.

    Attributes:
        audio: the judged sound of each clip, or None if features cannot be turned back into sound.
        features: perturbed features (B, bands, frames), or None in the waveform domain.
        seconds: seconds a clip.
        forwards, backwards: passes per clip (B,).
    """

    audio: list[Pcm] | None
    features: Tensor | None
    seconds: float
    forwards: Tensor
    backwards: Tensor


@dataclass(frozen=True)
class Harness:
    """Runs one attack on one source model.

    Attributes:
        attack: the attack.
        model: what it is crafted on; None for blind attacks on waveforms.
        domain: what is perturbed.
        labels: which labels it is given.
        objective: the loss that it ascends.
        precision: of its gradients.
        network: the trained network of a `LearnedAttack`; None while it is trained.
        refers: whether the objective compares with the embeddings of the clean clips.
        budget: what the attack may change.
    """

    attack: Attack
    model: EmotionModel | None
    domain: Domain
    labels: Labels
    objective: Loss = cross_entropy
    precision: Precision = "fp32"
    network: nn.Module | None = None
    refers: bool = False
    budget: Budget | None = field(init=False)

    def __post_init__(self) -> None:
        # From ``norm`` and ``epsilon``, before the attack runs, whatever it overrides, or changes then.
        object.__setattr__(self, "budget", Attack.budget(self.attack, self.domain))

    def craft(
        self,
        waveform: Tensor,
        lengths: Tensor,
        targets: Tensor,
        generator: torch.Generator,
        names: Sequence[str] = (),
    ) -> Crafted:
        """Attack one batch: waveforms (B, T) on the 16-bit grid, lengths (B,), true classes (B,), the clips' names."""
        with torch.no_grad():
            x, mask = self.inputs(waveform, lengths)
            labels = self._labels(x, lengths, targets)
            target = self._target(x, lengths, mask, names)
        with _as_found(x), target:
            start = _now(x)
            perturbed = self._perturb(target, x.clone(), labels, generator)
            seconds = (_now(x) - start) / len(lengths)
        with torch.no_grad():
            perturbed = self._admissible(perturbed, x, mask)
            in_sound = self.domain == "waveform"
            audio = _cut(perturbed, lengths) if in_sound else self._sound(waveform, lengths, perturbed)
            features = None if in_sound else perturbed.cpu()
        return Crafted(audio, features, seconds, target.forwards, target.backwards)

    def _perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        if isinstance(self.attack, LearnedAttack):
            assert self.network is not None
            return self.attack.apply(self.network, x)
        return self.attack.perturb(target, x, labels, generator)

    def _target(self, x: Tensor, lengths: Tensor, mask: Tensor, names: Sequence[str] = ()) -> Target:
        reference = None
        if self.refers:
            reference = self._clean(x, lengths).embedding
        return Target(
            self.model,
            lengths,
            self.domain,
            self.attack.access,
            objective=self.objective,
            precision=self.precision,
            mask=mask,
            reference=reference,
            names=names if self.attack.places else (),
        )

    def before(self, waveform: Tensor, lengths: Tensor, targets: Tensor) -> tuple[Target, Tensor, Tensor]:
        """Return the target before a batch, what is perturbed, and the labels that the attack is given."""
        x, mask = self.inputs(waveform, lengths)
        return self._target(x, lengths, mask), x, self._labels(x, lengths, targets)

    def inputs(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is perturbed of a clean batch, and the mask that broadcasts to it, false in padding."""
        if self.domain == "waveform":
            return waveform, sound_mask(lengths, waveform.shape[1])
        assert self.model is not None
        return self.model.inputs(waveform, lengths, self.domain), self.model.frontend.mask(waveform, lengths)

    def _labels(self, x: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        if self.labels == "true":
            return targets
        if self.labels == "none" or self.model is None:
            return torch.zeros_like(targets)
        logits = self._clean(x, lengths).logits
        return logits.argmax(1) if self.labels == "predicted" else logits.softmax(1)

    def _clean(self, x: Tensor, lengths: Tensor) -> Outputs:
        assert self.model is not None
        with drawing(self.model, 0):
            return self.model.outputs(x, lengths, self.domain)

    def _admissible(self, perturbed: object, x: Tensor, mask: Tensor) -> Tensor:
        if not isinstance(perturbed, Tensor) or perturbed.shape != x.shape:
            found = tuple(perturbed.shape) if isinstance(perturbed, Tensor) else type(perturbed).__name__
            raise ContractError(f"perturb returned {found}, expected a tensor of shape {tuple(x.shape)}")
        perturbed = perturbed.detach().to(x)
        if not perturbed.isfinite().all():
            raise ContractError(f"perturb returned {int((~perturbed.isfinite()).sum())} values that are not finite")
        return admissible(perturbed, x, mask, self.domain, self.budget)

    def _sound(self, waveform: Tensor, lengths: Tensor, features: Tensor) -> list[Pcm] | None:
        assert self.model is not None
        if not self.model.frontend.resynthesises:
            return None
        return _cut(self.model.frontend.resynthesise(waveform, lengths, features), lengths)


def _now(x: Tensor) -> float:
    """Return the time in seconds, after all work on the device of ``x`` is done."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


@contextmanager
def _as_found(x: Tensor) -> Iterator[None]:
    """Refuse a plugin that draws from global generators or leaves torch otherwise than it was, which is set back.

    Args:
        x: a tensor on the device that the plugin works on.
    """
    states, settings = _random_states(x), _settings()
    try:
        yield
    finally:
        left = _settings()
        changed = [name for name in settings if left[name] != settings[name]]
        for name in changed:
            _SETTINGS[name][1](settings[name])
    if changed:
        raise ContractError(f"perturb changed torch's {' and '.join(changed)}, expected inside a context manager")
    if _random_states(x) != states:
        raise ContractError(
            "perturb drew from a global generator of torch or numpy, expected the generator that it is given"
        )


_SETTINGS: Final[dict[str, tuple[Callable[[], Any], Callable[[Any], object]]]] = {
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "number of threads": (torch.get_num_threads, torch.set_num_threads),
}
"""What a plugin could leave otherwise for the jobs after it: how to ask for it, and how to set it."""


def _settings() -> dict[str, Any]:
    return {name: ask() for name, (ask, _) in _SETTINGS.items()}


def _random_states(x: Tensor) -> list[bytes]:
    """Return the states of torch's and numpy's global generators, of GPUs only if ``x`` is on one.

    Python's own is left out: the threads of a worker that keep in touch with the scheduler draw from it too.
    """
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if x.is_cuda else [])]
    return [*(state.numpy().tobytes() for state in states), _numpy_state()]


def _numpy_state() -> bytes:
    _, keys, position, *_ = np.random.get_state(legacy=True)
    return np.asarray(keys).tobytes() + str(position).encode()


def _cut(waveform: Tensor, lengths: Tensor) -> list[Pcm]:
    return [to_pcm(row[:length].numpy()) for row, length in zip(waveform.cpu(), lengths.tolist(), strict=True)]
