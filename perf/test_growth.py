"""How times grow with clips, steps, cells and workers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from attackers import CLASSES, EPSILON, MODELS
from contest import as_workers, contest
from measuring import Growth, Table
from test_matrix import planning_seconds

from advser.attacks.gradient_sign import IterativeFGSM
from advser.stages.craft import Harness

CLIPS, STEPS, CELLS = (16, 32, 64, 128), (2, 5, 10, 20), (1_000, 2_500, 5_000, 10_000)
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
        harness = Harness(IterativeFGSM(epsilon=epsilon, steps=steps), model, "waveform", "true")

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


@pytest.mark.parametrize(
    ("make", "what", "with_", "counts"),
    [
        (by_clips, "iterative FGSM of 2 steps on cnn4", "clips", CLIPS),
        (by_steps, f"iterative FGSM on cnn4, {BATCH} clips", "steps", STEPS),
    ],
)
def test_crafting(make: Callable[[], Any], what: str, with_: str, counts: tuple[int, ...], table: Table) -> None:
    """Add how crafting grows."""
    taken = contest([as_workers(make)], 3)
    table.growths.append(Growth(what, with_, counts, [taken[str(count)] for count in counts]))


def test_planning(table: Table) -> None:
    """Add how planning grows."""
    seconds = [statistics.median(planning_seconds(cells) for _ in range(3)) for cells in CELLS]
    table.growths.append(Growth("planning", "cells", CELLS, seconds))
