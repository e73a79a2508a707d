"""Protects a recording: perturbs it so that trained models read another emotion from it.

The models hear windows of a few seconds, as long as the clips that they were trained on, at 16 kHz, mono. What they are
to mishear is made there and added to every channel of the recording, at its own rate: its rate, channels, length and
what lies above 8 kHz stay. It is read and written in blocks of several windows, so that memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
import torch

from advser.attacks.base import Attack
from advser.attacks.learned import LearnedAttack
from advser.audio.files import FLOATS, resample
from advser.audio.pcm import SAMPLE_RATE, Samples
from advser.audio.recordings import FORMATS, blocks, encoding, in_windows, opened
from advser.errors import InputError
from advser.models.base import EmotionModel
from advser.models.ensemble import Ensemble
from advser.plugins.parameters import build
from advser.plugins.registries import ATTACKS
from advser.protect.effect import Progress, Protected, listened
from advser.protect.listeners import Party
from advser.store.files import replacing
from advser.threat.target import Target

SILENT: Final = 1e-4
"""Root mean square, full scale, below which a window stays as it is."""

FADE: Final = 0.005
"""Seconds over which the perturbation comes and goes at the ends of a window, so that it does not click."""


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
        raise InputError(f"{into}: got the suffix '{into.suffix}', expected {', '.join(FORMATS)}")
    if source.resolve() == into.resolve():
        raise InputError(f"{into}: got the recording itself, expected another file")
    surrogates = [one.model for one in party.listeners if one.surrogate]
    if not surrogates:
        raise InputError("--run: got no model with gradients, expected at least one to craft on")
    model = surrogates[0] if len(surrogates) == 1 else Ensemble(surrogates).eval()
    generator = torch.Generator().manual_seed(seed)
    _attack(attack, {**params, "epsilon": 1e-3})
    perturbed = 0
    with replacing(into) as beside, opened(source) as original:
        form, subtype = encoding(original, FORMATS[into.suffix.lower()])
        clips = subtype not in FLOATS
        try:
            with soundfile.SoundFile(
                beside, "w", original.samplerate, original.channels, subtype, format=form
            ) as written:
                for block, done in blocks(original):
                    delta, windows = _perturbation(
                        block, original.samplerate, model, attack, params, strength, generator
                    )
                    perturbed += windows
                    changed = block if delta is None else block + delta[:, None]
                    written.write(np.clip(changed, -1, 1) if clips and delta is not None else changed)
                    progress(done / 2)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{into}: {error}") from None
    return listened(source, into, party, perturbed, progress)


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
        for window in in_windows(resample(block.mean(axis=1), rate))
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


def _fade(length: int) -> Samples:
    """Return a window (length,) of ones that rises from 0 and falls to 0."""
    edge = min(int(FADE * SAMPLE_RATE), length // 2)
    ramp = np.linspace(0, 1, edge, endpoint=False, dtype=np.float32)
    return np.concatenate([ramp, np.ones(length - 2 * edge, np.float32), ramp[::-1]])
