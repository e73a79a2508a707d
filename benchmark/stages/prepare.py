"""Stage 1: from a corpus to checked 16 kHz PCM clips, class indices and folds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from safetensors.numpy import load_file, save_file

from advser.audio import Clips
from advser.corpora.decode import decode
from advser.corpora.protocols import Fold, folds
from advser.job import Task
from advser.parameters import build
from advser.plugins import CORPORA
from advser.store import Artefact

AUDIO = "audio.safetensors"


@dataclass(frozen=True)
class Prepared:
    """A corpus made ready.

    Attributes:
        rows: one row a clip: ``clip``, ``speaker``, ``gender``, ``text``, ``label``, ``target`` (class index).
        clips: the sound, in the order of ``rows``.
        classes: names of the classes, by index.
        folds: name → fold.
        language: ISO 639-1.
    """

    rows: pd.DataFrame
    clips: Clips
    classes: tuple[str, ...]
    folds: dict[str, Fold]
    language: str

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """Class index of each clip (N,)."""
        return self.rows["target"].to_numpy(np.int64, copy=True)

    @property
    def sentences(self) -> tuple[str, ...]:
        """All distinct sentences, sorted."""
        return tuple(sorted({text for text in self.rows["text"] if text}))


def save_clips(clips: Clips, path: Path) -> None:
    """Write packed clips."""
    save_file({"samples": clips.samples, "lengths": clips.lengths}, path)


def load_clips(path: Path) -> Clips:
    """Read packed clips."""
    arrays = load_file(path)
    return Clips(arrays["samples"], arrays["lengths"])


def prepare(task: Task) -> None:
    """Read, check, resample and round the corpus; label it for the task; split it into folds."""
    spec = task.spec
    corpus = build(CORPORA.get(spec["corpus"]["name"]), spec["corpus"]["params"], f"corpus '{spec['corpus']['name']}'")
    rows, clips, classes = decode(corpus.read(task.local.get("directory")), spec["task"], spec["classes"])
    made = folds(spec["protocol"], rows, corpus.speaker_pairs, spec["seed"])
    save_clips(clips, task.into / AUDIO)
    rows.to_parquet(task.into / "rows.parquet")
    meta = {"classes": list(classes), "folds": [asdict(fold) for fold in made], "language": corpus.language}
    (task.into / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


@lru_cache(maxsize=2)
def _load(folder: Path) -> Prepared:
    artefact = Artefact(folder)
    meta: dict[str, Any] = artefact.json("meta.json")
    made = [
        Fold(one["name"], tuple(one["train"]), tuple(one["validation"]), tuple(one["test"])) for one in meta["folds"]
    ]
    return Prepared(
        rows=pd.read_parquet(artefact.path("rows.parquet")),
        clips=load_clips(artefact.path(AUDIO)),
        classes=tuple(meta["classes"]),
        folds={fold.name: fold for fold in made},
        language=meta["language"],
    )


def load_prepared(artefact: Artefact) -> Prepared:
    """Read a prepared corpus (the last two are kept in memory)."""
    return _load(artefact.folder)
