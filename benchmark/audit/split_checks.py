"""What the split itself gives away."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import numpy as np

from advser.stages.prepare import Prepared


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
