"""The language model of a closed-text recogniser, as an ARPA file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from math import log10

START, END = "<s>", "</s>"
NEVER = -99.0
"""Log probability of an impossible event in ARPA files; the start of a sentence is never predicted."""


def arpa(sentences: Sequence[Sequence[str]], vocabulary: Collection[str], weight: float) -> str:
    """Return a bigram of ``sentences`` mixed with a uniform unigram over ``vocabulary``, in ARPA format.

    For V words and the end of the sentence, P(w | h) = weight · count(h w) / count(h) + (1 − weight) / (V + 1). After a
    word that no sentence holds, P = 1 / (V + 1). A back-off model represents this mixture exactly: each bigram of the
    sentences has its mixed probability, each other bigram the back-off weight 1 − weight times the unigram.

    Args:
        sentences: the words of each sentence.
        vocabulary: all words, including those of the sentences.
        weight: weight of the bigram, above 0 and below 1.
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
    """Return ``number`` of ``words``, or all if there are fewer; the same words give the same draw.

    The draw is the order of the words' hashes, so a word added to the dictionary displaces at most one distractor. Only
    words of at least three ASCII letters are eligible.
    """
    eligible = {word for word in words if len(word) > 2 and word.isascii() and word.isalpha()} - set(exclude)
    return sorted(eligible, key=lambda word: hashlib.sha256(word.encode()).digest())[:number]
