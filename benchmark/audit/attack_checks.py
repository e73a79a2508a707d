"""Checks of what attacks came to: whether each does its work, and what its rows leave open.

After Carlini et al., "On evaluating adversarial robustness", 2019, and Croce et al., "RobustBench", 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from advser.audit.check import Answer, Check, by_luck, check
from advser.audit.evidence import Cell, Evidence

LEVEL: Final = 0.01
"""Significance level of a difference that is flagged; of clips that two attacks treat differently (exact sign test)."""

LEAST: Final = 0.02
"""Difference, as a share of the clips, below which nothing is flagged however significant it is."""

CONVERGED: Final = 0.05
"""Share of the clips by which twice as many steps may differ."""


def _fells_more(weaker: Cell, stronger: Cell) -> bool:
    """Tell whether clearly more clips fall under what should be the ``weaker`` attack (exact sign test)."""
    only_weaker = int((weaker.fallen & ~stronger.fallen).sum())
    only_stronger = int((stronger.fallen & ~weaker.fallen).sum())
    if only_weaker - only_stronger < max(1, LEAST * len(weaker.fallen)):
        return False
    # As many heads or more among as many throws of a coin.
    return by_luck(only_weaker, only_weaker + only_stronger, 0.5) < LEVEL


def _beaten(cell: Cell, weaker: Sequence[Cell], told: Callable[[Cell], str]) -> Iterator[Answer]:
    """Answer, if there is anything that should be weaker than a cell, whether clearly more clips fall under it."""
    # Of fewer clips no difference is significant.
    if weaker and (1 / 2) ** len(cell.fallen) < LEVEL:
        yield _told(cell, [other for other in weaker if _fells_more(other, cell)], told)


def _told(cell: Cell, better: Sequence[Cell], told: Callable[[Cell], str]) -> Answer:
    if not better:
        return Answer(cell.keys, "")
    worst = max(better, key=lambda other: other.fallen.mean())
    return Answer(cell.keys, f"error {cell.fallen.mean():.3f}, {worst.fallen.mean():.3f} under {told(worst)}")


def _attack(cell: Cell) -> str:
    return str(cell.keys["attack"])


def _labels(cell: Cell) -> str:
    return f"{cell.keys['labels']} labels"


def _source(cell: Cell) -> str:
    return f"examples from {cell.keys['source_model']} / {cell.keys['source_defense']}"


@check("an attack of several steps and one of a single step, with the same budget and objective")
def iterative_attack_weaker_than_single_step(found: Evidence) -> Iterator[Answer]:
    """More clips fall under one step than under this attack of several (of one by design: ``single_step = True``)."""
    for cell in found.attacked:
        if cell.gradient and cell.iterative:
            single = [
                other
                for other in found.rivals(cell)
                # Of two aims, as at the label and at a detector too, neither attack must reach the other's.
                if other.gradient and not other.iterative and cell.objective == other.objective
                if cell.same(other, "attack")
            ]
            yield from _beaten(cell, single, _attack)


@check("an attack with two budgets")
def smaller_budget_stronger(found: Evidence) -> Iterator[Answer]:
    """More clips fall under a smaller budget: the attack does not use what it is given."""
    for cell in found.attacked:
        if cell.gradient and cell.keys["epsilon"] is not None:
            smaller = [
                other
                for other in found.rivals(cell)
                if cell.same(other, "epsilon") and other.keys["epsilon"] < cell.keys["epsilon"]
                if cell.alike(other, "epsilon", "alpha")
            ]
            yield from _beaten(cell, smaller, lambda other: f"{other.keys['epsilon']:g}")


@check("an attack by the victim's gradient, and examples crafted on another model")
def transfer_beats_white_box(found: Evidence) -> Iterator[Answer]:
    """More clips fall under examples crafted on another model: the victim's own gradient is masked."""
    for cell in found.attacked:
        if cell.gradient:
            others = [other for other in found.rivals(cell) if other.keys["access"] == "transfer"]
            handed_on = [
                other
                for other in others
                if cell.same(other, "access", "source_model", "source_defense") and cell.alike(other)
            ]
            if cell.iterative and found.strongest(cell):
                # Whatever made them: the best that is done with the gradient should not be behind them.
                handed_on = [other for other in others if other.within(cell)]
            yield from _beaten(cell, handed_on, _source)


@check("an attack of several steps by the victim's gradient, and one that only asks for its answers")
def queries_beat_white_box(found: Evidence) -> Iterator[Answer]:
    """More clips fall under an attack that sees answers alone: the victim's gradient is masked."""
    for cell in found.attacked:
        if cell.gradient and cell.iterative and found.strongest(cell):
            asking = [other for other in found.rivals(cell) if other.queries and other.within(cell)]
            yield from _beaten(cell, asking, _attack)


@check("an attack with a budget, and noise with no larger one")
def noise_beats_attack(found: Evidence) -> Iterator[Answer]:
    """More clips fall under noise within the same budget: the attack is weaker than chance perturbation."""
    for cell in found.attacked:
        if (cell.gradient or cell.queries) and cell.keys["epsilon"] is not None:
            noise = [other for other in found.rivals(cell) if other.control and other.within(cell)]
            yield from _beaten(cell, noise, _attack)


@check("an attack that is given true labels, and once the model's own answers")
def proxy_labels_beat_true_labels(found: Evidence) -> Iterator[Answer]:
    """More clips fall when the attack is given the model's own answers: with the true labels it is not at its best."""
    for cell in found.attacked:
        if cell.keys["labels"] == "true":
            proxy = [
                other
                for other in found.rivals(cell)
                if other.keys["labels"] in ("predicted", "soft") and cell.same(other, "labels") and cell.alike(other)
            ]
            yield from _beaten(cell, proxy, _labels)


@check("an attack with twice the steps beside it")
def not_converged(found: Evidence) -> Iterator[Answer]:
    """Clearly more clips fall with twice as many steps or more: within its budget the attack was stopped early."""
    for cell in found.attacked:
        if cell.gradient and cell.iterative and cell.keys["epsilon"] is not None:
            longer = [
                other
                for other in found.rivals(cell)
                if cell.same(other) and other.steps >= 2 * cell.steps and cell.alike(other, "steps", "alpha")
            ]
            more = [other for other in longer if other.fallen.mean() - cell.fallen.mean() > CONVERGED]
            if longer:
                yield _told(cell, more, lambda other: f"{other.steps} steps")


@check("the same attack by gradient on a defended model and on the undefended one")
def undefended_twin_stands(found: Evidence) -> Iterator[Answer]:
    """At the largest budget the undefended model keeps most of its clips too: this attack does not test the defense."""
    undefended = [cell for cell in found.attacked if cell.keys["defense"] == "none" and cell.gradient]
    for cell in found.attacked:
        if not cell.gradient or cell.keys["defense"] == "none" or not found.largest(cell):
            continue
        for twin in undefended:
            if cell.same(twin, "defense", "source_defense") and cell.alike(twin):
                kept = (twin.right & ~twin.fallen).sum() / max(twin.right.sum(), 1)
                stands = f"{kept:.3f} of the clips that the undefended model reads rightly stand"
                yield Answer(cell.keys, stands if kept > 1 / 2 else "")


@check("an attack by gradient")
def only_proxy_labels(found: Evidence) -> Iterator[Answer]:
    """No attack was given the true labels: where the model errs anyway, examples pull it back to the right answer."""
    for victim in found.victims:
        labels = {str(cell.keys["labels"]) for cell in found.attacked if cell.victim == victim} - {"none"}
        yield Answer(victim, "" if "true" in labels else f"labels given: {', '.join(sorted(labels))}")


@check("a defense that gives an attacker a loss of its own, and an attack by gradient")
def not_attacked_adaptively(found: Evidence) -> Iterator[Answer]:
    """No attack was given the defense's own loss: it was told how to fool another model than this one."""
    climbed = [cell for cell in found.attacked if cell.gradient]
    adaptive = [
        cell.victim
        for cell in climbed
        if cell.objective == "adaptive" or (cell.objective == "evasion" and cell.detector)
    ]
    for victim in found.victims:
        if (victim["part"], victim["defense"]) in found.adaptable:
            yield Answer(victim, "" if victim in adaptive else "no attack that ascends objective: adaptive")


OF_ATTACKS: Final[tuple[Check, ...]] = (
    iterative_attack_weaker_than_single_step,
    smaller_budget_stronger,
    transfer_beats_white_box,
    queries_beat_white_box,
    noise_beats_attack,
    proxy_labels_beat_true_labels,
    not_converged,
    undefended_twin_stands,
    only_proxy_labels,
    not_attacked_adaptively,
)
"""Checks of what attacks came to."""
