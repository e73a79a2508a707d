"""The language model of a closed-text recogniser, as an ARPA file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from math import log10

START, END = "<s>", "</s>"
NEVER = -99.0
"""Logarithm that ARPA files give to what cannot happen; the start of a sentence is never predicted."""


def arpa(sentences: Sequence[Sequence[str]], vocabulary: Collection[str], weight: float) -> str:
    """Return a bigram of ``sentences`` mixed with a uniform unigram over ``vocabulary``, in ARPA format.

    P(w | h) = weight · count(h w) / count(h) + (1 − weight) / (V + 1), for V words and the end of the sentence; after
    a word that no sentence holds it is 1 / (V + 1). A back-off model writes this mixture exactly: every seen bigram
    gets its mixed probability, every other one the back-off weight 1 − weight times the unigram.

    Args:
        sentences: the words of each sentence.
        vocabulary: all words, those of the sentences among them.
        weight: of the bigram, above 0 and below 1.
    """
    uniform = 1 / (len(vocabulary) + 1)
    back_off = log10(1 - weight)
    pairs = Counter(pair for words in sentences for pair in pairwise((START, *words, END)))
    histories = Counter(word for words in sentences for word in (START, *words))
    unigrams = [f"{NEVER} {START} {back_off:.6f}", f"{log10(uniform):.6f} {END}"]
    unigrams += [
        f"{log10(uniform):.6f} {word} {back_off if word in histories else 0:.6f}" for word in sorted(vocabulary)
    ]
    bigrams = [
        f"{log10(weight * count / histories[history] + (1 - weight) * uniform):.6f} {history} {word}"
        for (history, word), count in sorted(pairs.items())
    ]
    counts = ["\\data\\", f"ngram 1={len(unigrams)}", f"ngram 2={len(bigrams)}"]
    lines = [*counts, "", "\\1-grams:", *unigrams, "", "\\2-grams:", *bigrams, "", "\\end\\", ""]
    return "\n".join(lines)


def draw_distractors(words: Iterable[str], exclude: Collection[str], number: int) -> list[str]:
    """Choose ``number`` words, or all if there are fewer: always the same ones for the same words.

    The order of the words' hashes serves as the draw, so that a word added to the dictionary displaces one
    distractor at most. Only words of three and more plain letters are eligible.
    """
    eligible = {word for word in words if len(word) > 2 and word.isascii() and word.isalpha()} - set(exclude)
    return sorted(eligible, key=lambda word: hashlib.sha256(word.encode()).digest())[:number]
