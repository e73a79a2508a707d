"""Checks of the answers that trained models give to probes (`advser.stages.probes`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from advser.audit.binomial import is_clearly_more
from advser.audit.check import CLIPS, GRADIENT, PROBED, Check, Verdict, check
from advser.audit.evidence import Evidence

SAME_LOGIT: Final = 1e-3
"""Difference of logits, as a share of their span, that float32 arithmetic explains."""


@check(PROBED)
def could_not_be_probed(evidence: Evidence) -> Iterator[Verdict]:
    """The probe of the trained model failed: half of the checks do not cover this model."""
    yield from (Verdict(victim, "") for victim, _ in evidence.probes)
    yield from (Verdict(victim, reason) for victim, reason in evidence.unprobed)


@check(GRADIENT)
def more_steps_mislead_more(evidence: Evidence) -> Iterator[Verdict]:
    """Twice the steps mislead clearly more of the probed clips: ten steps are too few to attack this model."""
    for victim, short, answers in evidence.answers("standing"):
        long, clips = answers["standing_doubled"], answers["clips"]
        if clips >= CLIPS:
            wrong = (short - long) * clips >= CLIPS
            detail = f"robust on {short:.0%} of {clips} clips, on {long:.0%} with twice the steps"
            yield Verdict(victim, detail if wrong else "")


@check(PROBED)
def answers_depend_on_the_file(evidence: Evidence) -> Iterator[Verdict]:
    """Inaudible changes clearly lower the accuracy on the test clips: the model recognises the files."""
    for victim, effects, answers in evidence.answers("inaudible"):
        clips = answers["test_clips"]
        problems = [
            f"{change}: {lost} of {clips} clips lost, {gained} gained"
            for change, (lost, gained) in effects.items()
            if is_clearly_more(lost, gained, clips, tests=len(effects))
        ]
        yield Verdict(victim, "; ".join(problems))


@check(PROBED)
def draws_at_random(evidence: Evidence) -> Iterator[Verdict]:
    """The model's answers to one clip differ: an attack that does not average over draws (EOT) is too weak."""
    for victim, size, _ in evidence.answers("disagreement"):
        yield Verdict(victim, f"logits differ by up to {size:.1%} of their span" if size > SAME_LOGIT else "")


@check(PROBED)
def answers_depend_on_the_batch(evidence: Evidence) -> Iterator[Verdict]:
    """The model's answer to a clip depends on the other clips in the batch, and so do the figures."""
    for victim, same_size, answers in evidence.answers("companions"):
        # A model that draws at random draws other numbers for a clip alone, and the same numbers in an equal batch.
        alone = answers["company"] if answers["disagreement"] <= SAME_LOGIT else 0.0
        size = max(same_size, alone)
        wrong = size > SAME_LOGIT
        yield Verdict(victim, f"logits differ by up to {size:.1%} of their span" if wrong else "")


@check(PROBED)
def probabilities_instead_of_logits(evidence: Evidence) -> Iterator[Verdict]:
    """The model returns probabilities as logits: the gradient of their cross-entropy nearly vanishes."""
    for victim, wrong, _ in evidence.answers("probabilities"):
        yield Verdict(victim, "no output is negative, and the outputs of each clip sum to 1" if wrong else "")


@check(PROBED)
def state_changes_in_evaluation(evidence: Evidence) -> Iterator[Verdict]:
    """Evaluating a clip changes the model's state: later clips are classified by a different model."""
    for victim, names, _ in evidence.answers("changed"):
        yield Verdict(victim, ", ".join(names[:3]))


@check(f"{PROBED} that normalises features by statistics of clips")
def statistics_from_other_clips(evidence: Evidence) -> Iterator[Verdict]:
    """The normalisation statistics are not those of the training clips: they may include test clips."""
    for victim, difference, _ in evidence.answers("foreign_statistics"):
        yield Verdict(victim, f"relative difference {difference:.2g}" if difference > 1e-3 else "")


OF_MODELS: Final[tuple[Check, ...]] = (
    could_not_be_probed,
    more_steps_mislead_more,
    answers_depend_on_the_file,
    draws_at_random,
    answers_depend_on_the_batch,
    probabilities_instead_of_logits,
    state_changes_in_evaluation,
    statistics_from_other_clips,
)
"""Checks of the answers of probed models."""
