"""Adversarial audio from a folder: found, checked, tried on each victim, and never to a victim's advantage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import toys
from commandline import advser_here
from torch import Tensor

from advser.attacks.ensemble import Ensemble
from advser.attacks.external import External
from advser.audio.files import write
from advser.audio.pcm import SAMPLE_RATE, to_pcm
from advser.errors import InputError
from advser.execution.submission import submit
from advser.plugins.parameters import build
from advser.results.folder import Results
from advser.results.schema import EXAMPLES_FILE
from advser.threat.target import Target

NAMES = tuple(f"clip{number}" for number in range(12))
CLIPS = dict.fromkeys(NAMES, toys.SAMPLES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "theirs").mkdir()
    return tmp_path / "theirs"


def filled(folder: Path, sounds: Tensor, names: tuple[str, ...] = NAMES) -> External:
    for name, sound in zip(names, sounds, strict=True):
        write(folder / f"{name}.wav", to_pcm(sound.numpy()))
    return build(External, {"folder": str(folder)}, "external")


def judged(model: torch.nn.Module, attack: External, x: Tensor, labels: Tensor, names: tuple[str, ...]) -> Tensor:
    lengths = torch.full((len(x),), x.shape[1])
    with Target(model, lengths, "waveform", attack.access, names=names) as target:
        return attack.perturb(target, x, labels, torch.Generator())


def test_a_file_counts_only_where_it_turns_a_right_answer_into_a_wrong_one(folder: Path) -> None:
    model = toys.model(toys.Convolutional, classes=4).eval()
    x, lengths, _ = toys.sounds(12, seed=5)
    others = x.flip(0)
    decided, answers = model(x, lengths).argmax(1), model(others, lengths).argmax(1)
    labels = decided.clone()
    labels[::4] = (labels[::4] + 1) % 4
    made = judged(model, filled(folder, others), x, labels, NAMES)
    fooled = (decided == labels) & (answers != labels)
    assert 0 < int(fooled.sum()) < int((decided == labels).sum()) < 12
    assert torch.equal((made != x).any(1), fooled)
    torch.testing.assert_close(made[fooled], others[fooled], atol=2 / 32768, rtol=0)
    right = model(made, lengths).argmax(1) == labels
    assert torch.equal(right, (decided == labels) & ~fooled)


def test_a_file_is_cut_to_the_budget_before_it_is_tried(folder: Path) -> None:
    model = toys.model(toys.Convolutional, classes=4).eval()
    x, lengths, _ = toys.sounds(12, seed=5)
    labels = model(x, lengths).argmax(1)
    filled(folder, x.flip(0))
    wide, narrow = (build(External, {"folder": str(folder), "epsilon": size}, "external") for size in (2.0, 0.0))
    assert not torch.equal(judged(model, wide, x, labels, NAMES), x)
    assert torch.equal(judged(model, narrow, x, labels, NAMES), x)


def test_a_name_may_have_the_suffix_of_the_clips_and_files_may_shout(folder: Path) -> None:
    model = toys.model(toys.Convolutional, classes=4).eval()
    x, lengths, _ = toys.sounds(2, seed=5)
    names = ("a.wav", "b")
    for name, sound in zip(("a.wav", "b.WAV"), x.flip(0), strict=True):
        write(folder / name, to_pcm(sound.numpy()))
    attack = build(External, {"folder": str(folder)}, "external")
    assert attack.reads(dict.fromkeys(names, toys.SAMPLES)).note.startswith("2 of 2 clips have a file")
    labels = model(x, lengths).argmax(1)
    misread = model(x.flip(0), lengths).argmax(1) != labels
    assert torch.equal((judged(model, attack, x, labels, names) != x).any(1), misread)


def test_clips_without_a_file_stay_clean(folder: Path) -> None:
    model = toys.model(toys.Convolutional, classes=4).eval()
    x, lengths, _ = toys.sounds(12, seed=5)
    labels = model(x, lengths).argmax(1)
    attack = filled(folder, x.flip(0)[:6], NAMES[:6])
    assert torch.equal(judged(model, attack, x, labels, NAMES)[6:], x[6:])
    assert torch.equal(judged(model, attack, x, labels, ()), x)
    assert attack.reads(CLIPS).note.startswith("6 of 12 clips have a file")


def test_names_follow_their_clips_when_a_target_is_narrowed() -> None:
    model = toys.model(toys.Convolutional)
    target = Target(model, torch.full((3,), 8), "waveform", names=("a", "b", "c"))
    assert target.at(torch.tensor([2, 0, 2])).names == ("c", "a", "c")


def test_what_the_files_hold_counts_and_not_where_they_are(folder: Path, tmp_path: Path) -> None:
    x, _, _ = toys.sounds(12, seed=5)
    digest = filled(folder, x).reads(CLIPS).digest
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert build(External, {"folder": str(moved)}, "external").reads(CLIPS).digest == digest
    assert filled(moved, x.flip(0)).reads(CLIPS).digest != digest


def empty(folder: Path) -> None:
    (folder / "notes.txt").write_text("no sound")


def stranger(folder: Path) -> None:
    write(folder / "clip77.wav", np.zeros(toys.SAMPLES, np.int16))


def twice(folder: Path) -> None:
    write(folder / "clip0.wav", np.zeros(toys.SAMPLES, np.int16))
    write(folder / "clip0.flac", np.zeros(toys.SAMPLES, np.int16))


def short(folder: Path) -> None:
    write(folder / "clip0.wav", np.zeros(toys.SAMPLES - 1, np.int16))


def other_rate(folder: Path) -> None:
    write(folder / "clip0.wav", np.zeros(toys.SAMPLES, np.int16), 8000)


def stereo(folder: Path) -> None:
    write(folder / "clip0.wav", np.zeros((toys.SAMPLES, 2), np.int16))


def no_number(folder: Path) -> None:
    sound = np.zeros(toys.SAMPLES, np.float32)
    sound[3] = np.nan
    soundfile.write(folder / "clip0.wav", sound, SAMPLE_RATE, subtype="FLOAT")


def no_sound(folder: Path) -> None:
    (folder / "clip0.wav").write_text("no sound")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda folder: folder.rmdir(), "got no folder '.*', expected one of sound"),
        (no_number, "clip0.wav: 1 samples are not finite numbers"),
        (empty, "got no sound in .*allowed: one with .wav or .flac files"),
        (stranger, "clip77.wav: got the name 'clip77', expected that of a clip, once, such as 'clip0'"),
        (twice, "clip0.wav: got the name 'clip0', expected that of a clip, once, such as 'clip1'"),
        (short, f"clip0.wav: got {toys.SAMPLES - 1} samples at 16000 Hz, .* allowed: .*{toys.SAMPLES} samples"),
        (other_rate, "got .* at 8000 Hz"),
        (stereo, r"2 channel\(s\), expected .*1 channel"),
        (no_sound, "clip0.wav: unreadable as audio"),
    ],
)
def test_files_that_belong_to_no_clip_are_told_before_anything_runs(fill, message: str, folder: Path) -> None:
    fill(folder)
    with pytest.raises(InputError, match=message):
        build(External, {"folder": str(folder)}, "external").reads(CLIPS)


def test_no_other_plugin_refers_to_it() -> None:
    with pytest.raises(InputError, match="got 'external', which reads files"):
        build(Ensemble, {"epsilon": 0.1, "attacks": [{"name": "external", "params": {"folder": "x"}}]}, "ensemble")


SUITE = """
name: judging
corpus: demo
protocol: 3pair
folds: [fold1]
models: [tiny]
training: {iterations: 60, batch_size: 16, learning_rate: 2e-3}
defenses: [none]
transcriber: none
noise: false
audit: false
metrics: [uar, accuracy]
samples: 100
attacks:
  - {name: ifgsm, params: {epsilon: 0.004, steps: 5}}
newcomers:
  - {domain: waveform, epsilon: 0.004}
worst:
  - {name: worst-case, epsilon: 0.004}
"""


def accuracy(results: Results) -> dict[str, float]:
    table = results.table
    return dict(table[table["metric"] == "accuracy"].groupby("attack")["value"].mean())


def test_files_of_another_tool_are_judged_by_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "judging.yaml").write_text(SUITE)
    common = ("run", "judging.yaml", "--store", "store")
    done = advser_here(*common, "--out", "before", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    index = pd.DataFrame(json.loads((tmp_path / "before" / "samples" / "index.json").read_text()))
    attacked = index[index["attack"] == "ifgsm"]
    theirs = tmp_path / "theirs"
    for clip, sound in zip(attacked["clip"], attacked["judged"], strict=True):
        place = theirs / f"{clip}.flac"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "before" / "samples" / sound, place)

    done = advser_here(*common, "--external", "theirs", "--out", "after", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = Results.load(tmp_path / "after")
    found = accuracy(after)
    assert found["theirs"] == found["ifgsm"] == accuracy(Results.load(tmp_path / "before"))["ifgsm"] < found["none"]
    assert found["worst-case"] <= found["theirs"]
    assert f"theirs: {len(attacked)} of " in " ".join(after.run["notes"])
    params = set(after.table.loc[after.table["attack"] == "theirs", "params"])
    assert len(params) == 1
    assert "folder" not in params.pop()
    examples = pd.read_parquet(tmp_path / "after" / EXAMPLES_FILE)
    assert set(examples["clip"]) >= set(attacked["clip"])
    with pytest.raises(InputError, match="attack 'theirs', which reads files that a submission does not hold"):
        submit(tmp_path / "after", (), tmp_path / "file.zip")

    shutil.copytree(theirs, tmp_path / "ifgsm")
    done = advser_here(*common, "--external", "ifgsm", cwd=tmp_path)
    assert done.returncode == 2
    assert "--external ifgsm: got the name 'ifgsm', which a row of suite 'judging' has" in done.stderr

    write(theirs / "stranger.wav", np.zeros(SAMPLE_RATE, np.int16))
    done = advser_here(*common, "--external", "theirs", cwd=tmp_path)
    assert done.returncode == 2
    assert "attack 'theirs': theirs/stranger.wav: got the name 'stranger', expected that of a clip" in done.stderr
    assert "Traceback" not in done.stderr
