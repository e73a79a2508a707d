"""Whisper, run by faster-whisper (CTranslate2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from advser.audio.pcm import Pcm, from_pcm
from advser.errors import InputError
from advser.metrics.transcribers.base import Transcriber
from advser.plugins.parameters import parameter
from advser.store.digests import contents_digest

FILES = ("model.bin", "config.json", "tokenizer.json")
"""Required files of a model's folder; without the tokenizer faster-whisper would download it."""


class FasterWhisper(Transcriber):
    """Whisper, an open-vocabulary recogniser of about a hundred languages, in greedy or beam search at temperature 0.

    It runs in float16 on a GPU and in int8 on a CPU. It downloads weights only if ``download`` is true.
    """

    citation: ClassVar[str] = (
        "A. Radford et al.: Robust speech recognition via large-scale weak supervision, ICML 2023 (arXiv:2212.04356)."
    )

    packages: ClassVar[tuple[str, ...]] = ("faster-whisper", "ctranslate2")

    model: str = parameter("base", about="size (tiny, base, small, …), Hugging Face name, or local folder")
    device: Literal["auto", "cpu", "cuda"] = parameter("auto", about="device; auto: a GPU if available")
    beam: int = parameter(5, ge=1, about="number of beams; 1 is greedy search")
    download: bool = parameter(default=False, about="download the weights if they are not on this machine")

    def fingerprint(self, language: str) -> str:
        """Hash the weights and the vocabulary; empty before their download."""
        try:
            folder = self._folder(local_only=True)
        except (OSError, ValueError):
            return ""
        return contents_digest((path for path in folder.iterdir() if path.is_file()), folder)

    def unavailable(self, language: str) -> str | None:
        """Return why the recogniser cannot serve ``language`` (ISO 639-1), or None; uses no network."""
        from faster_whisper.tokenizer import _LANGUAGE_CODES

        if language not in _LANGUAGE_CODES:
            return f"Whisper has no language '{language}'"
        if language != "en" and Path(self.model).name.endswith(".en"):
            return f"Whisper model '{self.model}' transcribes only English, the corpus is in '{language}'"
        try:
            folder = self._folder(local_only=True)
        except ValueError as error:
            return f"Whisper model '{self.model}': {_line(error)}"
        except OSError:
            folder = None
        missing = [name for name in FILES if folder is None or not (folder / name).is_file()]
        if not missing or (self.download and not Path(self.model).is_dir()):
            return None
        where = "this machine's cache of weights" if folder is None else folder
        return f"Whisper model '{self.model}': {where} lacks {', '.join(missing)}"

    def transcribe(self, clips: Iterable[Pcm], language: str, sentences: Sequence[str]) -> Iterator[str]:
        """Yield the transcript of each clip ((T,) int16, 16 kHz, mono); ``sentences`` are ignored.

        Raises:
            InputError: if `unavailable` returns a reason, or the weights cannot be downloaded or loaded.
        """
        reason = self.unavailable(language)
        if reason is not None:
            raise InputError(reason)
        return self._decode(clips, language)

    def on(self, device: str) -> Self:
        """Return the recogniser on the device of the models, unless given; transcripts differ between devices."""
        return self if self.device != "auto" else self.model_copy(update={"device": device.partition(":")[0]})

    def _decode(self, clips: Iterable[Pcm], language: str) -> Iterator[str]:
        engine = self._load()
        for clip in clips:
            segments, _ = engine.transcribe(
                from_pcm(clip),
                language=language,
                beam_size=self.beam,
                temperature=0.0,
                condition_on_previous_text=False,
                without_timestamps=True,
            )
            yield "".join(segment.text for segment in segments).strip()

    def _load(self) -> Any:
        import ctranslate2
        from faster_whisper import WhisperModel

        on_gpu = self.device == "cuda" or (self.device == "auto" and ctranslate2.get_cuda_device_count() > 0)
        device, precision = ("cuda", "float16") if on_gpu else ("cpu", "int8")
        try:
            folder = self._folder(local_only=not self.download)
            return WhisperModel(str(folder), device=device, compute_type=precision)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"Whisper model '{self.model}' cannot be loaded on {device}: {_line(error)}") from error

    def _folder(self, *, local_only: bool) -> Path:
        """Return the model's folder; raise OSError if it is not on this machine, ValueError for an unknown size."""
        from faster_whisper.utils import download_model

        if Path(self.model).is_dir():
            return Path(self.model)
        return Path(download_model(self.model, local_files_only=local_only))


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
