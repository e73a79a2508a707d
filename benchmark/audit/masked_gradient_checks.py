"""Checks for masked gradients: gradients that are zero, false or too small to guide an attack.

A model whose gradient is masked resists white-box attacks, and still fails under transferred and query-based ones.
After Athalye et al., "Obfuscated gradients give a false sense of security", 2018.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from advser.audit.binomial import LEVEL, binomial_tail
from advser.audit.check import CLIPS, GRADIENT, Check, Verdict, check
from advser.audit.evidence import Cell, Evidence
from advser.audit.rivals import attack_of, compared
from advser.stages.probes.gradients import FALSE


@check(GRADIENT)
def zero_gradients(evidence: Evidence) -> Iterator[Verdict]:
    """The gradient at correctly classified clips is 0 or not finite: white-box attacks have no effect there."""
    for victim, share, answers in evidence.answers("without_gradient"):
        adaptive = answers.get("adaptive_without_gradient") or 0
        problems = [
            f"{share:.0%} of {answers['clips']} clips" if share > 0 else "",
            f"the defense's own loss near {adaptive:.0%} of the clips" if adaptive > 0 else "",
        ]
        yield Verdict(victim, "; ".join(filter(None, problems)))


@check(GRADIENT)
def false_gradient(evidence: Evidence) -> Iterator[Verdict]:
    """Finite differences contradict the gradient: it misses part or all of the function that the model computes."""
    for victim, error, answers in evidence.answers("derivative_error"):
        share, limit = answers.get("unexplained_change") or 0, answers.get("derivative_limit", FALSE)
        problems = [
            f"relative difference {error:.2f} along the gradient (median over clips)" if error > limit else "",
            f"the gradient misses {share:.0%} of the effect of random changes (median)" if share > limit else "",
            _false("the gradient", answers.get("false") or 0),
            _false("the gradient of the defense's own loss", answers.get("adaptive_false") or 0),
        ]
        yield Verdict(victim, "; ".join(filter(None, problems)))


def _false(gradient: str, clips: int) -> str:
    return f"{gradient} is false for {clips} clips" if clips >= CLIPS else ""


@check(GRADIENT)
def robust_to_huge_budget(evidence: Evidence) -> Iterator[Verdict]:
    """The model is robust to an iterative attack that is louder than the speech itself: the gradient is masked."""
    for victim, robust_share, answers in evidence.answers("standing_huge"):
        # Clips without intelligible speech are classified correctly at the chance level, 1 / C.
        chance, clips = 1 / evidence.classes[victim["part"]], answers["clips"]
        # All of fewer clips may be robust by chance.
        if chance**clips < LEVEL:
            wrong = binomial_tail(round(robust_share * clips), clips, chance) < LEVEL
            detail = f"robust on {robust_share:.0%} of {clips} clips, {chance:.0%} by chance"
            yield Verdict(victim, detail if wrong else "")


@check(GRADIENT)
def scores_beat_gradients(evidence: Evidence) -> Iterator[Verdict]:
    """A short search with scores alone misleads probed clips that gradients do not: the gradient is masked.

    So each model has evidence without gradients, whichever attacks the suite has, alone or within an ensemble.
    """
    for victim, clips, answers in evidence.answers("advantage_of_scores"):
        detail = f"{clips} of {answers['clips']} clips more than iterative FGSM of the same budget"
        yield Verdict(victim, detail if clips >= CLIPS else "")


@check("a white-box attack, and examples from a surrogate")
def transfer_beats_white_box(evidence: Evidence) -> Iterator[Verdict]:
    """Examples from a surrogate mislead more clips: the victim's own gradient is masked."""
    for cell in evidence.attacked:
        if cell.is_white_box:
            others = [other for other in evidence.rivals(cell) if other.keys["access"] == "transfer"]
            transferred = [
                other
                for other in others
                if cell.has_same_keys(other, "access", "source_model", "source_defense") and cell.has_same_params(other)
            ]
            if cell.iterative and evidence.is_strongest(cell):
                # The strongest white-box attack must match every transfer attack, whichever attack crafted it.
                transferred = [other for other in others if other.is_within_budget_of(cell)]
            yield from compared(cell, transferred, _source)


@check("an iterative white-box attack, and an attack that uses the victim's answers alone")
def queries_beat_white_box(evidence: Evidence) -> Iterator[Verdict]:
    """An attack that uses answers alone misleads more clips: the victim's gradient is masked."""
    for cell in evidence.attacked:
        if cell.is_white_box and cell.iterative and evidence.is_strongest(cell):
            rivals = evidence.rivals(cell)
            query_based = [other for other in rivals if other.is_query_based and other.is_within_budget_of(cell)]
            yield from compared(cell, query_based, attack_of)


def _source(cell: Cell) -> str:
    return f"examples from {cell.keys['source_model']} / {cell.keys['source_defense']}"


OF_GRADIENTS: Final[tuple[Check, ...]] = (
    zero_gradients,
    false_gradient,
    robust_to_huge_budget,
    scores_beat_gradients,
    transfer_beats_white_box,
    queries_beat_white_box,
)
"""Checks for masked gradients."""
