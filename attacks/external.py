"""Adversarial audio from files of another tool."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, Final

import soundfile
import torch
from torch import Tensor

from advser.attacks.base import Attack, Reading
from advser.audio.files import read
from advser.audio.pcm import SAMPLE_RATE, from_pcm, to_pcm
from advser.audio.soundness import FLOATS
from advser.errors import InputError
from advser.models.terms import Domain
from advser.plugins.parameters import parameter
from advser.plugins.roles import budget, budget_norm
from advser.store.digests import contents_digest
from advser.threat.budget import per_clip
from advser.threat.model import Access, Norm
from advser.threat.objectives import classes
from advser.threat.target import Target

SUFFIXES: Final = (".wav", ".flac")
"""Suffixes of the lossless formats that are read."""


class External(Attack):
    """Examples from files of another tool, used where they mislead the victim.

    A file has the name of its clip, with the clip's folders: ``03a01Fa.wav``. It has the clip's number of samples at
    16 kHz, mono. It is projected to the budget, if there is one, and rounded to 16 bits. A clip stays clean if it has
    no file, if it is misclassified when clean, or if its example is classified correctly. So files can lower a victim's
    clean accuracy but never raise it, unless the victim draws at random. Two queries per clip.
    """

    citation: ClassVar[str] = (
        "none: as RobustBench evaluates adversarial examples of third parties (Croce et al.: RobustBench, NeurIPS 2021)"
    )
    access: ClassVar[Access] = "decisions"
    domains: ClassVar[tuple[Domain, ...]] = ("waveform",)
    places: ClassVar[frozenset[str]] = frozenset({"folder"})

    folder: str = parameter(about="folder of the files")
    epsilon: float | None = budget(None, unit="full-scale or clip", about="budget ε; none: no bound")
    norm: Norm = budget_norm(about="norm of the budget")

    def reads(self, clips: Mapping[str, int]) -> Reading:
        """Return a digest of the files and a note, after checking each file.

        Raises:
            InputError: if the folder has no audio files, or a file is unreadable, has the name of no clip, exists in
                two formats, or has another rate, number of channels or length than its clip.
        """
        suffixes = " or ".join(SUFFIXES)
        if not Path(self.folder).is_dir():
            raise InputError(f"folder: got no folder '{self.folder}', expected a folder with {suffixes} files")
        files = self._files()
        if not files:
            raise InputError(f"folder: got no audio files in '{self.folder}', expected {suffixes} files")
        seen: set[str] = set()
        for file in files:
            name = self._clip(file, clips)
            if name not in clips or name in seen:
                example = next((clip for clip in sorted(clips) if clip not in seen), name)
                raise InputError(
                    f"{file}: got the name '{name}', expected one file per clip, with a clip's name such as '{example}'"
                )
            _check(file, clips[name])
            seen.add(name)
        note = f"{len(seen)} of {len(clips)} clips have a file; others stay clean"
        return Reading(contents_digest(files, Path(self.folder)), note)

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return each clip's example where it misleads the victim, and the clean clip elsewhere."""
        examples = x.clone()
        files = {self._clip(file, target.names): file for file in self._files()} if target.names else {}
        for row, name in enumerate(target.names):
            if name in files:
                # Rounded first, so that a 24-bit copy of a 16-bit file gives the same example.
                sound = torch.from_numpy(from_pcm(to_pcm(read(files[name], str(files[name]))[0])))
                examples[row, : len(sound)] = sound.to(x)
        labels = classes(labels)
        misclassified = target.decisions(self.judged(examples, x, target)) != labels
        misled = misclassified & (target.decisions(x) == labels)
        return torch.where(per_clip(misled, x), examples, x)

    def _files(self) -> list[Path]:
        paths = (path for path in Path(self.folder).rglob("*") if path.suffix.lower() in SUFFIXES)
        return sorted(path for path in paths if path.is_file())

    def _clip(self, file: Path, clips: Collection[str]) -> str:
        """Return the name of a file's clip; in some corpora, names of clips have a suffix."""
        path = file.relative_to(self.folder)
        name = path.as_posix()
        return name if name in clips else path.with_suffix("").as_posix()


def _check(file: Path, samples: int) -> None:
    """Raise InputError if a file is not audio of one channel with ``samples`` samples at 16 kHz."""
    try:
        info = soundfile.info(file)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{file}: unreadable as audio: {error}") from None
    if (info.samplerate, info.channels, info.frames) != (SAMPLE_RATE, 1, samples):
        raise InputError(
            f"{file}: got {info.frames} samples at {info.samplerate} Hz in {info.channels} channel(s), expected the "
            f"clip's {samples} samples at {SAMPLE_RATE} Hz in 1 channel"
        )
    if info.subtype in FLOATS:
        read(file, str(file))
