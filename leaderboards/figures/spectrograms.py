"""Pictures of one clip before and after an attack, from the samples that a run wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
import numpy.typing as npt
import soundfile
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from advser.errors import InputError
from advser.leaderboards.boards.exhibits import exhibits, is_same, value_of
from advser.leaderboards.boards.rows import Row, cell_id, parameters, rows
from advser.leaderboards.figures.drawing import SCREEN, Drawing, Paper, laid_out
from advser.results.folder import Results
from advser.results.schema import KEYS, SAMPLES_FOLDER, SAMPLES_INDEX
from advser.store.files import replacing
from advser.store.names import inside, unlinked
from advser.suite.exhibits import Pictures

SOUNDS: Final = ("original", "judged", "difference")
"""The sounds of a sample."""

SOUND_SUFFIX: Final = ".flac"
"""Suffix of their files."""

WIDTH: Final = 360
"""Columns of a thumbnail, in pixels."""

WAVEFORM: Final = 64
"""Rows of its waveform, in pixels; its spectrogram has one row per two bins."""

COLOURS_OF_A_THUMBNAIL: Final = 64
"""Number of colours of its file."""

INK: Final = (31, 119, 180, 255)
"""Colour of a waveform (RGBA), visible on white and on black."""

COLOURS: Final = "magma"
FAINT: Final = -90
LOUD: Final = 10
"""Range of levels in dB that the colours of a spectrogram span."""

_REQUIRED: Final = ("clip", "label", "prediction", "clean_prediction", "original", "judged")
"""Required fields of a sample's entry besides the keys of its cell; later versions have more."""

_WINDOW: Final = 512
_FAINTEST: Final = 1e-10
"""Power that is added before the logarithm: −100 dB."""


def declared_pictures(
    results: Results, entries: Sequence[dict[str, Any]], folder: Path, paper: Paper
) -> dict[str, Drawing]:
    """Return the declared pictures that have a sample: name → drawing.

    Args:
        results: the results.
        entries: the samples of the run; those of cells that ``results`` lack are ignored.
        folder: folder of their sounds.
        paper: the paper or screen to draw for.
    """
    cells = {cell_id(row.keys) for row in rows(results)}
    own = [entry for entry in entries if cell_id(entry) in cells]
    declared = [exhibit for exhibit in exhibits(results) if isinstance(exhibit, Pictures)]
    return {
        pictures.pictures: partial(draw, sample, folder, pictures.title, paper)
        for pictures in declared
        if (sample := _chosen(own, pictures)) is not None
    }


def read_samples(directory: Path) -> list[dict[str, Any]]:
    """Return the entries of a results folder's ``samples/index.json``; none if there is none.

    Raises:
        InputError: if it cannot be read, an entry lacks a required field or has one of another type, or it names a file
            that is not in the folder.
    """
    index = unlinked(directory, f"{SAMPLES_FOLDER}/{SAMPLES_INDEX}", "samples")
    if not index.is_file():
        return []
    try:
        entries: list[dict[str, Any]] = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{index}: unreadable: {' '.join(str(error).split())}") from None
    records = [entry if isinstance(entry, dict) else {} for entry in entries] if isinstance(entries, list) else [{}]
    for number, record in enumerate(records):
        if absent := sorted({*KEYS, *_REQUIRED} - {*record}):
            raise InputError(f"{index}: entry {number}: got no '{absent[0]}', expected a file written by `advser run`")
        _check_entry(record, index.parent, f"{index}: entry {number}")
    return records


def _check_entry(entry: Mapping[str, Any], folder: Path, place: str) -> None:
    """Raise InputError if a field of a sample has another type, or names a file that is not a sound in ``folder``."""
    texts = [key for key in (*KEYS, *_REQUIRED) if key not in ("seed", "epsilon")]
    wrong = [key for key in texts if not isinstance(entry[key], str)]
    wrong += [key for key in ("seed", "epsilon") if not isinstance(entry[key], int | float | None)]
    if wrong:
        raise InputError(f"{place}: {wrong[0]}: got {entry[wrong[0]]!r:.80}, expected a text or number of `advser run`")
    for kind in SOUNDS:
        if kind in entry:
            sound = inside(folder, entry[kind], f"{place}: {kind}")
            if sound.suffix != SOUND_SUFFIX:
                raise InputError(f"{place}: {kind}: got '{sound.name}', expected a file with the suffix {SOUND_SUFFIX}")


def _chosen(entries: Sequence[dict[str, Any]], declared: Pictures) -> Mapping[str, Any] | None:
    """Return the cell's first sample that misleads the victim, or else its first sample; None if it has none."""
    fitting = [
        entry
        for entry in entries
        if all(is_same(value_of(Row(entry, parameters(entry)), key), value) for key, value in declared.where.items())
    ]
    fooled = [entry for entry in fitting if entry["clean_prediction"] == entry["label"] != entry["prediction"]]
    return next(iter([*fooled, *fitting]), None)


def draw(sample: Mapping[str, Any], folder: Path, title: str, paper: Paper = SCREEN) -> Figure:
    """Draw waveform and spectrogram (a row each) of the original, the attacked clip and their difference.

    The difference's waveform has an axis of its own, because it is far fainter than the sound. All spectrograms share
    one range.
    """
    (original, rate), (judged, _) = (_read(folder / sample[kind]) for kind in ("original", "judged"))
    width = paper.width or 7.2
    figure = Figure(figsize=(width, max(2.2, width / 2)), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, squeeze=False)
    axes[0][1].sharey(axes[0][0])
    headings = (
        f"original: {sample['clean_prediction']}",
        f"{sample['attack']}: {sample['prediction']}",
        "difference",
    )
    for column, (heading, sound) in enumerate(zip(headings, (original, judged, judged - original), strict=True)):
        _waveform(axes[0][column], sound, rate)
        _spectrogram(axes[1][column], sound, rate)
        paper.title(axes[0][column], 3, heading)
        axes[1][column].set_xlabel("s")
    axes[0][0].set_ylabel("full scale")
    axes[1][0].set_ylabel("kHz")
    for place in (axes[0][1], *axes[1][1:]):
        place.tick_params(labelleft=False)
    if paper.heading:
        figure.suptitle(f"{title}: clip {sample['clip']}, {sample['label']}")
    return laid_out(figure)


def _read(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    try:
        sound, rate = soundfile.read(path, dtype="float32")
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path}: unreadable as audio: {' '.join(str(error).split())}") from None
    return sound, int(rate)


def _waveform(axes: Axes, sound: npt.NDArray[np.float32], rate: int) -> None:
    axes.plot(np.arange(len(sound)) / rate, sound, linewidth=0.4, color="#0072B2", rasterized=True)


def _spectrogram(axes: Axes, sound: npt.NDArray[np.float32], rate: int) -> None:
    axes.grid(visible=False)
    axes.imshow(
        level(sound).T, origin="lower", aspect="auto", cmap=COLOURS, vmin=FAINT, vmax=LOUD, interpolation="nearest",
        extent=(0, len(sound) / rate, 0, rate / 2000),
    )  # fmt: skip


def level(sound: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the spectrogram (frames, bins) of a sound (T,) in dB, at least −100."""
    padded = np.pad(sound, (0, max(0, _WINDOW - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[:: _WINDOW // 4]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW), axis=1)) ** 2 / _WINDOW
    return np.asarray(10 * np.log10(power + _FAINTEST), np.float32)


def thumbnail(sound: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return a small RGBA picture (rows, columns, 4) of a sound (T,): its waveform over its spectrogram.

    The background of the waveform is transparent. Time spans all `WIDTH` columns, whatever the length; the waveform's
    axis is [−1, 1].
    """
    edges = np.linspace(0, len(sound), WIDTH + 1).astype(int)[:-1]
    heights = np.linspace(1, -1, WAVEFORM)[:, None]
    low, high = np.minimum.reduceat(sound, edges), np.maximum.reduceat(sound, edges)
    # A column is a line of at least one pixel.
    inked = (heights <= high + 1 / WAVEFORM) & (heights >= low - 1 / WAVEFORM)
    waveform = np.where(inked[..., None], np.array(INK, np.uint8), np.uint8(0))
    shown = level(sound)
    columns = shown[np.linspace(0, len(shown) - 1, WIDTH).astype(int), :-1].reshape(WIDTH, -1, 2).max(2).T[::-1]
    scaled = (columns - FAINT) / (LOUD - FAINT)
    spectrogram = matplotlib.colormaps[COLOURS](np.clip(scaled, 0, 1), bytes=True)
    return np.concatenate([waveform, np.asarray(spectrogram, np.uint8)])


def write_thumbnails(entries: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Write a PNG beside each sound of the samples ``entries`` in ``folder``; return their paths."""
    written = []
    # Samples of older versions have no difference.
    for name in dict.fromkeys(entry[kind] for entry in entries for kind in SOUNDS if kind in entry):
        sound, _ = _read(folder / name)
        with replacing((folder / name).with_suffix(".png")) as path:
            # Few colours show as much, in a third of the bytes.
            Image.fromarray(thumbnail(sound)).quantize(COLOURS_OF_A_THUMBNAIL).save(path, format="png")
        written.append((folder / name).with_suffix(".png"))
    return written
