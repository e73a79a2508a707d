"""Measures of stored sound: by the stages of a run, and by PESQ, STOI and Whisper called in a row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from advser.audio.clips import Clips
from advser.audio.pcm import SAMPLE_RATE, from_pcm
from advser.models.terms import Precision
from advser.plan.jobs import prepare_job
from advser.plugins.parameters import build
from advser.plugins.registries import ATTACKS
from advser.stages.craft import craft
from advser.stages.job import Task
from advser.stages.judge import clean_clips, judged_clips, measure, transcribe
from advser.stages.prepare import prepare
from advser.stages.specs import CraftSpec, MeasureSpec, PluginSpec, PrepareSpec, TranscribeSpec
from advser.store.artefacts import Artefact, Store
from advser.suite.schema import Suite
from advser.threat.model import Labels

METRICS = ("pesq", "stoi")
FOLD = "fold1"
SUITE: dict[str, Any] = {
    "name": "perf", "protocol": "3pair", "models": ["tiny"], "defenses": ["none"], "metrics": ["uar"],
}  # fmt: skip


def prepared(store: Store, directory: Path | None = None) -> Artefact:
    """Return the prepared demo corpus, or the prepared corpus in ``directory``."""
    corpus = "folder" if directory else "demo"
    job = prepare_job(Suite.model_validate({**SUITE, "corpus": corpus}), 0, directory)
    with store.create(job.key, job.record()) as folder:
        assert isinstance(job.spec, PrepareSpec)
        prepare(Task(job.spec, {}, folder, local=job.local))
    return store.get(job.key)


def waveform_attack(attack: str, labels: Labels, precision: Precision, **params: object) -> CraftSpec:
    """Return the specification of a crafting job for an attack on waveforms."""
    return CraftSpec(
        attack=PluginSpec(name=attack, params=params),
        domain="waveform",
        labels=labels,
        access=ATTACKS.get(attack).access,
        objective="cross-entropy",
        precision=precision,
        budget=build(ATTACKS.get(attack), params, attack).budget("waveform"),
        batch_size=16,
        fold=FOLD,
        seed=0,
    )


def stored(store: Store) -> dict[str, Artefact]:
    """Return the prepared demo corpus, and its test clips with noise."""
    inputs = {"prepared": prepared(store)}
    spec = waveform_attack("noise", "none", "fp32", epsilon=0.002, kind="sign")
    with store.create("crafted", {}) as folder:
        craft(Task(spec, inputs, folder))
    return {**inputs, "crafted": store.get("crafted")}


def ours(root: Path, whisper: Path) -> Mapping[str, Callable[[], Any]]:
    """Return the stages that measure and transcribe, by name of the metric or transcriber."""
    store = Store(root)
    keys: dict[str, str] = json.loads((root / "keys.json").read_text(encoding="utf-8"))
    inputs = {role: store.get(key) for role, key in keys.items()}

    def measured(name: str) -> None:
        spec = MeasureSpec(metric=PluginSpec(name=name, params={}), fold=FOLD)
        with TemporaryDirectory() as into:
            measure(Task(spec, inputs, Path(into)))

    def transcribed() -> None:
        from advser.metrics.transcribers.whisper import FasterWhisper

        params = {"model": str(whisper), "device": "cpu", "beam": 1}
        model = FasterWhisper(**params).fingerprint("en")
        transcriber = PluginSpec(name="faster-whisper", params=params)
        spec = TranscribeSpec(transcriber=transcriber, model=model, language="en", fold=FOLD)
        with TemporaryDirectory() as into:
            transcribe(Task(spec, inputs, Path(into)))

    return {**{name: partial(measured, name) for name in METRICS}, "faster-whisper": transcribed}


def theirs(root: Path, whisper: Path) -> Mapping[str, Callable[[], Any]]:
    """Return calls of the libraries on the same clips, one clip after another."""
    from faster_whisper import WhisperModel
    from pesq import pesq
    from pystoi import stoi

    store = Store(root)
    keys: dict[str, str] = json.loads((root / "keys.json").read_text(encoding="utf-8"))
    spec = MeasureSpec(metric=PluginSpec(name=METRICS[0], params={}), fold=FOLD)
    task = Task(spec, {role: store.get(key) for role, key in keys.items()}, root)
    clean, judged = _floats(clean_clips(task)), _floats(judged_clips(task))
    pairs = list(zip(clean, judged, strict=True))

    def transcribed() -> None:
        engine = WhisperModel(str(whisper), device="cpu", compute_type="int8", cpu_threads=1)
        for clip in judged:
            segments, _ = engine.transcribe(
                clip, "en", beam_size=1, temperature=0.0, condition_on_previous_text=False, without_timestamps=True
            )
            for _ in segments:
                pass

    return {
        "pesq in a row": lambda: [pesq(SAMPLE_RATE, *pair, "wb") for pair in pairs],
        "stoi in a row": lambda: [stoi(*pair, SAMPLE_RATE) for pair in pairs],
        "faster-whisper in a row": transcribed,
    }


def _floats(clips: Clips) -> list[np.ndarray[Any, Any]]:
    return [from_pcm(clip) for clip in clips]
