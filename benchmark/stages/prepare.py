"""Stage 1: from a corpus to checked 16 kHz PCM clips, class indices and folds."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from advser.audio.clips import Clips
from advser.audio.copies import Landmarks, near_copies
from advser.audio.pcm import Pcm
from advser.corpora.decode import decode
from advser.corpora.protocols import Fold, folds
from advser.errors import ContractError
from advser.plugins.parameters import build
from advser.plugins.registries import CORPORA
from advser.stages.job import Task
from advser.stages.specs import PrepareSpec
from advser.store.artefacts import Artefact
from advser.store.tensors import StoredTensor, scratch, writing

AUDIO = "audio.safetensors"
LABELS = "rows.parquet"
META = "meta.json"
NOTED = "noted.json"


@dataclass(frozen=True)
class Prepared:
    """A prepared corpus.

    Attributes:
        rows: one row a clip: ``clip``, ``speaker``, ``gender``, ``text``, ``label``, ``target`` (class index).
        clips: the sound, in the order of ``rows``.
        classes: names of the classes, by index.
        folds: name → fold.
        language: ISO 639-1.
        clipped: names of the clips whose files exceed full scale.
        copies: pairs of clips, by index, that are near copies (`advser.audio.copies`).
    """

    rows: pd.DataFrame
    clips: Clips
    classes: tuple[str, ...]
    folds: dict[str, Fold]
    language: str
    clipped: tuple[str, ...] = ()
    copies: tuple[tuple[int, int], ...] = ()

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """Class index of each clip (N,)."""
        return self.rows["target"].to_numpy(np.int64, copy=True)

    @property
    def sentences(self) -> tuple[str, ...]:
        """All distinct sentences, sorted."""
        return tuple(sorted({text for text in self.rows["text"] if text}))

    def without_test_labels(self, fold: str) -> Prepared:
        """Return the corpus without names, texts and labels of a fold's test clips, which no plugin may learn."""
        rows = self.rows.drop(index=self.rows.index[list(self.folds[fold].test)])
        return replace(self, rows=rows.reindex(self.rows.index).fillna({"target": -1}))


@contextmanager
def writing_clips(path: Path, lengths: npt.NDArray[np.int64]) -> Iterator[Callable[[int, Pcm], None]]:
    """Yield a function that writes one clip (T,), by its number, to a file of packed clips of ``lengths`` (N,).

    Raises:
        ContractError: if a clip has another length.
    """
    starts = np.cumsum(lengths) - lengths
    tensors = {"samples": (torch.int16, (int(lengths.sum()),)), "lengths": (torch.int64, lengths.shape)}
    with writing(path, tensors) as file:
        file.put("lengths", 0, torch.from_numpy(lengths))

        def write(number: int, clip: Pcm) -> None:
            if len(clip) != lengths[number]:
                raise ContractError(f"clip {number}: got {len(clip)} samples, expected {lengths[number]}")
            file.put("samples", int(starts[number]), torch.from_numpy(clip))

        yield write


def load_clips(path: Path) -> Clips:
    """Return packed clips; their samples stay in the file."""
    return Clips.in_a_row(StoredTensor.find(path, "samples"), StoredTensor.find(path, "lengths").whole().numpy())


def prepare(task: Task[PrepareSpec]) -> None:
    """Read, check, resample and round the corpus; label it for the task; split it into folds."""
    spec = task.spec
    task.admit_plugins()
    corpus = build(CORPORA.get(spec.corpus.name), spec.corpus.params, f"corpus '{spec.corpus.name}'")
    rows, clips, classes = decode(corpus.read(task.local.get("directory")), spec.task, spec.classes)
    split = folds(spec.protocol, rows, corpus.speaker_pairs, spec.seed, classes)
    marks: list[Landmarks] = []
    _save(_marked(clips, marks), task.into / AUDIO)
    rows.to_parquet(task.into / LABELS)
    meta = {"classes": list(classes), "folds": [asdict(fold) for fold in split], "language": corpus.language}
    (task.into / META).write_text(json.dumps(meta), encoding="utf-8")
    noted = {"clipped": clips.clipped, "copies": near_copies(marks)}
    (task.into / NOTED).write_text(json.dumps(noted), encoding="utf-8")


def _marked(clips: Iterable[Pcm], marks: list[Landmarks]) -> Iterator[Pcm]:
    """Yield the clips, and append the landmarks of each to ``marks``."""
    for clip in clips:
        marks.append(Landmarks.of(clip))
        yield clip


def _save(clips: Iterable[Pcm], path: Path) -> None:
    """Write packed clips; their lengths are known after the last one."""
    with scratch(path.parent) as buffer:
        for clip in clips:
            buffer.append(torch.from_numpy(clip))
        with writing_clips(path, np.array(buffer.lengths, np.int64)) as write:
            for number in range(len(buffer)):
                write(number, buffer[number].numpy())


@lru_cache(maxsize=2)
def _load(folder: Path) -> Prepared:
    artefact = Artefact(folder)
    meta: dict[str, Any] = artefact.json(META)
    noted: dict[str, Any] = artefact.json(NOTED)
    return Prepared(
        rows=pd.read_parquet(artefact.path(LABELS)),
        clips=load_clips(artefact.path(AUDIO)),
        classes=tuple(meta["classes"]),
        folds=_folds(meta),
        language=meta["language"],
        clipped=tuple(noted["clipped"]),
        copies=tuple((first, second) for first, second in noted["copies"]),
    )


def _folds(meta: Mapping[str, Any]) -> dict[str, Fold]:
    folds = (
        Fold(fold["name"], tuple(fold["train"]), tuple(fold["validation"]), tuple(fold["test"]))
        for fold in meta["folds"]
    )
    return {fold.name: fold for fold in folds}


def test_sound(artefact: Artefact, fold: str) -> Clips:
    """Return the sound of a fold's test clips, without reading any label."""
    return load_clips(artefact.path(AUDIO)).select(_folds(artefact.json(META))[fold].test)


def forget() -> None:
    """Drop the prepared corpora that stay in memory: a plugin would find their labels there."""
    _load.cache_clear()
    gc.collect()


def load_prepared(artefact: Artefact) -> Prepared:
    """Return a prepared corpus. All but the sound of the last two stays in memory."""
    return _load(artefact.folder)
