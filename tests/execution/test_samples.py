"""Sound samples of a run, through the real command line."""

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
name: sampled
corpus: demo
protocol: loso
folds: [f1]
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
audit: false
samples: 99
worst: [{name: worst}]
"""


def run(folder: Path, *more: str) -> None:
    done = advser_here("run", "sampled.yaml", "--store", "store", "--out", "out", *more, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    (folder / "sampled.yaml").write_text(SUITE)
    run(folder)
    return folder


def entries(folder: Path) -> list[dict[str, Any]]:
    index: list[dict[str, Any]] = json.loads((folder / "out" / SAMPLES_FOLDER / SAMPLES_INDEX).read_text())
    return index


def sounds(folder: Path) -> set[str]:
    return {path.name for path in (folder / "out" / SAMPLES_FOLDER).glob("*.flac")}


def test_each_clip_of_a_cell_has_one_sample(folder: Path) -> None:
    clips = Results.load(folder / "out").examples
    assert set(clips["attack"]) == {"none", "noise", "fgsm", "fgsm-again", "worst"}
    samples = pd.DataFrame(entries(folder))
    assert not samples.duplicated([*KEYS, "clip"]).any()
    expected = clips[clips["attack"] != "worst"].set_index(["attack", "clip"])
    written = samples.set_index(["attack", "clip"])
    assert set(written.index) == set(expected.index)
    right = expected["prediction"] == expected["label"]
    assert right.to_dict() == (written["prediction"] == written["label"]).to_dict()


def test_the_folder_holds_only_the_samples_of_this_run(folder: Path) -> None:
    samples_folder = folder / "out" / SAMPLES_FOLDER
    stale, others = "0123456789ab-7.flac", {"mine.flac", "notes.txt"}
    for name in (stale, *others):
        (samples_folder / name).write_text("")
    before = sounds(folder)
    run(folder, "--set", "samples=3")
    samples = pd.DataFrame(entries(folder))
    assert samples.groupby("attack")["clip"].nunique().to_dict() == dict.fromkeys(samples["attack"], 3)
    assert sounds(folder) == {*samples["original"], *samples["judged"], *samples["difference"], "mine.flac"}
    assert len(sounds(folder)) < len(before)
    run(folder, "--set", "samples=0")
    assert {path.name for path in samples_folder.iterdir()} == others


def test_a_sample_has_transcripts_metrics_and_an_amplified_difference(folder: Path) -> None:
    run(folder, "--set", "samples=2", "--set", "metrics=[uar, snr]")
    samples_folder = folder / "out" / SAMPLES_FOLDER
    for entry in entries(folder):
        original, judged, difference = (
            soundfile.read(samples_folder / entry[kind], dtype="int16")[0].astype(int)
            for kind in ("original", "judged", "difference")
        )
        expected = 10 ** (entry["gain"] / 20) * (judged - original)
        assert np.abs(difference - expected).max() <= 0.01 * max(np.abs(expected).max(), 1) + 1
        assert (entry["text"], entry["transcript"], entry["clean_transcript"]) == (entry["text"], "", "")
        assert ("snr" in entry["measured"]) == (entry["attack"] != "none")
        for kind in ("original", "judged", "difference"):
            picture = imread((samples_folder / entry[kind]).with_suffix(".png"))
            assert picture.shape[1] == WIDTH
    assert {entry["text"] for entry in entries(folder)} - {""}
