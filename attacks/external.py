"""Adversarial audio that was made elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, Final

import soundfile
import torch
from torch import Tensor

from advser.attacks.base import Attack, Reading
from advser.audio.files import FLOATS, read
from advser.audio.pcm import SAMPLE_RATE, from_pcm, to_pcm
from advser.errors import InputError
from advser.models.terms import Domain
from advser.plugins.parameters import budget, budget_norm, parameter
from advser.store.digests import contents_digest
from advser.threat.budget import per_clip
from advser.threat.model import Access, Norm
from advser.threat.objectives import classes
from advser.threat.target import Target

SUFFIXES: Final = (".wav", ".flac")
"""The lossless formats that are read."""


class External(Attack):
    """Files of another tool, each tried on the victim: one that it does not misread is left out.

    Each file is named as the clip that it was made from, in folders as the clip's name has them: ``03a01Fa.wav``. It
    has the clip's samples at 16 kHz, mono. It is cut to the budget, if there is one, and rounded to 16 bits. The clip
    stays clean if it has no file, is misread anyway, or is still read as its label: so the files can lower what a
    victim reaches when clean, and never raise it, but for the luck of one that draws at random. Two queries a clip.
    """

    citation: ClassVar[str] = (
        "none: what RobustBench does with adversarial examples that others have found (Croce et al.: RobustBench, "
        "NeurIPS 2021)"
    )
    access: ClassVar[Access] = "decisions"
    domains: ClassVar[tuple[Domain, ...]] = ("waveform",)
    places: ClassVar[frozenset[str]] = frozenset({"folder"})

    folder: str = parameter(about="where the files are")
    epsilon: float | None = budget(None, unit="full-scale or clip", about="budget ε; none: no bound")
    norm: Norm = budget_norm(about="norm of the budget")

    def reads(self, clips: Mapping[str, int]) -> Reading:
        """Find the files, and check that each is one of a clip.

        Raises:
            InputError: if the folder holds no sound, or a file is unreadable, is named as no clip, is there in two
                formats, or has another rate, number of channels or length than its clip.
        """
        if not Path(self.folder).is_dir():
            raise InputError(f"folder: got no folder '{self.folder}', expected one of sound")
        files = self._files()
        if not files:
            raise InputError(
                f"folder: got no sound in '{self.folder}', expected one with {' or '.join(SUFFIXES)} files"
            )
        found: set[str] = set()
        for file in files:
            name = self._clip(file, clips)
            if name not in clips or name in found:
                example = next((clip for clip in sorted(clips) if clip not in found), name)
                raise InputError(f"{file}: got the name '{name}', expected that of a clip, once, such as '{example}'")
            _check(file, clips[name])
            found.add(name)
        note = f"{len(found)} of {len(clips)} clips have a file; others stay clean"
        return Reading(contents_digest(files, Path(self.folder)), note)

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Take each clip's file, if the victim misreads it and reads the clip right."""
        tried = x.clone()
        files = {self._clip(file, target.names): file for file in self._files()} if target.names else {}
        for row, name in enumerate(target.names):
            if name in files:
                # Rounded first, so that a 24-bit copy of a 16-bit file is the same example.
                sound = torch.from_numpy(from_pcm(to_pcm(read(files[name], str(files[name]))[0])))
                tried[row, : len(sound)] = sound.to(x)
        labels = classes(labels)
        misread = target.decisions(self.judged(tried, x, target)) != labels
        fooled = misread & (target.decisions(x) == labels)
        return torch.where(per_clip(fooled, x), tried, x)

    def _files(self) -> list[Path]:
        found = (path for path in Path(self.folder).rglob("*") if path.suffix.lower() in SUFFIXES)
        return sorted(path for path in found if path.is_file())

    def _clip(self, file: Path, clips: Collection[str]) -> str:
        """Return the name of the clip that a file is of; in some corpora names have a suffix of their own."""
        place = file.relative_to(self.folder)
        whole = place.as_posix()
        return whole if whole in clips else place.with_suffix("").as_posix()


def _check(file: Path, samples: int) -> None:
    """Raise InputError if a file's format is not that of its clip, which has so many samples at 16 kHz."""
    try:
        info = soundfile.info(file)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{file}: unreadable as audio: {error}") from None
    if (info.samplerate, info.channels, info.frames) != (SAMPLE_RATE, 1, samples):
        raise InputError(
            f"{file}: got {info.frames} samples at {info.samplerate} Hz, {info.channels} channel(s), expected those "
            f"of the clip, {samples} samples at {SAMPLE_RATE} Hz, 1 channel"
        )
    if info.subtype in FLOATS:
        read(file, str(file))
