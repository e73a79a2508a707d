"""Render the embedded ``demo`` corpus with espeak-ng: 4 emotions × 6 voices × 6 sentences.

An emotion is a setting of speaking rate, pitch, pitch range and loudness. Each clip deviates from it by a seeded
random amount, so the emotions overlap a little. The script needs the program ``espeak-ng``. The same version and seed
give the same files; version 1.51 rendered the shipped files.

    python tools/render_demo.py [DIRECTORY] [--seed N]
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import product
from pathlib import Path

import numpy as np

from advser.audio.files import read, resample, write
from advser.audio.pcm import SAMPLE_RATE, Samples, to_pcm

DEMO_DATA = Path(__file__).parents[1] / "benchmark" / "corpora" / "demo_data"
SEED = 2021
FIELDS = ("file", "label", "speaker", "text", "gender")

ROOM_NOISE = 10 ** (-76 / 20)
"""RMS of the white background noise; a synthesiser's pauses are digital zeros, which no microphone records."""

EDGE_LEVEL = 10 ** (-40 / 20)
"""Share of the clip's peak; quieter sound before the first and after the last louder sample is trimmed."""

EDGE_SECONDS = 0.03
"""Seconds of quiet sound that remain at each end."""

SENTENCES = (
    "The dog is in the garden.",
    "I will call you tonight.",
    "She has left the house.",
    "We are going to the sea.",
    "Put the book on the table.",
    "He came home last night.",
)


@dataclass(frozen=True)
class Voice:
    """A speaker: an espeak-ng voice with a variant, and its pitch offset from that of the emotions (scale 0–99)."""

    speaker: str
    gender: str
    voice: str
    pitch: float


VOICES = (
    Voice("m1", "m", "en-us+m3", 0),
    Voice("m2", "m", "en-gb-x-rp+m7", -6),
    Voice("m3", "m", "en-gb-scotland+m1", 6),
    Voice("f1", "f", "en-us+f2", 0),
    Voice("f2", "f", "en-gb-x-rp+f4", 5),
    Voice("f3", "f", "en-us-nyc+f3", -5),
)


@dataclass(frozen=True)
class Prosody:
    """Prosody of an utterance.

    Attributes:
        rate: words per minute, at least 80 (the limit of espeak-ng).
        pitch: 0 to 99; 50 is the voice's own pitch.
        pitch_range: percent of the voice's own range; 0 is monotonous.
        amplitude: 0 to 200; above about 110 the loudest voices clip.
    """

    rate: float
    pitch: float
    pitch_range: float
    amplitude: float

    def varied(self, generator: np.random.Generator) -> Prosody:
        """Return the prosody of one clip, drawn around this prosody."""
        rate, loudness = np.exp(generator.normal(0, (0.05, 0.1)))
        pitch, pitch_range = generator.normal(0, (4, 20))
        return Prosody(
            rate=self.rate * rate,
            pitch=float(np.clip(self.pitch + pitch, 5, 95)),
            pitch_range=max(self.pitch_range + pitch_range, 0),
            amplitude=float(np.clip(self.amplitude * loudness, 10, 100)),
        )


EMOTIONS = {
    "anger": Prosody(rate=210, pitch=42, pitch_range=130, amplitude=90),
    "happiness": Prosody(rate=190, pitch=75, pitch_range=200, amplitude=56),
    "neutral": Prosody(rate=175, pitch=50, pitch_range=80, amplitude=44),
    "sadness": Prosody(rate=145, pitch=36, pitch_range=30, amplitude=25),
}


def speak(voice: Voice, text: str, prosody: Prosody) -> Samples:
    """Return the raw output (T,) of espeak-ng, resampled to 16 kHz."""
    marked = f'<speak><prosody range="{prosody.pitch_range:.0f}%">{escape(text)}</prosody></speak>'
    pitch = round(min(max(prosody.pitch + voice.pitch, 0), 99))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        # A second utterance of one process has other samples than the first, so each has a process of its own.
        subprocess.run(  # noqa: S603
            ["espeak-ng", "-m", "-z", "-v", voice.voice, "-s", str(round(prosody.rate)), "-p", str(pitch),  # noqa: S607
             "-a", str(round(prosody.amplitude)), "-w", str(path), marked],
            check=True,
        )  # fmt: skip
        return resample(*read(path, f"espeak-ng's rendering of {text!r}"))


def trimmed(samples: Samples) -> Samples:
    """Return samples (T,) with silence at both ends cut to `EDGE_SECONDS`."""
    (loud,) = np.nonzero(np.abs(samples) > EDGE_LEVEL * np.abs(samples).max())
    edge = round(EDGE_SECONDS * SAMPLE_RATE)
    return samples[max(loud[0] - edge, 0) : loud[-1] + edge]


def render(directory: Path, seed: int) -> Iterator[dict[str, str]]:
    """Write every clip into ``directory`` and yield its row of ``metadata.csv``."""
    clips = product(enumerate(VOICES), enumerate(EMOTIONS.items()), enumerate(SENTENCES))
    for (v, voice), (e, (emotion, prosody)), (s, text) in clips:
        generator = np.random.default_rng([seed, v, e, s])
        speech = trimmed(speak(voice, text, prosody.varied(generator)))
        noise = generator.normal(0, ROOM_NOISE, len(speech)).astype(np.float32)
        name = f"{voice.speaker}_{emotion}_{s + 1}.flac"
        write(directory / name, to_pcm(speech + noise))
        yield dict(zip(FIELDS, (name, emotion, voice.speaker, text, voice.gender), strict=True))


def main() -> None:
    """Render the corpus from the command line."""
    parser = argparse.ArgumentParser(description="Render the demo corpus with espeak-ng.")
    parser.add_argument("directory", type=Path, nargs="?", default=DEMO_DATA, help="output folder")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the variation between clips")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    rows = list(render(arguments.directory, arguments.seed))
    with (arguments.directory / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
