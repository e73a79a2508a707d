"""CMU PocketSphinx as a closed-text recogniser."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Final

import numpy as np
from pydantic import model_validator

from advser.audio.pcm import PCM_HIGHEST, Pcm
from advser.errors import InputError, NotApplicableError
from advser.metrics.normalisation import normalise
from advser.metrics.transcribers.acoustic import AcousticModel, find_model
from advser.metrics.transcribers.base import Transcriber
from advser.metrics.transcribers.bigram import arpa, draw_distractors
from advser.plugins.parameters import parameter
from advser.store.digests import contents_digest

DIRECTORY_VARIABLE: Final = "ADVSER_SPHINX_DIR"
"""Environment variable that replaces `PocketSphinx.model_dir` if that is not given."""

PEAK = 0.8
"""Largest sample of every scaled clip, as a share of full scale: the acoustic models depend on loudness."""

FLOOR = 0.001
"""Standard deviation, on full scale, of the noise added to every clip: the digital silence of synthetic voices derails
models that were trained on recordings."""


class PocketSphinx(Transcriber):
    """Closed-text PocketSphinx: its language model is a bigram of the corpus's sentences, mixed with unspoken words.

    It measures how much of a given sentence remains recognisable, and its errors grow with noise. Its error rates
    compare with no open-vocabulary recogniser and with no other corpus. English works at once; any other language needs
    an acoustic model in ``model_dir``. Every clip has a fresh decoder, since a used decoder keeps some of its state. So
    a transcript depends on the clip alone, not on its neighbours.
    """

    citation: ClassVar[str] = (
        "D. Huggins-Daines et al.: PocketSphinx: a free, real-time continuous speech recognition system for hand-held "
        "devices, ICASSP 2006."
    )
    closed_text: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("pocketsphinx",)
    places: ClassVar[frozenset[str]] = frozenset({"model_dir"})

    model_dir: str | None = parameter(
        None,
        about=f"folder with acoustic/ and LANGUAGE.dict, or of such folders NAME-LANGUAGE; else ${DIRECTORY_VARIABLE}",
    )
    distractors: int = parameter(240, ge=0, about="unspoken words of the dictionary in the language model")
    weight: float = parameter(0.9, gt=0, lt=1, about="weight of the bigram against the uniform unigram")
    downsampling: int = parameter(2, ge=1, le=4, unit="frames", about="interval between computed acoustic scores")

    @model_validator(mode="before")
    @classmethod
    def _model_dir_from_environment(cls, given: Any) -> Any:
        # Resolved here, so that the recorded parameters of a result hold the folder.
        directory = os.environ.get(DIRECTORY_VARIABLE)
        if directory and isinstance(given, dict) and given.get("model_dir") is None:
            return {**given, "model_dir": directory}
        return given

    def fingerprint(self, language: str) -> str:
        """Hash the acoustic model and the dictionary."""
        model = self._model(language)
        if model is None:
            return ""
        files = [*(path for path in model.acoustic.rglob("*") if path.is_file()), model.dictionary]
        return contents_digest(files, model.dictionary.parent)

    def unavailable(self, language: str) -> str | None:
        """Return why ``language`` (ISO 639-1) has no acoustic model, or None if it has."""
        if self._model(language) is not None:
            return None
        place = f"{self.model_dir} holds no" if self.model_dir else f"model_dir and ${DIRECTORY_VARIABLE} name no"
        return f"pocketsphinx has no acoustic model of '{language}': {place} folder with acoustic/ and {language}.dict"

    def transcribe(self, clips: Iterable[Pcm], language: str, sentences: Sequence[str]) -> Iterator[str]:
        """Yield the transcript of each clip ((T,) int16, 16 kHz, mono), in the spelling of `normalise`.

        Raises:
            InputError: if `unavailable` returns a reason.
            NotApplicableError: if there is no sentence, or a word without pronunciation in the dictionary, which could
                never be recognised.
        """
        model = self._model(language)
        if model is None:
            raise InputError(str(self.unavailable(language)))
        texts = [words for words in (normalise(sentence, language).split() for sentence in sentences) if words]
        if not texts:
            raise NotApplicableError("pocketsphinx: the corpus has no sentence")
        return self._decode(clips, model, texts)

    def _model(self, language: str) -> AcousticModel | None:
        if self.model_dir is not None and not Path(self.model_dir).is_dir():
            raise InputError(
                f"pocketsphinx: model_dir or ${DIRECTORY_VARIABLE}: got '{self.model_dir}', expected a folder"
            )
        return find_model(None if self.model_dir is None else Path(self.model_dir), language)

    def _decode(self, clips: Iterable[Pcm], model: AcousticModel, texts: Sequence[Sequence[str]]) -> Iterator[str]:
        from pocketsphinx import Decoder

        with TemporaryDirectory(prefix="advser-sphinx-") as folder:
            files = self._write_text(Path(folder), model, texts)
            for clip in clips:
                # With so few words, the flat search alone has fewer errors than after a tree search.
                decoder = Decoder(
                    hmm=str(model.acoustic), **files, ds=self.downsampling, fwdtree=False, loglevel="FATAL"
                )
                decoder.start_utt()
                decoder.process_raw(_levelled(clip).tobytes(), full_utt=True)
                decoder.end_utt()
                best = decoder.hyp()
                yield best.hypstr if best else ""

    def _write_text(self, folder: Path, model: AcousticModel, texts: Sequence[Sequence[str]]) -> dict[str, str]:
        """Write language model and dictionary and return their options; a dictionary of all words is slow to read."""
        pronunciations = model.pronunciations()
        words = {word for sentence in texts for word in sentence}
        missing = sorted(words - pronunciations.keys())
        if missing:
            more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
            raise NotApplicableError(
                f"pocketsphinx: {model.dictionary.name} lacks words of the corpus: {', '.join(missing[:8])}{more}"
            )
        vocabulary = [*sorted(words), *draw_distractors(pronunciations, words, self.distractors)]
        (folder / "text.arpa").write_text(arpa(texts, vocabulary, self.weight), encoding="utf-8")
        lines = [line for word in sorted(vocabulary) for line in pronunciations[word]]
        (folder / "text.dict").write_text("\n".join([*lines, ""]), encoding="utf-8")
        return {"lm": str(folder / "text.arpa"), "dict": str(folder / "text.dict")}


def _levelled(clip: Pcm) -> Pcm:
    """Return a clip (T,) scaled to `PEAK`, with the same noise (`FLOOR`) added to every clip."""
    samples = clip.astype(np.float64)
    peak = max(float(np.abs(samples).max(initial=0)), 1.0)
    floor = np.random.default_rng(0).standard_normal(len(clip)) * FLOOR
    return np.rint((samples * (PEAK / peak) + floor) * PCM_HIGHEST).astype(np.int16)
