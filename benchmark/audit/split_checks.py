"""Checks of a split for leaks between test and training."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import numpy as np

from advser.stages.prepare import Prepared


def split_findings(prepared: Prepared) -> Iterator[str]:
    """Yield the recordings and sentences that test clips share with training and validation clips."""
    digests = [sha256(clip.tobytes()).digest() for clip in prepared.clips]
    texts = prepared.rows["text"].tolist()
    copies: set[int] = set()
    shared_text: list[bool] = []
    for fold in prepared.folds.values():
        training = [*fold.train, *fold.validation]
        training_digests, training_texts = {digests[row] for row in training}, {texts[row] for row in training} - {""}
        copies |= {row for row in fold.test if digests[row] in training_digests}
        shared_text += [texts[row] in training_texts for row in fold.test]
    if copies:
        names = prepared.rows["clip"].iloc[sorted(copies)[:3]]
        yield f"{len(copies)} test clips are also training clips, sample by sample ({', '.join(names)}, …)."
    if any(shared_text):
        yield f"{np.mean(shared_text):.0%} of the test clips share their sentence with a training clip (another take)."


def copy_findings(prepared: Prepared) -> Iterator[str]:
    """Yield the near copies among the clips, with the number of those across speakers."""
    if prepared.copies:
        speakers, names = prepared.rows["speaker"].tolist(), prepared.rows["clip"].tolist()
        across = [pair for pair in prepared.copies if speakers[pair[0]] != speakers[pair[1]]]
        shown = "; ".join(f"{names[first]} and {names[second]}" for first, second in (across or prepared.copies)[:3])
        number = len(prepared.copies)
        yield f"{number} pair(s) of clips are near copies of one recording, {len(across)} across speakers ({shown})."
