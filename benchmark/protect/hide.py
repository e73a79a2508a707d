"""Protects a recording: perturbs it so that trained models classify its emotion differently.

The models classify windows of a few seconds, as long as their training clips, at 16 kHz, mono. The perturbation is
crafted on these windows, resampled to the recording's rate, and added to every channel. So the rate, channels, length
and content above 8 kHz stay. The recording is read and written in blocks of several windows, so that memory does not
grow with its length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
import torch

from advser.attacks.base import Attack
from advser.attacks.learned import LearnedAttack
from advser.audio.files import resample
from advser.audio.pcm import SAMPLE_RATE, Samples
from advser.audio.recordings import FORMATS, blocks, encoding, in_windows, opened
from advser.audio.soundness import FLOATS, to_mono
from advser.errors import InputError
from advser.models.base import EmotionModel
from advser.models.ensemble import Ensemble
from advser.plugins.parameters import build
from advser.plugins.registries import ATTACKS
from advser.plugins.roles import field_with_role, norm_of_budget
from advser.protect.effect import Effect, Progress, measure_effect
from advser.protect.listeners import Listeners
from advser.store.files import replacing
from advser.threat.target import Target

SILENT: Final = 1e-4
"""Root mean square, full scale, below which a window is not perturbed."""

FADE: Final = 0.005
"""Seconds over which the perturbation fades in and out at the ends of a window, to avoid clicks."""


@dataclass(frozen=True)
class Perturbation:
    """Settings of the perturbation.

    Attributes:
        attack: name of an attack on waveforms with a budget in L∞.
        params: parameters of the attack but its budget.
        strength: largest level of the perturbation relative to the sound, dB: ε is a window's root mean square times
            10^(strength / 20).
        seed: of the attack's random numbers.
    """

    attack: str
    params: Mapping[str, Any]
    strength: float
    seed: int = 0

    def built(self, epsilon: float) -> Attack:
        """Return the attack with a budget.

        Raises:
            InputError: if the attack is unknown, or not on waveforms with a budget in L∞, or a parameter is wrong.
        """
        plugin = ATTACKS.get(self.attack)
        attack = None
        if (budget := field_with_role(plugin, "budget")) is not None:
            attack = build(plugin, {**self.params, budget: epsilon}, f"attack '{self.attack}'")
        norm = norm_of_budget(plugin, vars(attack)) if attack else None
        usable = not issubclass(plugin, LearnedAttack) and not plugin.places and "waveform" in plugin.domains
        if attack is None or norm != "linf" or not usable:
            raise InputError(
                f"--attack {self.attack}: got an attack that cannot be used here, expected an attack on waveforms "
                "without training, with a budget ε in L∞"
            )
        return attack


@dataclass(frozen=True)
class _Crafter:
    """Crafts perturbations on a surrogate.

    Attributes:
        model: the surrogate, or an ensemble of surrogates.
        perturbation: settings.
        generator: source of the attack's random numbers.
    """

    model: EmotionModel
    perturbation: Perturbation
    generator: torch.Generator

    def block(self, block: Samples, rate: int, name: str) -> tuple[Samples | None, int]:
        """Return the perturbation of each channel (n,) at the recording's rate, and the number of perturbed windows.

        The perturbation is None if no window is perturbed.

        Raises:
            InputError: if the channels cancel; the message begins with ``name``.
        """
        parts = [self._window(window) for window in in_windows(resample(to_mono(block, name), rate))]
        perturbed = sum(bool(part.any()) for part in parts)
        if not perturbed:
            return None, 0
        delta = resample(np.concatenate(parts), SAMPLE_RATE, rate)
        return np.pad(delta, (0, max(0, len(block) - len(delta))))[: len(block)], perturbed

    def _window(self, window: Samples) -> Samples:
        """Return the perturbation (T,) of a window at 16 kHz, against the model's own answer; zeros for silence."""
        loudness = float(np.sqrt(np.mean(np.square(window))))
        if loudness < SILENT:
            return np.zeros_like(window)
        attack = self.perturbation.built(loudness * 10 ** (self.perturbation.strength / 20))
        x, lengths = torch.from_numpy(window)[None].clamp(-1, 1), torch.tensor([len(window)])
        with Target(self.model, lengths, "waveform") as target:
            labels = target.decisions(x)
        with Target(self.model, lengths, "waveform", attack.access) as target:
            delta = attack.admitted(attack.perturb(target, x.clone(), labels, self.generator), x, target) - x
        return np.asarray(delta[0].numpy() * _fade(len(window)), np.float32)


def _ignore(share: float) -> None:
    """Ignore the progress."""


def hide(
    source: Path, into: Path, listeners: Listeners, perturbation: Perturbation, progress: Progress = _ignore
) -> Effect:
    """Write a recording whose emotion models misclassify, and return the effect of the perturbation.

    Args:
        source: WAV, FLAC, OGG or MP3, of any rate, length and number of channels.
        into: path to write to; its suffix names the format.
        listeners: surrogates to craft on, and models and recogniser to measure the effect with.
        perturbation: settings.
        progress: receives the finished share.

    Raises:
        InputError: if a file is unusable, the attack is not usable here, or there is no surrogate.
    """
    if into.suffix.lower() not in FORMATS:
        raise InputError(f"{into}: got the suffix '{into.suffix}', expected {', '.join(FORMATS)}")
    if source.resolve() == into.resolve():
        raise InputError(f"{into}: got the recording itself, expected another file")
    crafter = _Crafter(_surrogate(listeners), perturbation, torch.Generator().manual_seed(perturbation.seed))
    # An unusable attack must raise before anything is written.
    perturbation.built(1e-3)
    with replacing(into) as beside:
        try:
            perturbed = _write(source, beside, FORMATS[into.suffix.lower()], crafter, progress)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{into}: {error}") from None
        # Measured before it has its name, so that an error leaves no file.
        return measure_effect(source, beside, listeners, perturbed, progress)


def _surrogate(listeners: Listeners) -> EmotionModel:
    surrogates = [listener.model for listener in listeners.models if listener.surrogate]
    if not surrogates:
        raise InputError("--run: got no model with gradients, expected at least one to craft on")
    return surrogates[0] if len(surrogates) == 1 else Ensemble(surrogates).eval()


def _write(source: Path, into: Path, form: str, crafter: _Crafter, progress: Progress) -> int:
    """Write the perturbed recording in a format, and return the number of perturbed windows."""
    perturbed = 0
    with opened(source) as original:
        form, subtype = encoding(original, form)
        clips = subtype not in FLOATS
        with soundfile.SoundFile(into, "w", original.samplerate, original.channels, subtype, format=form) as written:
            for block, done in blocks(original):
                delta, windows = crafter.block(block, original.samplerate, str(source))
                perturbed += windows
                changed = block if delta is None else block + delta[:, None]
                written.write(np.clip(changed, -1, 1) if clips and delta is not None else changed)
                progress(done / 2)
    return perturbed


def _fade(length: int) -> Samples:
    """Return a window (length,) of ones that rises from 0 and falls to 0."""
    edge = min(int(FADE * SAMPLE_RATE), length // 2)
    ramp = np.linspace(0, 1, edge, endpoint=False, dtype=np.float32)
    return np.concatenate([ramp, np.ones(length - 2 * edge, np.float32), ramp[::-1]])
