"""The clips that a run writes as sound, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from commandline import advser_here
from matplotlib.image import imread

from advser.leaderboards.figures.spectrograms import WIDTH
from advser.results.folder import Results
from advser.results.schema import KEYS, SAMPLES_FOLDER, SAMPLES_INDEX

SUITE = """
name: heard
corpus: demo
protocol: 3pair
folds: [fold1]
training: {iterations: 20, batch_size: 8, learning_rate: 2e-3}
models: [{name: tiny, params: {frames: 32}}]
defenses: [none]
attacks:
  - {name: noise, params: {epsilon: 0.001}}
  - {name: fgsm, params: {epsilon: 0.02}}
  - {name: fgsm, label: fgsm-again, params: {epsilon: 0.02}}
metrics: [uar]
transcriber: none
noise: false
samples: 99
worst: [{name: worst}]
"""


def run(folder: Path, *more: str) -> None:
    done = advser_here("run", "heard.yaml", "--store", "store", "--out", "out", *more, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heard")
    (folder / "heard.yaml").write_text(SUITE)
    run(folder)
    return folder


def entries(place: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((place / "out" / SAMPLES_FOLDER / SAMPLES_INDEX).read_text())
    return found


def sounds(place: Path) -> set[str]:
    return {path.name for path in (place / "out" / SAMPLES_FOLDER).glob("*.flac")}


def test_a_cells_samples_are_its_own_clips_each_once(place: Path) -> None:
    clips = Results.load(place / "out").examples
    assert set(clips["attack"]) == {"none", "noise", "fgsm", "fgsm-again", "worst"}
    found = pd.DataFrame(entries(place))
    assert not found.duplicated([*KEYS, "clip"]).any()
    alone = clips[clips["attack"] != "worst"].set_index(["attack", "clip"])
    written = found.set_index(["attack", "clip"])
    assert set(written.index) == set(alone.index)
    right = alone["prediction"] == alone["label"]
    assert right.to_dict() == (written["prediction"] == written["label"]).to_dict()


def test_the_folder_holds_the_samples_of_this_run_alone(place: Path) -> None:
    folder = place / "out" / SAMPLES_FOLDER
    stale, others = "0123456789ab-7.flac", {"mine.flac", "notes.txt"}
    for name in (stale, *others):
        (folder / name).write_text("")
    before = sounds(place)
    run(place, "--set", "samples=3")
    found = pd.DataFrame(entries(place))
    assert found.groupby("attack")["clip"].nunique().to_dict() == dict.fromkeys(found["attack"], 3)
    assert sounds(place) == {*found["original"], *found["judged"], *found["difference"], "mine.flac"}
    assert len(sounds(place)) < len(before)
    run(place, "--set", "samples=0")
    assert {path.name for path in folder.iterdir()} == others


def test_a_sample_tells_what_was_heard_and_measured_and_its_difference_can_be_heard(place: Path) -> None:
    run(place, "--set", "samples=2", "--set", "metrics=[uar, snr]")
    folder = place / "out" / SAMPLES_FOLDER
    for entry in entries(place):
        original, judged, difference = (
            soundfile.read(folder / entry[kind], dtype="int16")[0].astype(int)
            for kind in ("original", "judged", "difference")
        )
        expected = 10 ** (entry["gain"] / 20) * (judged - original)
        assert np.abs(difference - expected).max() <= 0.01 * max(np.abs(expected).max(), 1) + 1
        assert (entry["text"], entry["transcript"], entry["clean_transcript"]) == (entry["text"], "", "")
        assert ("snr" in entry["measured"]) == (entry["attack"] != "none")
        for kind in ("original", "judged", "difference"):
            picture = imread((folder / entry[kind]).with_suffix(".png"))
            assert picture.shape[1] == WIDTH
    assert {entry["text"] for entry in entries(place)} - {""}
