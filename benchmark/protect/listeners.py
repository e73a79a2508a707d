"""Listeners to a recording: the trained models of some results, and their speech recogniser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from advser.audio.pcm import Samples
from advser.errors import InputError
from advser.metrics.transcribers.base import Transcriber
from advser.models.base import EmotionModel
from advser.plugins.parameters import build
from advser.plugins.registries import TRANSCRIBERS
from advser.results.folder import Results
from advser.stages.prepare import Prepared, load_prepared
from advser.stages.train import load_model
from advser.store.artefacts import Store
from advser.threat.target import drawing


@dataclass(frozen=True)
class Listener:
    """A trained model that classifies the recording.

    Attributes:
        title: names of the model and its defense.
        model: the model, frozen.
        classes: names of its classes.
        surrogate: whether the perturbation is crafted on it.
    """

    title: str
    model: EmotionModel
    classes: tuple[str, ...]
    surrogate: bool

    @torch.no_grad()
    def answer(self, sound: Samples) -> str:
        """Return the predicted class of sound (T,) at 16 kHz."""
        with drawing(self.model, 0):
            logits = self.model(torch.from_numpy(sound)[None], torch.tensor([len(sound)]))
        return self.classes[int(logits.argmax(1))]


@dataclass(frozen=True)
class Speech:
    """A speech recogniser, its name and language, and the sentences of a closed-text recogniser."""

    transcriber: Transcriber
    name: str
    language: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Listeners:
    """The models of some results, and their recogniser, or the reason why there is none."""

    models: tuple[Listener, ...]
    speech: Speech | None
    no_speech: str = ""


def load_listeners(results: Results, store: Store) -> Listeners:
    """Return the trained models of some results: for each model and defense that of the first seed and fold.

    Surrogates are the undefended models with a gradient; without any undefended model, all models with a gradient.

    Args:
        results: results with examples, which name the models in the store.
        store: store with the models.

    Raises:
        InputError: if the results name no model, or models of several tasks, or the store lacks a model.
    """
    trained = results.examples[results.examples["model_key"] != ""]
    first = trained.drop_duplicates(["part", "model", "defense"])
    if first.empty:
        raise InputError("--run: got no trained model, expected results with examples (of this version, unpublished)")
    has_undefended = bool((first["defense"] == "none").any())
    several = first["part"].nunique() > 1
    listeners = []
    corpora = []
    for row in first.to_dict("records"):
        if row["model_key"] not in store:
            raise InputError(
                f"store {store.root}: got no model of {row['model']} / {row['defense']}, expected the store of the "
                "run (--store)"
            )
        artefact = store.get(row["model_key"])
        prepared = load_prepared(store.get(artefact.manifest["job"]["inputs"]["prepared"]))
        model = load_model(artefact, "cpu")
        title = f"{row['part']}: " * several + f"{row['model']} / {row['defense']}"
        surrogate = model.differentiable and (not has_undefended or row["defense"] == "none")
        listeners.append(Listener(title, model, tuple(prepared.classes), surrogate))
        corpora.append(prepared)
    _refuse_tasks(listeners)
    return Listeners(tuple(listeners), *_speech(results, first["part"].iloc[0], corpora[0]))


def _refuse_tasks(listeners: Sequence[Listener]) -> None:
    tasks = {listener.classes: listener.title for listener in reversed(listeners)}
    if len(tasks) > 1:
        listed = "; ".join(f"{', '.join(classes)} ({title})" for classes, title in reversed(tasks.items()))
        raise InputError(f"--run: got models of several tasks, {listed}, expected one task (--where part=NAME)")


def _speech(results: Results, part: str, prepared: Prepared) -> tuple[Speech | None, str]:
    absent = {"name": "none", "reason": "these results have no transcriber"}
    entry: dict[str, Any] = results.run.get("transcribers", {}).get(part, absent)
    if entry["name"] == "none":
        return None, entry["reason"]
    transcriber = build(TRANSCRIBERS.get(entry["name"]), entry["params"], f"transcriber '{entry['name']}'")
    if reason := transcriber.unavailable(prepared.language):
        return None, reason
    return Speech(transcriber, entry["name"], prepared.language, tuple(prepared.sentences)), ""
