"""EMOVO, an Italian corpus of acted emotion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import ClassVar, Final, Literal

from advser.corpora.filenames import FileNameCorpus, find_folders
from advser.corpora.rows import Row
from advser.plugins.parameters import parameter

LABELS: Final = {
    "dis": "disgust",
    "gio": "happiness",
    "neu": "neutral",
    "pau": "fear",
    "rab": "anger",
    "sor": "surprise",
    "tri": "sadness",
}
"""First three letters of a file name (of the Italian word) → label; ``happiness`` is the corpus's joy."""

TEXTS: Final = {
    "b1": "Gli operai si alzano presto.",
    "b2": "I vigili sono muniti di pistola.",
    "b3": "La cascata fa molto rumore.",
    "d1": "Sabato sera cosa farà?",
    "d2": "Porti con te quella cosa?",
    "l1": "L'autunno prossimo Tony partirà per la Spagna nella prima metà di ottobre.",
    "l2": "Ora prendo la felpa di là ed esco per fare una passeggiata.",
    "l3": "Un attimo dopo s'è incamminato ed è inciampato.",
    "l4": "Vorrei il numero telefonico del Signor Piatti.",
    "n1": "La casa forte vuole col pane.",
    "n2": "La forza trova il passo e l'aglio rosso.",
    "n3": "Il gatto sta scorrendo nella pera.",
    "n4": "Insalata pastasciutta coscia d'agnello limoncello.",
    "n5": "Uno quarantatré dieci mille cinquantasette venti.",
}
"""Sentences: short (b), questions (d), long (l), nonsense (n)."""

SPEAKERS: Final = ("f1", "f2", "f3", "m1", "m2", "m3")

OFFICIAL: Final = frozenset(
    f"{emotion}-{speaker}-{text}.wav" for emotion, speaker, text in product(LABELS, SPEAKERS, TEXTS)
)


class EMOVO(FileNameCorpus):
    """EMOVO: six actors, fourteen Italian sentences, seven emotions, 588 clips."""

    title: ClassVar[str] = "EMOVO"
    licence: ClassVar[str] = "for research; ask its authors"
    source: ClassVar[str] = (
        "from its authors: G. Costantini, University of Rome Tor Vergata, and Fondazione Ugo Bordoni"
    )
    citation: ClassVar[str] = (
        "G. Costantini, I. Iaderola, A. Paoloni, M. Todisco: EMOVO Corpus: an Italian Emotional Speech Database. "
        "LREC 2014."
    )
    name: ClassVar[str] = "emovo"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        rf"({'|'.join(LABELS)})-({'|'.join(SPEAKERS)})-({'|'.join(TEXTS)})\.wav"
    )
    naming: ClassVar[str] = (
        f"names such as rab-f1-b1.wav: emotion {'|'.join(LABELS)}, speaker {'|'.join(SPEAKERS)}, "
        f"sentence {'|'.join(TEXTS)}"
    )
    official: ClassVar[int] = len(OFFICIAL)

    language: Literal["it"] = parameter("it", about="spoken language, ISO 639-1 code")

    def folders(self, root: Path) -> list[Path]:
        """Return ``f1`` to ``m3``, in ``root`` or in ``EMOVO`` below it."""
        missing = f"got no folder 'f1', expected the folders {', '.join(SPEAKERS)}"
        return find_folders(root, (".", "EMOVO"), "[fm][123]", self.name, missing)

    def row(self, path: Path, parts: re.Match[str]) -> Row:
        """Return the row of a clip."""
        emotion, speaker, text = parts.groups()
        return Row(path.stem, path, LABELS[emotion], speaker, speaker[0], TEXTS[text])

    def gaps(self, names: Sequence[str]) -> list[str]:
        """Return the missing clips."""
        return [f"{name} is missing" for name in sorted(OFFICIAL - set(names))]
