"""Decode the clips of a corpus to checked 16 kHz PCM, labelled for a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from advser.audio.files import read, resample
from advser.audio.pcm import Pcm, Samples, to_pcm
from advser.corpora.base import shortlist
from advser.corpora.groups import refuse_repeated, spelling, with_one_spelling
from advser.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

TASKS = {"emotion": "label", "gender": "gender", "speaker": "speaker"}
"""Task → the column with its classes."""

SHORTEST = 0.1
"""Shortest clip in seconds; a shorter clip holds no syllable."""


def task_classes(frame: pd.DataFrame, task: str, chosen: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes of a task: ``chosen``, in that order, or all labels that occur, sorted.

    Raises:
        InputError: if the task is unknown; a chosen label does not occur or is chosen twice; a row has no label; or
            fewer than two classes remain.
    """
    if task not in TASKS:
        raise InputError(f"task: got '{task}', expected {', '.join(TASKS)}")
    present = sorted(set(frame[TASKS[task]]))
    if chosen is None:
        if "" in present:
            without = shortlist(frame.loc[frame[TASKS[task]] == "", "clip"].tolist())
            raise InputError(
                f"task '{task}': got no {TASKS[task]} for {without}, expected a {TASKS[task]} for every clip, "
                "or chosen classes"
            )
        classes = tuple(present)
    else:
        chosen = [spelling(label) for label in chosen]
        unknown = [label for label in chosen if label not in present or not label]
        if unknown:
            raise InputError(f"task '{task}': got no clip of class {', '.join(unknown)}, expected {', '.join(present)}")
        classes = tuple(dict.fromkeys(chosen))
        if len(classes) != len(chosen):
            raise InputError(f"task '{task}': got a class twice in {', '.join(chosen)}, expected each once")
    if len(classes) < 2:
        raise InputError(f"task '{task}': got {len(classes)} class ({', '.join(classes)}), expected at least two")
    return classes


def decode(
    dataset: Dataset, task: str = "emotion", chosen: Sequence[str] | None = None
) -> tuple[pd.DataFrame, Sounds, tuple[str, ...]]:
    """Return the rows of a task and its clips, which are read, checked and converted as they are iterated.

    Channels are averaged, other rates resampled to 16 kHz. Clips of classes outside ``chosen`` are not read.

    Args:
        dataset: rows with the columns of `advser.corpora.base.COLUMNS`.
        task: a key of `TASKS`.
        chosen: the classes, in order; None for all labels that occur.

    Returns:
        The rows, numbered from 0, without ``audio`` and with ``target`` (int64, the class index); their clips (T,) in
        the same order; the classes.

    Raises:
        InputError: as `task_classes` and `advser.corpora.groups.with_one_spelling`; if two rows have one clip name; or,
            after the last clip, if any file is unreadable, empty, not finite, silent or shorter than `SHORTEST`. The
            message names these files; the iterator skips them.
    """
    frame = with_one_spelling(dataset.remove_columns("audio").to_pandas())
    refuse_repeated(frame["clip"], [str(audio["path"]) for audio in dataset["audio"]])
    classes = task_classes(frame, task, chosen)
    selected = np.flatnonzero(frame[TASKS[task]].isin(classes))
    rows = frame.iloc[selected].reset_index(drop=True)
    rows["target"] = rows[TASKS[task]].map(classes.index).astype(np.int64)
    return rows, Sounds(rows["clip"].tolist(), dataset.select(selected)), classes


@dataclass(frozen=True)
class Sounds:
    """The clips of a corpus, read as they are iterated.

    Attributes:
        names: of the clips.
        dataset: their rows, with undecoded sound.
        clipped: the names of the clips above full scale that were read so far.
    """

    names: Sequence[str]
    dataset: Dataset
    clipped: list[str] = field(default_factory=list, init=False)

    def __iter__(self) -> Iterator[Pcm]:
        """Yield each clip (T,); the errors are those of `decode`."""
        self.clipped.clear()
        unusable: list[str] = []
        for clip, audio in zip(self.names, self.dataset["audio"], strict=True):
            try:
                samples, rate = _checked_clip(clip, audio)
                # Resampling may overshoot full scale too, but the file does not.
                if np.abs(samples).max() > 1:
                    self.clipped.append(clip)
                yield _to_pcm(samples, rate, clip)
            except InputError as error:
                unusable.append(" ".join(str(error).split()))
        if unusable:
            raise InputError(f"{len(unusable)} of {len(self.names)} clips are unusable: {shortlist(unusable)}")


def _checked_clip(clip: str, audio: dict[str, Any]) -> tuple[Samples, int]:
    embedded = audio["bytes"] is not None
    # The path of embedded sound leads to no file, and clips may share it.
    name = clip if embedded else str(audio["path"])
    samples, rate = read(audio["bytes"] if embedded else Path(name), name)
    if len(samples) < SHORTEST * rate:
        raise InputError(
            f"{name}: got a clip that is too short ({len(samples) / rate:.3f} s), expected at least {SHORTEST} s"
        )
    return samples, rate


def _to_pcm(samples: Samples, rate: int, name: str) -> Pcm:
    pcm = to_pcm(resample(samples, rate))
    if not pcm.any():
        raise InputError(f"{name}: got a silent clip (every sample is 0), expected sound")
    return pcm
