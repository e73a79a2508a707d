"""Who listens to a recording that is to be protected: the trained models of some results, and their recogniser."""

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
    """A trained model that hears the recording.

    Attributes:
        title: its name and its defense's.
        model: the model, frozen.
        classes: what it tells apart.
        surrogate: whether the perturbation is crafted on it.
    """

    title: str
    model: EmotionModel
    classes: tuple[str, ...]
    surrogate: bool

    @torch.no_grad()
    def answer(self, sound: Samples) -> str:
        """Return the class that the model decides for, of sound (T,) at 16 kHz."""
        with drawing(self.model, 0):
            logits = self.model(torch.from_numpy(sound)[None], torch.tensor([len(sound)]))
        return self.classes[int(logits.argmax(1))]


@dataclass(frozen=True)
class Speech:
    """A recogniser, the language that it hears, and the sentences that a closed-text one is told."""

    transcriber: Transcriber
    name: str
    language: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Party:
    """Who listens: the models of some results, and their recogniser, or why there is none."""

    listeners: tuple[Listener, ...]
    speech: Speech | None
    unheard: str = ""


def party(results: Results, store: Store) -> Party:
    """Return the trained models of some results, one of each model and defense: that of the first seed and fold.

    Surrogates are those without a defense; if there is none, all of them.

    Args:
        results: with their examples, which name the models in the store.
        store: where these are.

    Raises:
        InputError: if the results name no model, or models of several tasks, or the store lacks one.
    """
    trained = results.examples[results.examples["model_key"] != ""]
    first = trained.drop_duplicates(["part", "model", "defense"])
    if first.empty:
        raise InputError("--run: got no trained model, expected results with examples (of this version, unpublished)")
    bare = bool((first["defense"] == "none").any())
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
        surrogate = model.differentiable and (not bare or row["defense"] == "none")
        listeners.append(Listener(title, model, tuple(prepared.classes), surrogate))
        corpora.append(prepared)
    _refuse_tasks(listeners)
    return Party(tuple(listeners), *_speech(results, first["part"].iloc[0], corpora[0]))


def _refuse_tasks(listeners: Sequence[Listener]) -> None:
    tasks = {one.classes: one.title for one in reversed(listeners)}
    if len(tasks) > 1:
        told = "; ".join(f"{', '.join(classes)} ({title})" for classes, title in reversed(tasks.items()))
        raise InputError(f"--run: got models of several tasks, {told}, expected one (--where part=NAME)")


def _speech(results: Results, part: str, prepared: Prepared) -> tuple[Speech | None, str]:
    nothing = {"name": "none", "reason": "none in these results"}
    told: dict[str, Any] = results.run.get("transcribers", {}).get(part, nothing)
    if told["name"] == "none":
        return None, told["reason"]
    transcriber = build(TRANSCRIBERS.get(told["name"]), told["params"], f"transcriber '{told['name']}'")
    if reason := transcriber.unavailable(prepared.language):
        return None, reason
    return Speech(transcriber, told["name"], prepared.language, tuple(prepared.sentences)), ""
