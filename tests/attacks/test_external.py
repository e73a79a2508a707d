"""Adversarial audio from a folder: its checks, and its use against each victim, never to the victim's advantage."""

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


def attack_with_files(folder: Path, sounds: Tensor, names: tuple[str, ...] = NAMES) -> External:
    for name, sound in zip(names, sounds, strict=True):
        write(folder / f"{name}.wav", to_pcm(sound.numpy()))
    return build(External, {"folder": str(folder)}, "external")


def perturbed_by(model: torch.nn.Module, attack: External, x: Tensor, labels: Tensor, names: tuple[str, ...]) -> Tensor:
    lengths = torch.full((len(x),), x.shape[1])
    with Target(model, lengths, "waveform", attack.access, names=names) as target:
        return attack.perturb(target, x, labels, torch.Generator())


def test_a_file_is_used_only_where_it_misleads_the_victim(folder: Path) -> None:
    model = toys.model(toys.Convolutional, classes=4).eval()
    x, lengths, _ = toys.sounds(12, seed=5)
    others = x.flip(0)
    decided, answers = model(x, lengths).argmax(1), model(others, lengths).argmax(1)
    labels = decided.clone()
    labels[::4] = (labels[::4] + 1) % 4
    perturbed = perturbed_by(model, attack_with_files(folder, others), x, labels, NAMES)
    misled = (decided == labels) & (answers != labels)
    assert 0 < int(misled.sum()) < int((decided == labels).sum()) < 12
    assert torch.equal((perturbed != x).any(1), misled)
    torch.testing.assert_close(perturbed[misled], others[misled], atol=2 / 32768, rtol=0)
    correct = model(perturbed, lengths).argmax(1) == labels
    assert torch.equal(correct, (decided == labels) & ~misled)


def test_a_file_is_projected_to_the_budget_before_its_evaluation(folder: Path) -> None:
    model = toys.model(toys.Convolutional, classes=4).eval()
    x, lengths, _ = toys.sounds(12, seed=5)
    labels = model(x, lengths).argmax(1)
    attack_with_files(folder, x.flip(0))
    wide, narrow = (build(External, {"folder": str(folder), "epsilon": size}, "external") for size in (2.0, 0.0))
    assert not torch.equal(perturbed_by(model, wide, x, labels, NAMES), x)
    assert torch.equal(perturbed_by(model, narrow, x, labels, NAMES), x)


def test_names_of_clips_may_have_a_suffix_and_files_an_upper_case_suffix(folder: Path) -> None:
    model = toys.model(toys.Convolutional, classes=4).eval()
    x, lengths, _ = toys.sounds(2, seed=5)
    names = ("a.wav", "b")
    for name, sound in zip(("a.wav", "b.WAV"), x.flip(0), strict=True):
        write(folder / name, to_pcm(sound.numpy()))
    attack = build(External, {"folder": str(folder)}, "external")
    assert attack.reads(dict.fromkeys(names, toys.SAMPLES)).note.startswith("2 of 2 clips have a file")
    labels = model(x, lengths).argmax(1)
    misled = model(x.flip(0), lengths).argmax(1) != labels
    assert torch.equal((perturbed_by(model, attack, x, labels, names) != x).any(1), misled)


def test_clips_without_a_file_stay_clean(folder: Path) -> None:
    model = toys.model(toys.Convolutional, classes=4).eval()
    x, lengths, _ = toys.sounds(12, seed=5)
    labels = model(x, lengths).argmax(1)
    attack = attack_with_files(folder, x.flip(0)[:6], NAMES[:6])
    assert torch.equal(perturbed_by(model, attack, x, labels, NAMES)[6:], x[6:])
    assert torch.equal(perturbed_by(model, attack, x, labels, ()), x)
    assert attack.reads(CLIPS).note.startswith("6 of 12 clips have a file")


def test_a_target_of_some_clips_has_the_names_of_these_clips() -> None:
    model = toys.model(toys.Convolutional)
    target = Target(model, torch.full((3,), 8), "waveform", names=("a", "b", "c"))
    assert target.at(torch.tensor([2, 0, 2])).names == ("c", "a", "c")


def test_the_digest_depends_on_the_contents_of_the_files_and_not_on_their_folder(folder: Path, tmp_path: Path) -> None:
    x, _, _ = toys.sounds(12, seed=5)
    digest = attack_with_files(folder, x).reads(CLIPS).digest
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert build(External, {"folder": str(moved)}, "external").reads(CLIPS).digest == digest
    assert attack_with_files(moved, x.flip(0)).reads(CLIPS).digest != digest


def no_audio_files(folder: Path) -> None:
    (folder / "notes.txt").write_text("no sound")


def unknown_name(folder: Path) -> None:
    write(folder / "clip77.wav", np.zeros(toys.SAMPLES, np.int16))


def two_formats(folder: Path) -> None:
    write(folder / "clip0.wav", np.zeros(toys.SAMPLES, np.int16))
    write(folder / "clip0.flac", np.zeros(toys.SAMPLES, np.int16))


def short_file(folder: Path) -> None:
    write(folder / "clip0.wav", np.zeros(toys.SAMPLES - 1, np.int16))


def other_rate(folder: Path) -> None:
    write(folder / "clip0.wav", np.zeros(toys.SAMPLES, np.int16), 8000)


def stereo(folder: Path) -> None:
    write(folder / "clip0.wav", np.zeros((toys.SAMPLES, 2), np.int16))


def not_finite(folder: Path) -> None:
    sound = np.zeros(toys.SAMPLES, np.float32)
    sound[3] = np.nan
    soundfile.write(folder / "clip0.wav", sound, SAMPLE_RATE, subtype="FLOAT")


def unreadable(folder: Path) -> None:
    (folder / "clip0.wav").write_text("no sound")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda folder: folder.rmdir(), "got no folder '.*', expected a folder with .wav or .flac files"),
        (not_finite, "clip0.wav: 1 samples are not finite numbers"),
        (no_audio_files, "got no audio files in .*, expected .wav or .flac files"),
        (
            unknown_name,
            "clip77.wav: got the name 'clip77', expected one file per clip, with a clip's name such as 'clip0'",
        ),
        (
            two_formats,
            "clip0.wav: got the name 'clip0', expected one file per clip, with a clip's name such as 'clip1'",
        ),
        (short_file, f"clip0.wav: got {toys.SAMPLES - 1} samples at 16000 Hz .* expected .*{toys.SAMPLES} samples"),
        (other_rate, "got .* at 8000 Hz"),
        (stereo, r"2 channel\(s\), expected .*1 channel"),
        (unreadable, "clip0.wav: unreadable as audio"),
    ],
)
def test_unusable_files_are_reported_before_a_run(fill, message: str, folder: Path) -> None:
    fill(folder)
    with pytest.raises(InputError, match=message):
        build(External, {"folder": str(folder)}, "external").reads(CLIPS)


def test_no_other_plugin_can_refer_to_external_files() -> None:
    with pytest.raises(InputError, match="got 'external', which reads files"):
        build(Ensemble, {"epsilon": 0.1, "attacks": [{"name": "external", "params": {"folder": "x"}}]}, "ensemble")


SUITE = """
name: judging
corpus: demo
protocol: loso
folds: [f1]
classes: [anger, sadness]
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


def test_the_command_line_evaluates_files_of_another_tool(tmp_path: Path) -> None:
    (tmp_path / "judging.yaml").write_text(SUITE)
    common = ("run", "judging.yaml", "--store", "store")
    done = advser_here(*common, "--out", "before", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    index = pd.DataFrame(json.loads((tmp_path / "before" / "samples" / "index.json").read_text()))
    attacked = index[index["attack"] == "ifgsm"]
    theirs = tmp_path / "theirs"
    for clip, sound in zip(attacked["clip"], attacked["judged"], strict=True):
        file = theirs / f"{clip}.flac"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "before" / "samples" / sound, file)

    done = advser_here(*common, "--external", "theirs", "--out", "after", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = Results.load(tmp_path / "after")
    accuracies, before = accuracy(after), accuracy(Results.load(tmp_path / "before"))
    assert accuracies["theirs"] == accuracies["ifgsm"] == before["ifgsm"] < accuracies["none"]
    assert accuracies["worst-case"] <= accuracies["theirs"]
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
    assert "--external ifgsm: got the name 'ifgsm', which is a row of suite 'judging'" in done.stderr

    write(theirs / "stranger.wav", np.zeros(SAMPLE_RATE, np.int16))
    done = advser_here(*common, "--external", "theirs", cwd=tmp_path)
    assert done.returncode == 2
    assert "attack 'theirs': theirs/stranger.wav: got the name 'stranger', expected one file per clip" in done.stderr
    assert "Traceback" not in done.stderr
