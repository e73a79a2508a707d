"""The notes of boards on the sound of a corpus."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from advser.corpora import demo_data
from advser.execution.prepare import prepare
from advser.execution.request import Request

SUITE = """
name: noted
corpus: {name: folder, params: {language: en}}
protocol: random
training: {iterations: 1}
models: [tiny]
defenses: [none]
attacks: [{name: fgsm, params: {epsilon: 0.001}}]
metrics: [uar]
transcriber: none
"""


@pytest.mark.parametrize("peak", [1.0, 1.2])
def test_clips_above_full_scale_are_counted_on_boards(tmp_path, peak):
    (tmp_path / "suite.yaml").write_text(SUITE)
    folder = tmp_path / "in"
    folder.mkdir()
    tone = np.sin(2 * np.pi * 440 * np.arange(3200) / 16_000)
    rows = [f"{label}{number}.wav,{label}" for label in "xy" for number in range(4)]
    (folder / "metadata.csv").write_text("\n".join(["file,label", *rows]))
    for number, row in enumerate(rows):
        loud = peak if number in (2, 5) else 0.5
        soundfile.write(folder / row.partition(",")[0], loud * np.roll(tone, number), 16_000, subtype="FLOAT")
    request = Request(str(tmp_path / "suite.yaml"), tmp_path / "store", {"folder": folder}, tmp_path / "out")
    noted = "Corpus: 2 of 8 clips exceed full scale and are clipped: x2.wav; y1.wav." in prepare(request).notes
    assert noted == (peak > 1)


def test_near_copies_across_speakers_are_noted(tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    folder = tmp_path / "in"
    folder.mkdir()
    source = Path(demo_data.__file__).parent
    names = [f"{who}_{label}_{take}" for who in ("f1", "m1") for label in ("anger", "sadness") for take in "123"]
    for name in names:
        shutil.copy(source / f"{name}.flac", folder / f"{name}.flac")
    sound, rate = soundfile.read(source / "f1_anger_1.flac")
    soundfile.write(folder / "copy.mp3", 0.5 * sound, rate)
    rows = [f"{name}.flac,{name.split('_')[1]},{name[:2]}" for name in names]
    (folder / "metadata.csv").write_text("\n".join(["file,label,speaker", *rows, "copy.mp3,anger,m9"]))
    request = Request(str(tmp_path / "suite.yaml"), tmp_path / "store", {"folder": folder}, tmp_path / "out")
    (note,) = [note for note in prepare(request).notes if "near copies" in note]
    assert note.endswith("1 pair(s) of clips are near copies of one recording, 1 across speakers "
                         "(f1_anger_1.flac and copy.mp3).")  # fmt: skip
