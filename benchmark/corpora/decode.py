"""From rows with undecoded audio to checked 16 kHz PCM, labelled for a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from advser.audio.files import read, resample
from advser.audio.pcm import Pcm, to_pcm
from advser.corpora.base import shortlist
from advser.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

TASKS = {"emotion": "label", "gender": "gender", "speaker": "speaker"}
"""Task → the column that is recognised."""

SHORTEST = 0.1
"""Seconds; a shorter clip holds no syllable."""


def task_labels(frame: pd.DataFrame, task: str, chosen: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes of a task: ``chosen``, in that order, or all that occur, sorted.

    Raises:
        InputError: if the task is unknown, a chosen label does not occur or is given twice, a row has no label, or
            fewer than two classes are left.
    """
    if task not in TASKS:
        raise InputError(f"unknown task '{task}' (known: {', '.join(TASKS)})")
    present = sorted(set(frame[TASKS[task]]))
    if chosen is None:
        if "" in present:
            without = shortlist(frame.loc[frame[TASKS[task]] == "", "clip"].tolist())
            raise InputError(f"task '{task}': no {TASKS[task]} is given for {without}; choose classes or complete them")
        classes = tuple(present)
    else:
        unknown = [label for label in chosen if label not in present or not label]
        if unknown:
            raise InputError(f"task '{task}': no clip has the label {', '.join(unknown)} (found: {', '.join(present)})")
        classes = tuple(dict.fromkeys(chosen))
        if len(classes) != len(chosen):
            raise InputError(f"task '{task}': a class is given twice in {', '.join(chosen)}; each once")
    if len(classes) < 2:
        raise InputError(f"task '{task}': {len(classes)} class ({', '.join(classes)}); at least two are needed")
    return classes


def decode(
    dataset: Dataset, task: str = "emotion", chosen: Sequence[str] | None = None
) -> tuple[pd.DataFrame, Iterator[Pcm], tuple[str, ...]]:
    """Read, check and convert the clips of a task, each when it is asked for.

    Channels are averaged, other rates resampled to 16 kHz. With ``chosen``, rows of other classes are left out
    unread.

    Args:
        dataset: rows with the columns of `advser.corpora.base.COLUMNS`.
        task: a key of `TASKS`.
        chosen: the classes, in order; None for all that occur.

    Returns:
        The rows, numbered from 0, without ``audio`` and with ``target`` (int64, the class index); their clips (T,) in
        the same order; the classes.

    Raises:
        InputError: as `task_labels`; or, after the last clip, naming files that are unreadable, empty, not finite,
            silent or shorter than `SHORTEST`, which are left out.
    """
    frame: pd.DataFrame = dataset.remove_columns("audio").to_pandas()
    classes = task_labels(frame, task, chosen)
    kept = np.flatnonzero(frame[TASKS[task]].isin(classes))
    rows = frame.iloc[kept].reset_index(drop=True)
    rows["target"] = rows[TASKS[task]].map(classes.index).astype(np.int64)
    return rows, _sounds(rows["clip"].tolist(), dataset.select(kept)), classes


def _sounds(names: Sequence[str], dataset: Dataset) -> Iterator[Pcm]:
    unusable: list[str] = []
    for clip, audio in zip(names, dataset["audio"], strict=True):
        try:
            yield _checked(clip, audio)
        except InputError as error:
            unusable.append(" ".join(str(error).split()))
    if unusable:
        raise InputError(f"{len(unusable)} of {len(names)} clips unusable: {shortlist(unusable)}")


def _checked(clip: str, audio: dict[str, Any]) -> Pcm:
    embedded = audio["bytes"] is not None
    # The path of embedded sound leads nowhere, and several may have the same.
    name = clip if embedded else str(audio["path"])
    samples, rate = read(audio["bytes"] if embedded else Path(name), name)
    if len(samples) < SHORTEST * rate:
        raise InputError(f"{name}: too short ({len(samples) / rate:.3f} s; at least {SHORTEST} s)")
    pcm = to_pcm(resample(samples, rate))
    if not pcm.any():
        raise InputError(f"{name}: silent (every sample is 0)")
    return pcm
