"""Crafting of more and more clips, and by more and more steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from attackers import CLASSES, EPSILON, MODELS, precision

from advser.attacks.gradient_sign import IterativeFGSM
from advser.stages.craft import Harness

CLIPS, STEPS = (16, 32, 64, 128), (2, 5, 10, 20)
BATCH = 16


def crafting(counts: tuple[int, ...], *, of_clips: bool) -> Mapping[str, Callable[[], Any]]:
    """Return the crafting of so many clips at 2 steps, or of one batch at so many steps, by its count."""
    torch.manual_seed(0)
    model = MODELS["cnn4"]().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.eval().requires_grad_(requires_grad=False)
    waveform = (0.1 * torch.randn(BATCH, 48_000) * 32768).round().clamp(-32768, 32767) / 32768
    lengths, labels = torch.full((BATCH,), 48_000), torch.arange(BATCH) % CLASSES

    def craft(clips: int, steps: int) -> Callable[[], None]:
        epsilon = EPSILON["waveform"]
        attack = IterativeFGSM(epsilon=epsilon, steps=steps)
        harness = Harness(attack, model, "waveform", "true", precision=precision("cnn4"))

        def run() -> None:
            for _ in range(clips // BATCH):
                harness.craft(waveform, lengths, labels, torch.Generator())

        return run

    return {str(count): craft(*((count, 2) if of_clips else (BATCH, count))) for count in counts}


def by_clips() -> Mapping[str, Callable[[], Any]]:
    """Return the crafting of each number of clips."""
    return crafting(CLIPS, of_clips=True)


def by_steps() -> Mapping[str, Callable[[], Any]]:
    """Return the crafting by each number of steps."""
    return crafting(STEPS, of_clips=False)
