"""The comparison of a cell with cells that should be weaker: an exact sign test over the same clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from advser.audit.binomial import LEVEL, is_clearly_more
from advser.audit.check import Verdict
from advser.audit.evidence import Cell


def compared(cell: Cell, weaker: Sequence[Cell], describe: Callable[[Cell], str]) -> Iterator[Verdict]:
    """Yield, if some cells should be weaker, a verdict on whether any of them misleads significantly more clips."""
    # With fewer clips no difference is significant.
    if weaker and (1 / 2) ** len(cell.misled) < LEVEL:
        yield verdict(cell, [other for other in weaker if misleads_more(other, cell)], describe)


def verdict(cell: Cell, better: Sequence[Cell], describe: Callable[[Cell], str]) -> Verdict:
    """Return the verdict on a cell: a problem if any cell is ``better``; it names the best of them."""
    if not better:
        return Verdict(cell.keys, "")
    worst = max(better, key=lambda other: other.misled.mean())
    return Verdict(cell.keys, f"error {cell.misled.mean():.3f}, but {worst.misled.mean():.3f} with {describe(worst)}")


def attack_of(cell: Cell) -> str:
    """Return the name of a cell's attack."""
    return str(cell.keys["attack"])


def misleads_more(cell: Cell, other: Cell) -> bool:
    """Return whether an attack misleads significantly more clips than another one (exact sign test)."""
    only_cell = int((cell.misled & ~other.misled).sum())
    only_other = int((other.misled & ~cell.misled).sum())
    return is_clearly_more(only_cell, only_other, len(cell.misled))
