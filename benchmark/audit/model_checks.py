"""Checks of what trained models tell of themselves when they are probed (`advser.stages.gradient_probes`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from advser.audit.check import Answer, Check, by_luck, check
from advser.audit.evidence import Evidence
from advser.stages.gradient_probes import FALSE

LEVEL: Final = 0.01
"""Significance level of clips that survive what none should."""

SAME_LOGIT: Final = 1e-3
"""Difference of logits, as a share of their span, that float32 arithmetic explains."""

CLIPS: Final = 3
"""Clips that must have changed for a share of so few to be flagged."""

PROBED: Final = "a trained model that was probed (audit: true)"
GRADIENT: Final = f"{PROBED} and has a gradient"


@check(PROBED)
def could_not_be_probed(found: Evidence) -> Iterator[Answer]:
    """The trained model could not be asked what it is: half of the checks say nothing of it."""
    yield from (Answer(victim, "") for victim, _ in found.probes)
    yield from (Answer(victim, reason) for victim, reason in found.unasked)


@check(GRADIENT)
def zero_gradients(found: Evidence) -> Iterator[Answer]:
    """The gradient of clips that the model reads rightly is 0 or not finite: attacks by gradient do nothing there."""
    for victim, share, said in found.asked("without_gradient"):
        its = said.get("adaptive_without_gradient") or 0
        told = [f"{share:.0%} of {said['clips']} clips" if share > 0 else ""]
        told += [f"of the defense's own loss beside {its:.0%} of them" if its > 0 else ""]
        yield Answer(victim, "; ".join(filter(None, told)))


@check(GRADIENT)
def false_gradient(found: Evidence) -> Iterator[Answer]:
    """Finite differences disagree with the gradient: it is not that of what the model computes, or not all of it."""
    for victim, error, said in found.asked("derivative_error"):
        share = said.get("unexplained_change") or 0
        told = [f"relative difference {error:.2f} along the gradient (median over clips)" if error > FALSE else ""]
        told += [f"{share:.0%} of what random changes do is not in it (median)" if share > FALSE else ""]
        told += [
            _false(said.get("false") or 0, "it"),
            _false(said.get("adaptive_false") or 0, "the gradient of the defense's own loss"),
        ]
        yield Answer(victim, "; ".join(filter(None, told)))


def _false(clips: int, what: str) -> str:
    return f"{what} is false for {clips} clips" if clips >= CLIPS else ""


@check(GRADIENT)
def stands_under_huge_budget(found: Evidence) -> Iterator[Answer]:
    """Clips survive an iterated gradient attack louder than the speech itself: the gradient is masked."""
    for victim, share, said in found.asked("standing_huge"):
        # Of clips that mean nothing any more, one in C is read rightly by chance.
        chance, clips = 1 / found.classes[victim["part"]], said["clips"]
        # Of fewer clips all may survive by chance.
        if chance**clips < LEVEL:
            wrong = by_luck(round(share * clips), clips, chance) < LEVEL
            yield Answer(victim, f"{share:.0%} of {clips} clips, by chance {chance:.0%}" if wrong else "")


@check(GRADIENT)
def more_steps_fell_more(found: Evidence) -> Iterator[Answer]:
    """Twice the steps fell clearly more of the probed clips: attacks of ten steps are too short for this model."""
    for victim, short, said in found.asked("standing"):
        long, clips = said["standing_doubled"], said["clips"]
        if clips >= CLIPS:
            wrong = (short - long) * clips >= CLIPS
            yield Answer(victim, f"{short:.0%} of {clips} clips stand, then {long:.0%}" if wrong else "")


@check(PROBED)
def answers_hang_on_the_file(found: Evidence) -> Iterator[Answer]:
    """Clips are read otherwise after a change that nobody hears: the model knows the files, or reads them by chance."""
    for victim, share, said in found.asked("changed_unheard"):
        clips = said["clips"]
        if clips >= CLIPS:
            wrong = share > 1 / 4 and share * clips >= CLIPS
            yield Answer(victim, f"{share:.0%} of {clips} clips that it reads rightly" if wrong else "")


@check(PROBED)
def draws_at_random(found: Evidence) -> Iterator[Answer]:
    """The model answers the same clip differently: an attack must average over draws (EOT), or it is too weak."""
    for victim, size, _ in found.asked("disagreement"):
        yield Answer(victim, f"logits differ by up to {size:.1%} of their span" if size > SAME_LOGIT else "")


@check(PROBED)
def answers_depend_on_the_batch(found: Evidence) -> Iterator[Answer]:
    """A clip is judged differently alone and among others: one row's figure hangs on the other clips."""
    for victim, alike, said in found.asked("companions"):
        # A model that draws at random draws otherwise for a clip alone, and the same among others.
        alone = said["company"] if said["disagreement"] <= SAME_LOGIT else 0.0
        size = max(alike, alone)
        wrong = size > SAME_LOGIT
        yield Answer(victim, f"logits differ by up to {size:.1%} of their span" if wrong else "")


@check(PROBED)
def probabilities_for_logits(found: Evidence) -> Iterator[Answer]:
    """The model gives probabilities as logits: the cross-entropy of them hardly has a gradient."""
    for victim, so, _ in found.asked("probabilities"):
        yield Answer(victim, "every output is at least 0, every clip's sum is 1" if so else "")


@check(PROBED)
def state_changes_in_evaluation(found: Evidence) -> Iterator[Answer]:
    """Judging a clip changes the model: later clips are judged by another one."""
    for victim, names, _ in found.asked("changed"):
        yield Answer(victim, ", ".join(names[:3]))


@check(f"{PROBED} and normalises by statistics of clips")
def statistics_from_elsewhere(found: Evidence) -> Iterator[Answer]:
    """The normalisation is not that of the training clips: other clips, perhaps the test's, went into it."""
    for victim, difference, _ in found.asked("foreign_statistics"):
        yield Answer(victim, f"relative difference {difference:.2g}" if difference > 1e-3 else "")


OF_MODELS: Final[tuple[Check, ...]] = (
    could_not_be_probed,
    zero_gradients,
    false_gradient,
    stands_under_huge_budget,
    more_steps_fell_more,
    answers_hang_on_the_file,
    draws_at_random,
    answers_depend_on_the_batch,
    probabilities_for_logits,
    state_changes_in_evaluation,
    statistics_from_elsewhere,
)
"""Checks of what trained models tell of themselves."""
