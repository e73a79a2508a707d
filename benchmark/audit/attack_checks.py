"""Checks of attacks: whether each is as strong as it should be, and what its rows leave open.

After Carlini et al., "On evaluating adversarial robustness", 2019, and Croce et al., "RobustBench", 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from advser.audit.check import Check, Verdict, check
from advser.audit.evidence import Cell, Evidence
from advser.audit.rivals import attack_of, compared, verdict

CONVERGED: Final = 0.05
"""Share of the clips by which an attack with twice the steps may be stronger."""


def _labels(cell: Cell) -> str:
    return f"{cell.keys['labels']} labels"


@check("an iterative and a single-step attack with the same budget and objective")
def iterative_attack_weaker_than_single_step(evidence: Evidence) -> Iterator[Verdict]:
    """A single step misleads more clips than this iterative attack.

    Attacks with ``single_step = True`` are not iterative.
    """
    for cell in evidence.attacked:
        if cell.is_white_box and cell.iterative:
            single = [
                other
                for other in evidence.rivals(cell)
                # Attacks with different objectives, such as label and detector, need not reach each other's.
                if other.is_white_box and not other.iterative and cell.objective == other.objective
                if cell.has_same_keys(other, "attack")
            ]
            yield from compared(cell, single, attack_of)


@check("an attack with two budgets")
def smaller_budget_stronger(evidence: Evidence) -> Iterator[Verdict]:
    """A smaller budget misleads more clips: the attack does not use its budget."""
    for cell in evidence.attacked:
        if cell.is_white_box and cell.keys["epsilon"] is not None:
            smaller = [
                other
                for other in evidence.rivals(cell)
                if cell.has_same_keys(other, "epsilon") and other.keys["epsilon"] < cell.keys["epsilon"]
                if cell.has_same_params(other, "budget", "step-size")
            ]
            yield from compared(cell, smaller, lambda other: f"ε = {other.keys['epsilon']:g}")


@check("an attack with a budget, and noise with at most that budget")
def noise_beats_attack(evidence: Evidence) -> Iterator[Verdict]:
    """Noise within the same budget misleads more clips: the attack is weaker than a random perturbation."""
    for cell in evidence.attacked:
        if (cell.is_white_box or cell.is_query_based) and cell.keys["epsilon"] is not None:
            noise = [other for other in evidence.rivals(cell) if other.control and other.is_within_budget_of(cell)]
            yield from compared(cell, noise, attack_of)


@check("an attack with the true labels, and the same attack with the model's own answers as labels")
def proxy_labels_beat_true_labels(evidence: Evidence) -> Iterator[Verdict]:
    """The model's own answers as labels mislead more clips: with the true labels the attack is not at its best."""
    for cell in evidence.attacked:
        if cell.keys["labels"] == "true":
            proxy = [
                other
                for other in evidence.rivals(cell)
                if other.keys["labels"] in ("predicted", "soft")
                if cell.has_same_keys(other, "labels") and cell.has_same_params(other)
            ]
            yield from compared(cell, proxy, _labels)


@check("an attack, and the same attack with at least twice the steps")
def not_converged(evidence: Evidence) -> Iterator[Verdict]:
    """At least twice the steps mislead clearly more clips: the attack stops too early within its budget."""
    for cell in evidence.attacked:
        if cell.is_white_box and cell.iterative and cell.keys["epsilon"] is not None:
            longer = [
                other
                for other in evidence.rivals(cell)
                if cell.has_same_keys(other) and other.steps >= 2 * cell.steps
                if cell.has_same_params(other, "steps", "step-size")
            ]
            stronger = [other for other in longer if other.misled.mean() - cell.misled.mean() > CONVERGED]
            if longer:
                yield verdict(cell, stronger, lambda other: f"{other.steps} steps")


@check("the same white-box attack on a defended model and on the undefended model")
def undefended_model_robust(evidence: Evidence) -> Iterator[Verdict]:
    """The undefended model is robust on most clips at the largest budget too: the attack does not test the defense."""
    undefended = [cell for cell in evidence.attacked if cell.keys["defense"] == "none" and cell.is_white_box]
    for cell in evidence.attacked:
        if not cell.is_white_box or cell.keys["defense"] == "none" or not evidence.has_largest_budget(cell):
            continue
        for twin in undefended:
            if cell.has_same_keys(twin, "defense", "source_defense") and cell.has_same_params(twin):
                robust_share = (twin.correct & ~twin.misled).sum() / max(twin.correct.sum(), 1)
                detail = f"the undefended model is robust on {robust_share:.3f} of its correctly classified clips"
                yield Verdict(cell.keys, detail if robust_share > 1 / 2 else "")


@check("a white-box attack")
def only_proxy_labels(evidence: Evidence) -> Iterator[Verdict]:
    """No attack uses the true labels: on misclassified clips, an attack can restore the correct class."""
    for victim in evidence.victims:
        labels = {str(cell.keys["labels"]) for cell in evidence.attacked if cell.victim == victim} - {"none"}
        yield Verdict(victim, "" if "true" in labels else f"labels used: {', '.join(sorted(labels))}")


@check("a defense with a loss for adaptive attacks, and a white-box attack")
def not_attacked_adaptively(evidence: Evidence) -> Iterator[Verdict]:
    """No attack ascends the defense's own loss: the attacks do not adapt to this defense."""
    white_box = [cell for cell in evidence.attacked if cell.is_white_box]
    adaptive = [
        cell.victim
        for cell in white_box
        if cell.objective == "adaptive" or (cell.objective == "evasion" and cell.has_detector)
    ]
    for victim in evidence.victims:
        if (victim["part"], victim["defense"]) in evidence.adaptable:
            yield Verdict(victim, "" if victim in adaptive else "no attack ascends 'objective: adaptive'")


OF_ATTACKS: Final[tuple[Check, ...]] = (
    iterative_attack_weaker_than_single_step,
    smaller_budget_stronger,
    noise_beats_attack,
    proxy_labels_beat_true_labels,
    not_converged,
    undefended_model_robust,
    only_proxy_labels,
    not_attacked_adaptively,
)
"""Checks of attacks."""
