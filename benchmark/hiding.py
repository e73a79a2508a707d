"""Protects a recording: perturbs it so that trained models read another emotion from it.

The models hear windows of a few seconds, as long as the clips that they were trained on, at 16 kHz, mono. What they are
to mishear is made there and added to every channel of the recording, at its own rate: its rate, channels, length and
what lies above 8 kHz stay. It is read and written in blocks of several windows, so that memory does not grow with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
import torch

from advser.attacks.base import Attack
from advser.attacks.external import FLOATS
from advser.attacks.learned import LearnedAttack
from advser.audio import SAMPLE_RATE, Samples, resample, to_pcm
from advser.errors import InputError, MeasurementError, NotApplicableError
from advser.metrics.base import ClipMetric
from advser.metrics.intelligibility import STOI
from advser.metrics.quality import PESQ
from advser.models.base import EmotionModel
from advser.models.ensemble import Ensemble
from advser.parameters import build
from advser.plugins import ATTACKS, TRANSCRIBERS
from advser.results import Results
from advser.stages.prepare import Prepared, load_prepared
from advser.stages.train import load_model
from advser.store import Store, replacing
from advser.target import Target
from advser.transcribers.base import Transcriber

BLOCK: Final = 12
"""Seconds that are read and written at once, and that the recogniser, PESQ and STOI hear; PESQ takes 20."""

WINDOW: Final = 3
"""Seconds, about, that a model hears at once."""

SHORTEST: Final = 0.25
"""Seconds below which a last block stays as it is: models, PESQ and STOI hear nothing in it."""

SILENT: Final = 1e-4
"""Root mean square, full scale, below which a window stays as it is."""

FADE: Final = 0.005
"""Seconds over which the perturbation comes and goes at the ends of a window, so that it does not click."""

FORMATS: Final = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
"""Suffix → what is read and written."""

_KIN: Final = {"WAV": ("WAVEX", "RF64")}
"""Format → its variants, which have the same suffix."""

Progress = Callable[[float], None]
"""Is told the share that is done, 0 to 1."""


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


@dataclass
class Protected:
    """What came of it, measured on the file that was written.

    Attributes:
        seconds: length of the recording.
        windows: how many windows were perturbed; the others are silent.
        before, after: model → how often it gave each answer, window by window.
        changed: model → windows that it reads otherwise than before.
        measured: metric → its values, a block each; blocks that it cannot measure are left out.
        snr: of the whole, dB; NaN if nothing was changed.
        transcripts: before and after, a text a block.
    """

    seconds: float
    windows: int
    before: dict[str, Counter[str]] = field(default_factory=dict)
    after: dict[str, Counter[str]] = field(default_factory=dict)
    changed: Counter[str] = field(default_factory=Counter)
    measured: dict[str, list[float]] = field(default_factory=dict)
    snr: float = float("nan")
    transcripts: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))

    @property
    def misled(self) -> list[str]:
        """The models that read a window otherwise than before."""
        return [name for name, windows in self.changed.items() if windows]


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
        raise InputError("--run: found no trained model, allowed: results with examples (of this version, unpublished)")
    bare = bool((first["defense"] == "none").any())
    several = first["part"].nunique() > 1
    listeners = []
    corpora = []
    for row in first.to_dict("records"):
        if row["model_key"] not in store:
            raise InputError(
                f"store {store.root}: found no model of {row['model']} / {row['defense']}, allowed: the store of the "
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
        raise InputError(f"--run: found models of several tasks, {told}, allowed: one (--where part=NAME)")


def _speech(results: Results, part: str, prepared: Prepared) -> tuple[Speech | None, str]:
    nothing = {"name": "none", "reason": "none in these results"}
    told: dict[str, Any] = results.run.get("transcribers", {}).get(part, nothing)
    if told["name"] == "none":
        return None, told["reason"]
    transcriber = build(TRANSCRIBERS.get(told["name"]), told["params"], f"transcriber '{told['name']}'")
    if reason := transcriber.unavailable(prepared.language):
        return None, reason
    return Speech(transcriber, told["name"], prepared.language, tuple(prepared.sentences)), ""


def hide(
    source: Path,
    into: Path,
    party: Party,
    attack: str,
    params: Mapping[str, Any],
    strength: float,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> Protected:
    """Write a recording whose emotion models misread, and tell what they and others hear.

    Args:
        source: WAV, FLAC, OGG or MP3, of any rate, length and number of channels.
        into: where it is written; its suffix names the format.
        party: who listens.
        attack: name of an attack on waveforms with a budget in L∞.
        params: its parameters but ``epsilon``.
        strength: level of the perturbation relative to the sound, dB, at most: ε is a window's root mean square times
            10^(strength / 20).
        seed: of the attack's random numbers.
        progress: is told what share is done.

    Raises:
        InputError: if a file is unusable, or the attack is none of these.
    """
    if into.suffix.lower() not in FORMATS:
        raise InputError(f"{into}: found the suffix '{into.suffix}', allowed: {', '.join(FORMATS)}")
    if source.resolve() == into.resolve():
        raise InputError(f"{into}: found the recording itself, allowed: another file")
    surrogates = [one.model for one in party.listeners if one.surrogate]
    if not surrogates:
        raise InputError("--run: found no model with gradients, allowed: at least one to craft on")
    model = surrogates[0] if len(surrogates) == 1 else Ensemble(surrogates).eval()
    generator = torch.Generator().manual_seed(seed)
    _attack(attack, {**params, "epsilon": 1e-3})
    perturbed = 0
    with replacing(into) as beside, _opened(source) as original:
        form, subtype = _encoding(original, FORMATS[into.suffix.lower()])
        clips = subtype not in FLOATS
        try:
            with soundfile.SoundFile(
                beside, "w", original.samplerate, original.channels, subtype, format=form
            ) as written:
                for block, done in _blocks(original):
                    delta, windows = _perturbation(
                        block, original.samplerate, model, attack, params, strength, generator
                    )
                    perturbed += windows
                    changed = block if delta is None else block + delta[:, None]
                    written.write(np.clip(changed, -1, 1) if clips and delta is not None else changed)
                    progress(done / 2)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{into}: {error}") from None
    return _listened(source, into, party, perturbed, progress)


def _opened(path: Path) -> soundfile.SoundFile:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path}: unreadable as audio: {error}") from None
    if not file.frames:
        file.close()
        raise InputError(f"{path}: empty (0 samples)")
    return file


def _encoding(original: soundfile.SoundFile, form: str) -> tuple[str, str | None]:
    """Return format and subtype of what is written as ``form``: the recording's own as far as that can hold them."""
    kept = original.format if original.format in _KIN.get(form, ()) else form
    if kept == original.format:
        return kept, original.subtype
    linear = original.subtype in FLOATS or original.subtype.startswith("PCM_")
    able = (subtype for subtype in (original.subtype, "PCM_24") if linear and soundfile.check_format(form, subtype))
    return kept, next(able, None)


def _blocks(file: soundfile.SoundFile) -> Iterator[tuple[Samples, float]]:
    """Yield blocks (n, channels) of a file, and what share of it is read then."""
    read, blocks = 0, file.blocks(BLOCK * file.samplerate, dtype="float32", always_2d=True)
    while True:
        try:
            block = next(blocks, None)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{file.name}: unreadable as audio: {error}") from None
        if block is None:
            return
        if not np.isfinite(block).all():
            raise InputError(f"{file.name}: found samples that are not finite numbers, allowed: numbers")
        read += len(block)
        yield block, min(read / file.frames, 1.0)


def _attack(name: str, params: Mapping[str, Any]) -> Attack:
    plugin = ATTACKS.get(name)
    made = build(plugin, dict(params), f"attack '{name}'") if "epsilon" in plugin.model_fields else None
    norm = getattr(made, "norm", "linf")
    usable = not issubclass(plugin, LearnedAttack) and not plugin.places and "waveform" in plugin.domains
    if made is None or norm != "linf" or not usable:
        raise InputError(f"--attack {name}: allowed: one on waveforms that crafts at once, with a budget ε in L∞")
    return made


def _perturbation(
    block: Samples,
    rate: int,
    model: EmotionModel,
    attack: str,
    params: Mapping[str, Any],
    strength: float,
    generator: torch.Generator,
) -> tuple[Samples | None, int]:
    """Return what is added to each channel (n,) at the recording's rate (None: nothing), and in how many windows."""
    parts = [
        _crafted(window, model, attack, params, strength, generator)
        for window in _windows(resample(block.mean(axis=1), rate))
    ]
    touched = sum(bool(part.any()) for part in parts)
    if not touched:
        return None, 0
    added = resample(np.concatenate(parts), SAMPLE_RATE, rate)
    return np.pad(added, (0, max(0, len(block) - len(added))))[: len(block)], touched


def _crafted(
    window: Samples,
    model: EmotionModel,
    attack: str,
    params: Mapping[str, Any],
    strength: float,
    generator: torch.Generator,
) -> Samples:
    """Return the perturbation (T,) of a window at 16 kHz, away from what the model reads; zeros if it is silent."""
    loudness = float(np.sqrt(np.mean(np.square(window))))
    if loudness < SILENT:
        return np.zeros_like(window)
    made = _attack(attack, {**params, "epsilon": loudness * 10 ** (strength / 20)})
    x, lengths = torch.from_numpy(window)[None].clamp(-1, 1), torch.tensor([len(window)])
    with Target(model, lengths, "waveform") as asked:
        labels = asked.decisions(x)
    with Target(model, lengths, "waveform", made.access) as target:
        delta = made.admitted(made.perturb(target, x.clone(), labels, generator), x, target) - x
    return np.asarray(delta[0].numpy() * _fade(len(window)), np.float32)


def _windows(heard: Samples) -> list[Samples]:
    """Split a block (T,) at 16 kHz into windows of equal lengths; none of one that is too short to hear."""
    number = max(1, round(len(heard) / (WINDOW * SAMPLE_RATE)))
    return np.array_split(heard, number) if len(heard) >= SHORTEST * SAMPLE_RATE else []


def _fade(length: int) -> Samples:
    """Return a window (length,) of ones that rises from 0 and falls to 0."""
    edge = min(int(FADE * SAMPLE_RATE), length // 2)
    ramp = np.linspace(0, 1, edge, endpoint=False, dtype=np.float32)
    return np.concatenate([ramp, np.ones(length - 2 * edge, np.float32), ramp[::-1]])


def _listened(source: Path, into: Path, party: Party, perturbed: int, progress: Progress) -> Protected:
    """Hear both files, block by block."""
    with _opened(source) as original, _opened(into) as hidden:
        told = Protected(original.frames / original.samplerate, perturbed)
        signal = noise = 0.0
        for (block, done), (other, _) in zip(_blocks(original), _blocks(hidden), strict=False):
            length = min(len(block), len(other))
            pair = [resample(one[:length].mean(axis=1), original.samplerate) for one in (block, other)]
            signal += float(np.sum(np.square(block[:length], dtype=np.float64)))
            noise += float(np.sum(np.square(other[:length] - block[:length], dtype=np.float64)))
            if len(pair[0]) >= SHORTEST * SAMPLE_RATE:
                _read(told, party, pair)
                _hear(told, party, pair)
            progress((1 + done) / 2)
    told.snr = float(10 * np.log10(signal / noise)) if noise and signal else float("nan")
    return told


def _read(told: Protected, party: Party, pair: Sequence[Samples]) -> None:
    """Have the models read the emotion of each window of a block, before and after."""
    for windows in zip(*map(_windows, pair), strict=True):
        for listener in party.listeners:
            answers = [_answer(listener, sound) for sound in windows]
            for heard, answer in zip((told.before, told.after), answers, strict=True):
                heard.setdefault(listener.title, Counter())[answer] += 1
            told.changed[listener.title] += answers[0] != answers[1]


def _hear(told: Protected, party: Party, pair: Sequence[Samples]) -> None:
    """Measure a block and write down what is said in it, before and after."""
    for metric in (PESQ(), STOI()):
        value = _value(metric, *pair)
        if value is not None:
            told.measured.setdefault(metric.title, []).append(value)
    if party.speech:
        engine = party.speech
        texts = engine.transcriber.transcribe([to_pcm(one) for one in pair], engine.language, engine.sentences)
        for heard_as, text in zip(told.transcripts, texts, strict=True):
            heard_as.append(text)


@torch.no_grad()
def _answer(listener: Listener, sound: Samples) -> str:
    torch.manual_seed(0)
    logits = listener.model(torch.from_numpy(sound)[None], torch.tensor([len(sound)]))
    return listener.classes[int(logits.argmax(1))]


def _value(metric: ClipMetric, clean: Samples, judged: Samples) -> float | None:
    try:
        return metric.measure(clean, judged, SAMPLE_RATE)
    except (MeasurementError, NotApplicableError):
        return None
