"""A few clips of each cell as sound files, to listen to and to plot."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import soundfile

from advser.audio.pcm import SAMPLE_RATE, Pcm
from advser.plan.cells import Cell, FoldKeys, Plan
from advser.results.schema import CLEAN, EXAMPLES_SCHEMA, KEYS, SAMPLES_FOLDER, SAMPLES_INDEX
from advser.stages.prepare import AUDIO, load_clips, load_prepared
from advser.store.artefacts import Store
from advser.store.files import replacing

_SOUND: Final = re.compile(r"[0-9a-f]{12}-\d+(-difference)?\.(flac|png)")
"""Names of the sound files and their pictures: the first digits of an artefact's key, and the clip's position."""

PEAK: Final = 16384
"""Peak of an amplified difference, in 16-bit steps."""

Rows = Mapping[str, pd.DataFrame]
"""Key of the evaluated sound → its rows of the examples table, in all cells."""


def write_samples(plans: Sequence[Plan], store: Store, examples: pd.DataFrame, directory: Path) -> None:
    """Write ``samples/``: original and evaluated sound as FLAC, and ``index.json``, a list with an entry per clip.

    Each fold of a cell with delivery ``audio`` has `advser.suite.schema.Suite.samples` clips, misled clips first. An
    entry has the cell's keys and:

    - ``fold``, ``clip``, and the class names ``label``, ``clean_prediction`` and ``prediction``;
    - ``text`` (the spoken words; empty: unknown), and the recognised ``transcript`` and ``clean_transcript``;
    - ``measured``: metric → value of the clip;
    - the file names ``original``, ``judged`` and ``difference``. The difference, judged less original, is amplified by
      ``gain`` dB, since it is too faint.

    Samples of an earlier run are removed first; files with other names stay.

    Args:
        plans: the plans that were carried out.
        store: the artefact store.
        examples: the examples table.
        directory: the results folder.
    """
    folder = directory / SAMPLES_FOLDER
    _clear(folder)
    rows = {str(key): of_sound for key, of_sound in examples.groupby("audio_key", sort=False)}
    clean_rows = examples[examples["attack"] == CLEAN].drop_duplicates(["part", "clip"])
    transcripts = clean_rows.set_index(["part", "clip"])["transcript"]
    entries: list[dict[str, Any]] = []
    for plan in plans:
        audible = [cell for cell in plan.cells if cell.columns["delivery"] == "audio" and plan.suite.samples]
        for cell in audible:
            for fold in cell.folds:
                entries += _fold_entries(plan, cell, fold, store, rows, folder)
    for entry in entries:
        entry["clean_transcript"] = transcripts.get((entry["part"], entry["clip"])) or ""
    if entries:
        with replacing(folder / SAMPLES_INDEX) as path:
            path.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _clear(folder: Path) -> None:
    # The index goes first: it must never name a missing file.
    (folder / SAMPLES_INDEX).unlink(missing_ok=True)
    for path in folder.glob("*"):
        if _SOUND.fullmatch(path.name):
            path.unlink()


def _fold_entries(
    plan: Plan, cell: Cell, fold: FoldKeys, store: Store, examples: Rows, into: Path
) -> Iterator[dict[str, Any]]:
    if fold.crafted not in examples or fold.crafted not in store or not store.get(fold.crafted).path(AUDIO).exists():
        return
    prepared = load_prepared(store.get(fold.prepared))
    test = prepared.folds[fold.fold].test
    judged = load_clips(store.get(fold.crafted).path(AUDIO))
    rows = _rows_of(cell, fold, examples[fold.crafted])
    misled = (rows["clean_prediction"] == rows["label"]) & (rows["prediction"] != rows["label"])
    order = np.argsort(~misled.to_numpy(), kind="stable")[: plan.suite.samples]
    for position in sorted(order.tolist()):
        row = rows.iloc[position].to_dict()
        classes = [int(row[key]) for key in ("label", "clean_prediction", "prediction")]
        label, clean, prediction = (prepared.classes[number] if number >= 0 else "" for number in classes)
        yield {
            **{key: cell.columns[key] for key in KEYS},
            "fold": fold.fold,
            "clip": row["clip"],
            "label": label,
            "clean_prediction": clean,
            "prediction": prediction,
            "text": row["text"],
            "transcript": row["transcript"] or "",
            "measured": {
                name: value for name, value in row.items() if name not in EXAMPLES_SCHEMA.names and not pd.isna(value)
            },
            **_sounds(prepared.clips[test[position]], judged[position], into, fold, test[position]),
        }


def _sounds(original: Pcm, judged: Pcm, into: Path, fold: FoldKeys, position: int) -> dict[str, Any]:
    """Write the sounds of a clip; return their names, and the gain of the difference in dB."""
    difference = judged.astype(np.int32) - original.astype(np.int32)
    peak = int(np.abs(difference).max())
    gain = PEAK / peak if peak else 1.0
    amplified: Pcm = np.rint(gain * difference).astype(np.int16)
    name = f"{fold.crafted[:12]}-{position}"
    return {
        "original": _write(original, into / f"{fold.prepared[:12]}-{position}.flac"),
        "judged": _write(judged, into / f"{name}.flac"),
        "difference": _write(amplified, into / f"{name}-difference.flac"),
        "gain": round(20 * math.log10(gain), 1),
    }


def _rows_of(cell: Cell, fold: FoldKeys, examples: pd.DataFrame) -> pd.DataFrame:
    mask = examples["fold"].eq(fold.fold)
    for key in KEYS:
        value = cell.columns[key]
        mask &= examples[key].isna() if pd.isna(value) else examples[key].eq(value)
    return examples[mask]


def _write(clip: Pcm, path: Path) -> str:
    # Several cells have the same original.
    if not path.exists():
        with replacing(path) as beside:
            soundfile.write(beside, clip, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return path.name
