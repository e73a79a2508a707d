"""Auto-PGD against algorithm 1 of its paper."""

from __future__ import annotations

import pytest
import torch
from auto_pgd_batch import Batch, generator
from torch import Tensor

from advser.attacks.auto_pgd import APGD, checkpoints
from advser.threat.objectives import Loss, cross_entropy
from advser.threat.passes import Ascent
from advser.threat.target import Target


class Recording(Target):
    """Records the inputs of its gradients."""

    inputs: list[Tensor]

    def ascent(self, x: Tensor, labels: Tensor, loss: Loss | None = None) -> Ascent:
        # This target and its targets of some clips share the list.
        self.inputs.append(x)
        return super().ascent(x, labels, loss)


def algorithm_1(batch: Batch, clip: int, start: Tensor, attack: APGD) -> tuple[list[Tensor], list[float]]:
    """Return the iterates of a clip and the step sizes, as in the paper line by line."""
    labels, x0, rows = batch.labels[clip : clip + 1], batch.x[clip : clip + 1], torch.tensor([clip])
    sizes = [2 * attack.epsilon]
    with batch.target() as whole:
        target = whole.at(rows)

        def f(x: Tensor) -> tuple[float, Tensor]:
            values = target.ascent(x, labels, cross_entropy)
            return float(values.loss), values.gradient

        def p(x: Tensor) -> Tensor:
            # The same operations as the attack's, because rounding may change the sign of a gradient near 0.
            return attack.admitted(x, x0, target)

        xs = [start]
        value, gradient = f(start)
        xs.append(p(start + sizes[0] * gradient.sign()))
        best, best_x, values = value, start, [value]
        if f(xs[1])[0] > best:
            best, best_x = f(xs[1])[0], xs[1]
        values.append(f(xs[1])[0])
        current, previous, w = xs[1], start, checkpoints(attack.steps)
        best_at, size_at = {0: value}, {0: sizes[0]}
        rose = [values[1] > values[0]]
        for k in range(1, attack.steps):
            # The check of step k follows x_k, as in line 9; a checkpoint at 1 would be the first.
            z = p(current + sizes[-1] * f(current)[1].sign())
            following = p(current + (0.75 * (z - current) + 0.25 * (current - previous)))
            previous, rise_from = current, f(current)[0]
            current = following
            xs.append(current)
            value = f(current)[0]
            rose.append(value > rise_from)
            if value > best:
                best, best_x = value, current
            sizes.append(sizes[-1])
            if k + 1 in w:
                last = w[w.index(k + 1) - 1]
                first = sum(rose[last : k + 1]) < attack.rho * (k + 1 - last)
                second = size_at[last] == sizes[-1] and best_at[last] == best
                # The first checkpoint has no previous step size: it counts as halved.
                second = second and last != 0
                size_at[k + 1], best_at[k + 1] = sizes[-1], best
                if first or second:
                    sizes[-1] /= 2
                    current = best_x
    return xs, sizes


# With ρ = 0 the first condition never holds, and only the second decides.
@pytest.mark.parametrize("rho", [0.75, 0.0])
@pytest.mark.parametrize("clip", range(6))
def test_every_iterate_equals_algorithm_1s(clip: int, rho: float) -> None:
    batch = Batch(4)
    attack = APGD(epsilon=0.4, steps=40, loss="cross-entropy", rho=rho)
    rows = torch.tensor([clip])
    inputs: list[Tensor] = []
    with batch.target(Recording) as whole:
        target = whole.at(rows)
        assert isinstance(target, Recording)
        target.inputs = inputs
        attack.perturb(target, batch.x[rows], batch.labels[rows], generator())
    iterates, sizes = algorithm_1(batch, clip, inputs[0], attack)
    assert len(inputs) == len(iterates) == attack.steps + 1
    assert sizes[-1] < sizes[0]
    for number, (actual, expected) in enumerate(zip(inputs, iterates, strict=True)):
        torch.testing.assert_close(
            actual, expected, atol=1e-5, rtol=0, msg=lambda text, n=number: f"iterate {n}: {text}"
        )
