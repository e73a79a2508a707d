"""Sanity checks of a run: what makes its numbers look better, or its attacks stronger, than they are.

Each check is one small function that yields flags; its name is the check's, and the first line of its docstring is what
boards print as the flag's meaning. The checks follow Carlini et al., "On evaluating adversarial robustness", 2019, and
Croce et al., "RobustBench", 2021. What the harness refuses outright (budgets, padding, finiteness, global generators)
needs no flag: such a cell has failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binom, binomtest

from advser.results import CLEAN, KEYS
from advser.stages.prepare import Prepared

VICTIM: Final = ("part", "seed", "model", "defense")
"""Keys that name a trained model in a run."""

LEVEL: Final = 0.01
"""Significance level of a difference that is flagged; of clips that two attacks treat differently (exact sign test)."""

LEAST: Final = 0.02
"""Difference, as a share of the clips, below which nothing is flagged however significant it is."""

CONVERGED: Final = 0.05
"""Share of the clips by which twice as many steps may differ."""

SAME_LOGIT: Final = 1e-3
"""Difference of logits that float32 arithmetic explains."""


@dataclass(frozen=True)
class Flag:
    """One finding.

    Attributes:
        check: name of the check.
        where: key → value of the rows that it stands on: a cell's keys, or a trained model's.
        detail: what was found, in figures.
    """

    check: str
    where: Mapping[str, Any]
    detail: str


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell as the checks see it.

    Attributes:
        keys: its key columns; ``epsilon`` is None where there is no budget.
        params: the attack's parameters.
        fallen: which clips are misread (N,).
        right: which clips are read rightly when clean (N,).
    """

    keys: Mapping[str, Any]
    params: Mapping[str, Any]
    fallen: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]

    def same(self, other: Cell, *but: str) -> bool:
        """Tell whether all keys are the same, some aside; ``params`` are compared apart (`alike`)."""
        return all(self.keys[key] == other.keys[key] for key in KEYS if key not in (*but, "params"))

    def alike(self, other: Cell, *but: str) -> bool:
        """Tell whether all parameters are the same, some aside, those of attacks within it too."""
        return bool(_without(self.params, but) == _without(other.params, but))

    @property
    def place(self) -> tuple[Any, ...]:
        """The trained model, and where it is attacked."""
        return tuple(self.keys[key] for key in (*VICTIM, "domain", "delivery", "norm"))

    @property
    def victim(self) -> dict[str, Any]:
        """The keys that name the trained model."""
        return {key: self.keys[key] for key in VICTIM}

    @property
    def gradient(self) -> bool:
        """Whether the attack had the victim's own gradient."""
        return bool(self.keys["access"] == "white-box" and self.keys["attack"] != CLEAN)

    @property
    def steps(self) -> int:
        """The attack's parameter ``steps``; 1 of an attack without it."""
        return int(self.params.get("steps") or 1)

    @property
    def iterative(self) -> bool:
        """Whether the attack takes several steps, or is made of attacks."""
        return self.steps > 1 or bool({"attack", "attacks"} & {*self.params})

    @property
    def objective(self) -> str:
        """The loss that the attack ascends, empty for the usual one."""
        return str(self.params.get("objective", ""))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a run leaves to be audited.

    Attributes:
        cells: those whose every clip was judged; rows for the worst of several attacks are none of them.
        probes: what trained models said of themselves (`advser.stages.probe`), with the keys that name them.
        classes: number of classes by part.
        adaptable: part and name of the defenses that give an attacker a loss of their own (`Defense.adaptive`).
    """

    cells: Sequence[Cell]
    probes: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    adaptable: frozenset[tuple[str, str]] = frozenset()

    @cached_property
    def attacked(self) -> list[Cell]:
        """The cells of attacks and controls."""
        return [cell for cell in self.cells if cell.keys["attack"] != CLEAN]

    @cached_property
    def _places(self) -> dict[tuple[Any, ...], list[Cell]]:
        found: dict[tuple[Any, ...], list[Cell]] = {}
        for cell in self.attacked:
            found.setdefault(cell.place, []).append(cell)
        return found

    def rivals(self, cell: Cell) -> list[Cell]:
        """Return the other attacks on the same trained model in the same domain, delivery and norm."""
        return [other for other in self._places[cell.place] if other is not cell]

    def strongest(self, cell: Cell) -> bool:
        """Tell whether no other attack by gradient fells more clips in the same place with the same budget."""
        alike = (other for other in self.rivals(cell) if other.keys["epsilon"] == cell.keys["epsilon"])
        return all(other.fallen.mean() <= cell.fallen.mean() for other in alike if other.gradient)

    def largest(self, cell: Cell) -> bool:
        """Tell whether no other attack by gradient has a larger budget in the same place."""
        budgets = [other.keys["epsilon"] for other in self.rivals(cell) if other.gradient]
        own = cell.keys["epsilon"]
        return own is None or all(budget is None or budget <= own for budget in budgets)


def _without(params: Any, but: Sequence[str]) -> Any:
    """Return parameters that are given, without some of them, at any depth."""
    if isinstance(params, Mapping):
        return {name: _without(value, but) for name, value in params.items() if name not in but and value is not None}
    return [_without(value, but) for value in params] if isinstance(params, list) else params


def _no_larger(other: Cell, cell: Cell) -> bool:
    """Tell whether a budget is no larger than that of a cell; one without a bound is larger than any."""
    own, its = cell.keys["epsilon"], other.keys["epsilon"]
    return own is None or (its is not None and its <= own)


Check = Callable[[Evidence], Iterator[Flag]]


def evidence(
    examples: pd.DataFrame,
    worst: Iterable[tuple[str, str]],
    probes: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    classes: Mapping[str, int],
    adaptable: frozenset[tuple[str, str]],
) -> Evidence:
    """Return what a run leaves to be audited.

    Args:
        examples: the examples table.
        worst: part and name of the rows for the worst of several attacks.
        probes: as in `Evidence`.
        classes: as in `Evidence`.
        adaptable: as in `Evidence`.
    """
    left_out = {*worst}
    cells = []
    for _, clips in examples.groupby(list(KEYS), sort=False, dropna=False):
        (first,) = clips[list(KEYS)].head(1).to_dict("records")
        keys = {str(key): None if pd.isna(value) else value for key, value in first.items()}
        judged = (clips["prediction"] >= 0).all() and (clips["clean_prediction"] >= 0).all()
        if judged and (keys["part"], keys["attack"]) not in left_out:
            label = clips["label"].to_numpy()
            fallen, right = clips["prediction"].to_numpy() != label, clips["clean_prediction"].to_numpy() == label
            cells.append(Cell(keys, json.loads(keys["params"] or "{}"), fallen, right))
    return Evidence(cells, probes, classes, adaptable)


def audit(found: Evidence) -> list[Flag]:
    """Return the flags of all checks."""
    return [flag for check in CHECKS for flag in check(found)]


def name_of(check: Check) -> str:
    """Return a check's name: ``zero-gradients``."""
    return str(getattr(check, "__name__", check)).replace("_", "-")


def meaning_of(check: Check) -> str:
    """Return what a check's flag means, in a line."""
    return (check.__doc__ or "").partition("\n")[0]


def _model(check: Check, victim: Mapping[str, Any], detail: str) -> Flag:
    return Flag(name_of(check), {key: victim[key] for key in VICTIM}, detail)


def _fells_more(weaker: Cell, stronger: Cell) -> bool:
    """Tell whether clearly more clips fall under what should be the ``weaker`` attack (exact sign test)."""
    only_weaker = int((weaker.fallen & ~stronger.fallen).sum())
    only_stronger = int((stronger.fallen & ~weaker.fallen).sum())
    if only_weaker - only_stronger < max(1, LEAST * len(weaker.fallen)):
        return False
    return bool(binomtest(only_weaker, only_weaker + only_stronger, alternative="greater").pvalue < LEVEL)


def _beaten(check: Check, cell: Cell, weaker: Iterable[Cell], told: Callable[[Cell], str]) -> Iterator[Flag]:
    """Yield a flag on a cell if clearly more clips fall under one of those that should be weaker; the worst is told."""
    yield from _told(check, cell, [other for other in weaker if _fells_more(other, cell)], told)


def _told(check: Check, cell: Cell, others: Sequence[Cell], told: Callable[[Cell], str]) -> Iterator[Flag]:
    if others:
        worst = max(others, key=lambda other: other.fallen.mean())
        detail = f"error {cell.fallen.mean():.3f}, {worst.fallen.mean():.3f} under {told(worst)}"
        yield Flag(name_of(check), dict(cell.keys), detail)


def iterative_attack_weaker_than_single_step(found: Evidence) -> Iterator[Flag]:
    """More clips fall under one step of the gradient than under this attack of several: it is not doing its work."""
    for cell in found.attacked:
        if cell.gradient and cell.iterative:
            single = [
                other
                for other in found.rivals(cell)
                # Of two aims, as at the label and at a detector too, neither attack must reach the other's.
                if other.gradient and not other.iterative and cell.objective == other.objective
                if cell.same(other, "attack")
            ]
            yield from _beaten(iterative_attack_weaker_than_single_step, cell, single, _attack)


def smaller_budget_stronger(found: Evidence) -> Iterator[Flag]:
    """More clips fall under a smaller budget: the attack does not use what it is given."""
    for cell in found.attacked:
        if cell.gradient and cell.keys["epsilon"] is not None:
            smaller = [
                other
                for other in found.rivals(cell)
                if cell.same(other, "epsilon") and other.keys["epsilon"] < cell.keys["epsilon"]
                if cell.alike(other, "epsilon", "alpha")
            ]
            yield from _beaten(smaller_budget_stronger, cell, smaller, lambda other: f"{other.keys['epsilon']:g}")


def transfer_beats_white_box(found: Evidence) -> Iterator[Flag]:
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
                handed_on = [other for other in others if _no_larger(other, cell)]
            yield from _beaten(transfer_beats_white_box, cell, handed_on, _source)


def noise_beats_attack(found: Evidence) -> Iterator[Flag]:
    """More clips fall under noise of the same budget: the attack is weaker than chance perturbation."""
    for cell in found.attacked:
        if cell.keys["access"] not in ("blind", "transfer") and cell.keys["epsilon"] is not None:
            noise = [
                other
                for other in found.rivals(cell)
                if other.keys["access"] == "blind" and other.keys["epsilon"] == cell.keys["epsilon"]
            ]
            yield from _beaten(noise_beats_attack, cell, noise, _attack)


def proxy_labels_beat_true_labels(found: Evidence) -> Iterator[Flag]:
    """More clips fall when the attack is given the model's own answers: with the true labels it is not at its best."""
    for cell in found.attacked:
        if cell.keys["labels"] == "true":
            proxy = [
                other
                for other in found.rivals(cell)
                if other.keys["labels"] in ("predicted", "soft") and cell.same(other, "labels") and cell.alike(other)
            ]
            yield from _beaten(proxy_labels_beat_true_labels, cell, proxy, _labels)


def not_converged(found: Evidence) -> Iterator[Flag]:
    """Clearly more clips fall with twice as many steps or more: within its budget the attack was stopped early."""
    for cell in found.attacked:
        if cell.gradient and cell.iterative and cell.keys["epsilon"] is not None:
            longer = [
                other
                for other in found.rivals(cell)
                if cell.same(other) and other.steps >= 2 * cell.steps and cell.alike(other, "steps", "alpha")
                if other.fallen.mean() - cell.fallen.mean() > CONVERGED
            ]
            yield from _told(not_converged, cell, longer, lambda other: f"{other.steps} steps")


def undefended_twin_stands(found: Evidence) -> Iterator[Flag]:
    """At the largest budget the undefended model keeps most of its clips too: this attack does not test the defense."""
    undefended = [cell for cell in found.attacked if cell.keys["defense"] == "none" and cell.gradient]
    for cell in found.attacked:
        if not cell.gradient or cell.keys["defense"] == "none" or not found.largest(cell):
            continue
        for twin in undefended:
            same = cell.same(twin, "defense", "source_defense") and cell.alike(twin)
            kept = (twin.right & ~twin.fallen).sum() / max(twin.right.sum(), 1)
            if same and kept > 1 / 2:
                detail = f"{kept:.3f} of the clips that the undefended model reads rightly stand"
                yield Flag(name_of(undefended_twin_stands), dict(cell.keys), detail)


def only_proxy_labels(found: Evidence) -> Iterator[Flag]:
    """No attack was given the true labels: where the model errs anyway, examples pull it back to the right answer."""
    for victim in _each([cell.victim for cell in found.attacked if cell.gradient]):
        labels = {str(cell.keys["labels"]) for cell in found.attacked if cell.victim == victim} - {"none"}
        if "true" not in labels:
            yield _model(only_proxy_labels, victim, f"labels given: {', '.join(sorted(labels))}")


def not_attacked_adaptively(found: Evidence) -> Iterator[Flag]:
    """No attack was given the defense's own loss: it was told how to fool another model than this one."""
    attacked = [cell for cell in found.attacked if cell.gradient]
    adaptive = [cell.victim for cell in attacked if cell.params.get("objective") in ("adaptive", "evasion")]
    for victim in _each([cell.victim for cell in attacked]):
        if (victim["part"], victim["defense"]) in found.adaptable and victim not in adaptive:
            yield _model(not_attacked_adaptively, victim, "no attack with objective: adaptive")


def _each(victims: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(victim, sort_keys=True): victim for victim in victims}.values())


def _attack(cell: Cell) -> str:
    return str(cell.keys["attack"])


def _labels(cell: Cell) -> str:
    return f"{cell.keys['labels']} labels"


def _source(cell: Cell) -> str:
    return f"examples from {cell.keys['source_model']} / {cell.keys['source_defense']}"


def split_findings(prepared: Prepared) -> Iterator[str]:
    """Yield what test clips share with the clips that models are trained on: whole recordings, or sentences."""
    sounds = [sha256(clip.tobytes()).digest() for clip in prepared.clips]
    texts = prepared.rows["text"].tolist()
    copies: set[int] = set()
    spoken: list[bool] = []
    for fold in prepared.folds.values():
        seen = [*fold.train, *fold.validation]
        heard, said = {sounds[row] for row in seen}, {texts[row] for row in seen} - {""}
        copies |= {row for row in fold.test if sounds[row] in heard}
        spoken += [texts[row] in said for row in fold.test]
    if copies:
        names = prepared.rows["clip"].iloc[sorted(copies)[:3]]
        yield f"{len(copies)} test clips are in training too, sample by sample ({', '.join(names)}, …)."
    if any(spoken):
        yield f"{np.mean(spoken):.0%} of the test clips say a sentence that is in training too, by another take."


def zero_gradients(found: Evidence) -> Iterator[Flag]:
    """The gradient of clips that the model reads rightly is 0 or not finite: attacks by gradient do nothing there."""
    for victim, said in found.probes:
        share = said.get("without_gradient")
        if share is not None and share > 0:
            yield _model(zero_gradients, victim, f"{share:.0%} of {said['clips']} clips")


def false_gradient(found: Evidence) -> Iterator[Flag]:
    """Finite differences disagree with the gradient: it is not that of what the model computes."""
    for victim, said in found.probes:
        error = said.get("derivative_error")
        if error is not None and error > 0.5:
            yield _model(false_gradient, victim, f"relative difference {error:.2f} (median over clips)")


def stands_under_huge_budget(found: Evidence) -> Iterator[Flag]:
    """Clips survive an iterated gradient attack louder than the speech itself: the gradient is masked."""
    for victim, said in found.probes:
        share, clips = said.get("standing_huge"), said["clips"]
        if share is None or not clips:
            continue
        # Of clips that mean nothing any more, one in C is read rightly by chance.
        chance = 1 / found.classes[victim["part"]]
        if binom.sf(round(share * clips) - 1, clips, chance) < LEVEL:
            yield _model(stands_under_huge_budget, victim, f"{share:.0%} of {clips} clips, by chance {chance:.0%}")


def more_steps_fell_more(found: Evidence) -> Iterator[Flag]:
    """Twice the steps fell clearly more of the probed clips: attacks of ten steps are too short for this model."""
    for victim, said in found.probes:
        short, long = said.get("standing"), said.get("standing_doubled")
        if short is not None and long is not None and (short - long) * said["clips"] >= 3:
            yield _model(more_steps_fell_more, victim, f"{short:.0%} of {said['clips']} clips stand, then {long:.0%}")


def draws_at_random(found: Evidence) -> Iterator[Flag]:
    """The model answers the same clip differently: an attack must average over draws (EOT), or it is too weak."""
    for victim, said in found.probes:
        if said["disagreement"] > SAME_LOGIT:
            yield _model(draws_at_random, victim, f"logits differ by up to {said['disagreement']:.2g}")


def answers_depend_on_the_batch(found: Evidence) -> Iterator[Flag]:
    """A clip is judged differently alone and among others: one row's figure hangs on the other clips."""
    for victim, said in found.probes:
        if said["company"] > SAME_LOGIT >= said["disagreement"]:
            yield _model(answers_depend_on_the_batch, victim, f"logits differ by up to {said['company']:.2g}")


def probabilities_for_logits(found: Evidence) -> Iterator[Flag]:
    """The model gives probabilities as logits: the cross-entropy of them hardly has a gradient."""
    for victim, said in found.probes:
        if said["probabilities"]:
            yield _model(probabilities_for_logits, victim, "every output is at least 0, every clip's sum is 1")


def state_changes_in_evaluation(found: Evidence) -> Iterator[Flag]:
    """Judging a clip changes the model: later clips are judged by another one."""
    for victim, said in found.probes:
        if said["changed"]:
            yield _model(state_changes_in_evaluation, victim, ", ".join(said["changed"][:3]))


def statistics_from_elsewhere(found: Evidence) -> Iterator[Flag]:
    """The normalisation is not that of the training clips: other clips, perhaps the test's, went into it."""
    for victim, said in found.probes:
        difference = said["foreign_statistics"]
        if difference is not None and difference > 1e-3:
            yield _model(statistics_from_elsewhere, victim, f"relative difference {difference:.2g}")


OF_ATTACKS: Final[tuple[Check, ...]] = (
    iterative_attack_weaker_than_single_step,
    smaller_budget_stronger,
    transfer_beats_white_box,
    noise_beats_attack,
    proxy_labels_beat_true_labels,
    not_converged,
    undefended_twin_stands,
    only_proxy_labels,
    not_attacked_adaptively,
)
"""Checks of what attacks came to."""

OF_MODELS: Final[tuple[Check, ...]] = (
    zero_gradients,
    false_gradient,
    stands_under_huge_budget,
    more_steps_fell_more,
    draws_at_random,
    answers_depend_on_the_batch,
    probabilities_for_logits,
    state_changes_in_evaluation,
    statistics_from_elsewhere,
)
"""Checks of what trained models tell of themselves."""

CHECKS: Final = (*OF_ATTACKS, *OF_MODELS)
"""All checks, in the order in which boards name them."""
