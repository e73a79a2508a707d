"""The clips of a cell, read from stored artefacts: predictions, costs, transcripts, measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from advser.models.base import Outputs
from advser.plan.cells import Cell, FoldKeys, Plan
from advser.stages.craft import COSTS
from advser.stages.judge import LOGITS
from advser.stages.prepare import Prepared, load_prepared
from advser.store.artefacts import Artefact, Store
from advser.threat.objectives import cross_entropy, margin

TRANSCRIPT_COLUMNS: Final = ("transcript", "word_errors", "words", "char_errors", "chars")

UNMEASURED: Final[dict[str, Any]] = {"value": None, "reason": None}
"""Measurement of a clip whose job has no artefact."""

Measurements = Mapping[str, Sequence[Mapping[str, Any]]]
"""Metric title → a measurement per clip: ``value``, ``reason``, and ``counts`` (False) if it does not apply."""


class ExampleReader:
    """Reads the artefacts of a plan's jobs.

    Args:
        plan: an executed plan.
        store: store with its artefacts.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan = plan
        self._store = store
        self._read = lru_cache(maxsize=None)(self._read_columns)
        self._stored = lru_cache(maxsize=None)(self._get)

    def stored(self, key: str) -> Artefact | None:
        """Return the artefact of a job, which may be not applicable; None if the store has none."""
        return self._stored(key)

    def prepared(self, key: str) -> Prepared:
        """Return a prepared corpus."""
        return load_prepared(self._store.get(key))

    def classes(self, cell: Cell) -> int:
        """Return the number of classes of a cell's task."""
        return len(self.prepared(cell.folds[0].prepared).classes)

    def examples(self, cell: Cell) -> tuple[pd.DataFrame, Measurements]:
        """Return the clips of all folds of a cell, and their measurements."""
        parts: list[pd.DataFrame] = []
        measured: dict[str, list[dict[str, Any]]] = {}
        for fold in cell.folds:
            prepared = self.prepared(fold.prepared)
            rows = prepared.rows.iloc[list(prepared.folds[fold.fold].test)]
            columns: dict[str, Any] = {
                "clip": rows["clip"].to_numpy(),
                "speaker": rows["speaker"].to_numpy(),
                "text": rows["text"].to_numpy(),
                "label": rows["target"].to_numpy(),
                "fold": fold.fold,
                "audio_key": fold.crafted,
                "model_key": self._plan.jobs[fold.predicted].inputs["victim"],
                **self._predictions(fold, rows["target"].to_numpy()),
                **self._costs(fold),
                **self._transcripts(fold),
            }
            for title, key in {**fold.measured, **fold.examined}.items():
                values = self._read(key, "values.json") or [UNMEASURED] * len(rows)
                columns[title] = [np.nan if clip["value"] is None else clip["value"] for clip in values]
                measured.setdefault(title, []).extend(values)
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True), measured

    def _predictions(self, fold: FoldKeys, targets: Any) -> dict[str, Any]:
        outputs, clean_outputs = self._outputs(fold.predicted), self._outputs(fold.clean_predicted)
        logits, clean = outputs.get("logits"), clean_outputs.get("logits")
        source = self._outputs(fold.source_predicted).get("logits")
        columns: dict[str, Any] = {
            "clean_prediction": -1 if clean is None else clean.argmax(1).numpy(),
            "source_prediction": -1 if source is None else source.argmax(1).numpy(),
            "detection": outputs["detections"].numpy() if "detections" in outputs else np.nan,
            "clean_detection": clean_outputs["detections"].numpy() if "detections" in clean_outputs else np.nan,
        }
        if logits is None:
            return {**columns, "prediction": -1, "loss": np.nan, "margin": np.nan}
        labels = torch.tensor(targets)
        judged = Outputs(logits, embedding=logits.new_empty(len(logits), 0))
        return {
            **columns,
            "prediction": logits.argmax(1).numpy(),
            "loss": cross_entropy(judged, labels).numpy(),
            "margin": -margin(judged, labels).numpy(),
        }

    def _outputs(self, key: str | None) -> dict[str, torch.Tensor]:
        """Return a model's logits of the clips, and its detector's; empty if `_artefact` returns None."""
        artefact = self._artefact(key)
        return {} if artefact is None else load_file(artefact.path(LOGITS))

    def _costs(self, fold: FoldKeys) -> dict[str, Any]:
        artefact = self._artefact(fold.crafted)
        if artefact is None:
            return dict.fromkeys(("seconds", "forwards", "backwards"), np.nan)
        return {name: value.double().numpy() for name, value in load_file(artefact.path(COSTS)).items()}

    def _transcripts(self, fold: FoldKeys) -> dict[str, Any]:
        transcripts = self._read(fold.transcribed, "transcripts.json")
        clean = self._read(fold.clean_transcribed, "transcripts.json")
        columns: dict[str, Any] = {
            name: None if transcripts is None else [clip[name] for clip in transcripts] for name in TRANSCRIPT_COLUMNS
        }
        for name in ("word_errors", "char_errors"):
            columns[f"clean_{name}"] = None if clean is None else [clip[name] for clip in clean]
        return columns

    def _read_columns(self, key: str | None, name: str) -> list[dict[str, Any]] | None:
        artefact = self._artefact(key)
        rows: list[dict[str, Any]] | None = None if artefact is None else artefact.json(name)
        return rows

    def _artefact(self, key: str | None) -> Artefact | None:
        """Return the artefact of a job; None if there is no such job, it failed, or it is not applicable."""
        stored = None if key is None else self.stored(key)
        return None if stored is None or stored.not_applicable else stored

    def _get(self, key: str) -> Artefact | None:
        return self._store.get(key) if key in self._store else None
