"""Search for an acoustic model and a pronunciation dictionary of PocketSphinx."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

ALTERNATIVE = re.compile(r"\(\d+\)$")
"""Mark of a word's further pronunciations in a dictionary: ``either(2)``."""


@dataclass(frozen=True)
class AcousticModel:
    """The acoustic model of one language, with its pronunciation dictionary.

    Attributes:
        acoustic: folder with ``mdef``, ``means`` and further files.
        dictionary: text file, one word with its phones per line.
    """

    acoustic: Path
    dictionary: Path

    def pronunciations(self) -> dict[str, list[str]]:
        """Return word → its lines of the dictionary, alternative pronunciations included."""
        lines: dict[str, list[str]] = defaultdict(list)
        for line in self.dictionary.read_text(encoding="utf-8", errors="replace").splitlines():
            word, _, phones = line.partition(" ")
            if phones.strip():
                lines[ALTERNATIVE.sub("", word)].append(line)
        return dict(lines)


def find_model(directory: Path | None, language: str) -> AcousticModel | None:
    """Return the model of ``language`` in ``directory``, or the English model of the pocketsphinx wheel, or None.

    ``acoustic/`` and ``LANGUAGE.dict`` lie in ``directory`` or in its sub-folder ``LANGUAGE`` or ``NAME-LANGUAGE``. The
    dictionary's name must be the language's code, so that no corpus is decoded in the wrong language.
    """
    for folder in _candidates(directory, language):
        model = AcousticModel(folder / "acoustic", folder / f"{language}.dict")
        if (model.acoustic / "mdef").is_file() and model.dictionary.is_file():
            return model
    if language != "en":
        return None
    from pocketsphinx import get_model_path

    shipped = Path(get_model_path()) / "en-us"
    return AcousticModel(shipped / "en-us", shipped / "cmudict-en-us.dict")


def _candidates(directory: Path | None, language: str) -> Collection[Path]:
    if directory is None:
        return ()
    return (directory, directory / language, *sorted(directory.glob(f"*-{language}")))
