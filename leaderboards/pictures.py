"""Pictures of one clip before and after an attack, from the samples that a run wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
import numpy.typing as npt
import soundfile
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advser.errors import InputError
from advser.exhibits import Pictures
from advser.leaderboards.exhibits import exhibits, same, value_of
from advser.leaderboards.figures import STYLE, save
from advser.leaderboards.rows import Row, parameters
from advser.results import SAMPLES_FOLDER, SAMPLES_INDEX, Results

_WINDOW: Final = 512
_FAINTEST: Final = 1e-10
"""Power that is drawn as −100 dB."""


def write_pictures(results: Results, directory: Path) -> list[Path]:
    """Write the declared pictures as SVG and PNG; one of which no sample is there is left out.

    Args:
        results: what was found.
        directory: the results folder, with its ``samples``.

    Raises:
        InputError: if the samples cannot be read.
    """
    index = directory / SAMPLES_FOLDER / SAMPLES_INDEX
    if not index.is_file():
        return []
    written: list[Path] = []
    with matplotlib.rc_context(STYLE):
        for declared in exhibits(results):
            if isinstance(declared, Pictures):
                sample = _chosen(_read(index), declared)
                if sample is not None:
                    figure = draw(sample, index.parent, declared.title)
                    written += save(figure, directory / "figures", declared.pictures)
    return written


def _read(index: Path) -> list[dict[str, Any]]:
    try:
        entries: list[dict[str, Any]] = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{index}: unreadable: {' '.join(str(error).split())}") from None
    return entries


def _chosen(entries: list[dict[str, Any]], declared: Pictures) -> Mapping[str, Any] | None:
    """Return the first sample of the cell that fools the victim, or else its first."""
    fitting = [
        entry
        for entry in entries
        if all(same(value_of(Row(entry, parameters(entry)), key), value) for key, value in declared.where.items())
    ]
    turned = [one for one in fitting if one["clean_prediction"] == one["label"] != one["prediction"]]
    return next(iter([*turned, *fitting]), None)


def draw(sample: Mapping[str, Any], folder: Path, title: str) -> Figure:
    """Draw waveform and spectrogram (a row each) of the original, the attacked clip and their difference.

    The difference's waveform has an axis of its own, for it is far fainter than the sound; all spectrograms have the
    same range.
    """
    original, rate = soundfile.read(folder / sample["original"], dtype="float32")
    judged, _ = soundfile.read(folder / sample["judged"], dtype="float32")
    figure = Figure(figsize=(7.2, 3.6))
    figure.set_layout_engine("constrained")
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
        axes[0][column].set_title(heading)
        axes[1][column].set_xlabel("s")
    axes[0][0].set_ylabel("full scale")
    axes[1][0].set_ylabel("kHz")
    for place in (axes[0][1], *axes[1][1:]):
        place.tick_params(labelleft=False)
    figure.suptitle(f"{title}: clip {sample['clip']}, {sample['label']}")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _waveform(axes: Axes, sound: npt.NDArray[np.float32], rate: int) -> None:
    axes.plot(np.arange(len(sound)) / rate, sound, linewidth=0.4, color="#0072B2", rasterized=True)


def _spectrogram(axes: Axes, sound: npt.NDArray[np.float32], rate: int) -> None:
    padded = np.pad(sound, (0, max(0, _WINDOW - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[:: _WINDOW // 4]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW), axis=1)) ** 2 / _WINDOW
    level = 10 * np.log10(power + _FAINTEST)
    axes.grid(visible=False)
    axes.imshow(
        level.T, origin="lower", aspect="auto", cmap="magma", vmin=-90, vmax=10, interpolation="nearest",
        extent=(0, len(sound) / rate, 0, rate / 2000),
    )  # fmt: skip
