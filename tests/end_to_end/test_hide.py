"""`advser hide`: recordings of any form are protected, and nothing else of them changes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commandline import ADVSER, advser, advser_here
from places import PUBLISHED

from advser.audio.files import resample
from advser.audio.recordings import BLOCK
from advser.corpora import demo_data
from advser.errors import InputError
from advser.protect.effect import Protected
from advser.protect.hide import hide
from advser.protect.listeners import Party, _refuse_tasks, party
from advser.results.folder import Results
from advser.store.artefacts import Store

SUITE = """
name: heard
corpus: demo
protocol: 3pair
folds: [fold1]
training: {iterations: 250, batch_size: 16, learning_rate: 2e-3, schedule: cosine, fit_on: train+validation}
models: [{name: tiny, params: {frames: 64}}]
defenses: [none, {name: low-pass, params: {cutoff: 6000}}]
attacks: [{name: fgsm, params: {epsilon: 0.001}}]
metrics: [uar]
noise: false
"""
CLIPS = sorted(Path(demo_data.__file__).parent.glob("f1_*.flac"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hide")
    (folder / "heard.yaml").write_text(SUITE)
    done = advser("run", "heard.yaml", "--store", "store", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def listening(place: Path) -> Party:
    return party(Results.load(place / "out"), Store(place / "store"))


def recording(path: Path, rate: int, channels: int, seconds: float, subtype: str | None = None) -> Path:
    """Speech of the demo corpus at some rate, the second channel softer, silence at the end."""
    sound = np.concatenate([resample(soundfile.read(clip, dtype="float32")[0], 16_000, rate) for clip in CLIPS])
    length = round(seconds * rate)
    sound = np.resize(sound, length) * (np.arange(length) < 0.9 * length)
    form, _, kind = (subtype or "").rpartition(" ")
    soundfile.write(
        path, np.stack([sound, 0.5 * sound], 1)[:, :channels], rate, subtype=kind or None, format=form or None
    )
    return path


def hidden(source: Path, into: Path, listening: Party, strength: float = -30) -> Protected:
    return hide(source, into, listening, "mi-fgsm", {}, strength)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("a.wav", 16_000, 1, "PCM_16"),
        ("a.wav", 44_100, 2, "PCM_24"),
        ("a.wav", 8_000, 1, "FLOAT"),
        ("a.wav", 48_000, 2, "WAVEX PCM_24"),
        ("a.wav", 16_000, 1, "RF64 PCM_16"),
        ("a.flac", 48_000, 2, "PCM_16"),
        ("a.ogg", 22_050, 1, "VORBIS"),
        ("a.mp3", 44_100, 2, "MPEG_LAYER_III"),
    ],
)
def test_rate_channels_length_and_encoding_stay(
    name: str, rate: int, channels: int, subtype: str, tmp_path: Path, listening: Party
) -> None:
    source = recording(tmp_path / name, rate, channels, 7.3, subtype)
    told = hidden(source, tmp_path / f"out-{name}", listening)
    before, after = soundfile.info(source), soundfile.info(tmp_path / f"out-{name}")
    assert (after.samplerate, after.channels, after.frames) == (before.samplerate, before.channels, before.frames)
    assert (after.format, after.subtype) == (before.format, before.subtype)
    assert f"{after.format} {after.subtype}".endswith(subtype)
    assert told.seconds == pytest.approx(7.3, abs=0.1)
    assert told.windows == 2
    assert told.changed["tiny / none"] >= 1


def test_another_format_holds_as_much_and_floats_above_full_scale_stay(tmp_path: Path, listening: Party) -> None:
    source = recording(tmp_path / "a.wav", 16_000, 1, 4, "FLOAT")
    sound, rate = soundfile.read(source, dtype="float32")
    sound[100] = 1.7
    soundfile.write(source, sound, rate, subtype="FLOAT")
    hidden(source, tmp_path / "b.wav", listening)
    assert soundfile.read(tmp_path / "b.wav")[0][100] > 1.6
    hidden(source, tmp_path / "b.flac", listening)
    assert soundfile.info(tmp_path / "b.flac").subtype == "PCM_24"


def test_models_of_several_tasks_are_refused_and_one_task_can_be_chosen(listening: Party) -> None:
    (one, *_) = listening.listeners
    with pytest.raises(InputError, match=r"found models of several tasks, .* \(tiny / none\); f, m \(sex\)"):
        _refuse_tasks([one, replace(one, title="sex", classes=("f", "m"))])
    _refuse_tasks([one, one])


def test_the_perturbation_is_as_loud_as_said_the_same_in_each_channel_and_not_in_silence(
    tmp_path: Path, listening: Party
) -> None:
    source = recording(tmp_path / "a.wav", 16_000, 2, 2 * BLOCK + 5, "FLOAT")
    told = hidden(source, tmp_path / "b.wav", listening, -30)
    before, after = (soundfile.read(tmp_path / name, always_2d=True)[0] for name in ("a.wav", "b.wav"))
    delta = after - before
    assert np.allclose(delta[:, 0], delta[:, 1], atol=1e-7)
    silent = np.flatnonzero(np.abs(before).max(1) > 0)[-1] + 1 + 16_000 * 3
    assert not delta[silent:].any()
    assert delta[: BLOCK * 16_000].any()
    assert delta[BLOCK * 16_000 :].any()
    mono = before.mean(1)
    loud = np.sqrt(np.mean(np.square(mono[: 16_000 * 3])))
    assert np.abs(delta[: 16_000 * 3]).max() <= loud * 10 ** (-30 / 20) * 1.01
    # The noise is added to each channel, of which the second is softer.
    assert 25 < told.snr < 45


def test_the_same_seed_gives_the_same_and_stronger_changes_more(tmp_path: Path, listening: Party) -> None:
    source = recording(tmp_path / "a.wav", 16_000, 1, 9)
    told = [hidden(source, tmp_path / f"{number}.wav", listening, strength) for number, strength in
            enumerate((-30, -30, -60))]  # fmt: skip
    assert (tmp_path / "0.wav").read_bytes() == (tmp_path / "1.wav").read_bytes()
    assert told[2].snr > told[0].snr + 20
    assert told[2].measured["PESQ"] > told[0].measured["PESQ"]


def test_a_recording_without_sound_stays_as_it_is(tmp_path: Path, listening: Party) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(40_000), 16_000)
    told = hidden(tmp_path / "a.wav", tmp_path / "b.wav", listening)
    assert told.windows == 0
    assert np.isnan(told.snr)
    assert not soundfile.read(tmp_path / "b.wav")[0].any()


def test_one_of_a_few_milliseconds_too(tmp_path: Path, listening: Party) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(100, 0.5), 16_000)
    assert hidden(tmp_path / "a.wav", tmp_path / "b.wav", listening).windows == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_surrogates_are_the_undefended_models(listening: Party) -> None:
    assert {one.title: one.surrogate for one in listening.listeners} == {"tiny / none": True, "tiny / low-pass": False}


def test_on_the_command_line_answers_change_and_what_is_said_stays(place: Path, tmp_path: Path) -> None:
    shutil.copy(CLIPS[0], tmp_path / "own.flac")
    done = advser("hide", "own.flac", "own.wav", "--run", place / "out", "--store", place / "store", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    none = next(line for line in lines if line.startswith("tiny / none"))
    assert none.endswith("1 of 1")
    assert re.fullmatch(r"read otherwise by [12] of 2 models", lines[-1])
    said = [line.partition(":")[2].strip() for line in lines if line.startswith(("before:", "after:"))]
    if said:
        assert said[0] == said[1] != "(nothing)"
    assert "own.flac" in done.stderr, "a bar tells how far it is"


def test_what_is_not_hidden_is_told_and_ends_with_1(place: Path, tmp_path: Path) -> None:
    shutil.copy(CLIPS[0], tmp_path / "own.flac")
    soundfile.write(tmp_path / "silent.wav", np.zeros(20_000), 16_000)
    given = ("--run", place / "out", "--store", place / "store")
    for words, told in (
        (("silent.wav", "b.wav"), "NOT hidden: the recording is silent"),
        (("own.flac", "b.wav", "--strength", "-120"), "NOT hidden: every model reads it as before"),
    ):
        done = advser_here("hide", *words, *given, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert done.stdout.splitlines()[-1].startswith(told)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["own.txt", "b.wav"], "own.txt: unreadable as audio"),
        (["none.wav", "b.wav"], "none.wav: no such file"),
        (["own.flac", "b.aac"], "b.aac: got the suffix '.aac', expected .wav, .flac, .ogg, .mp3"),
        (["cut.flac", "b.wav"], "cut.flac: unreadable as audio"),
        (["own.flac", "b.wav", "--where", "model=cnn9"], "--where model=cnn9: no cell matches, expected here: "),
        (["own.flac", "own.flac"], "own.flac: got the recording itself"),
        (["own.flac", "b.wav", "--attack", "generator"], "--attack generator: allowed: one on waveforms"),
        (["own.flac", "b.wav", "--attack", "pdg"], "unknown attack 'pdg'; did you mean 'pgd'"),
        (["own.flac", "b.wav", "--param", "steps=0"], "attack 'mi-fgsm': steps"),
        (["own.flac", "b.wav", "--store", "elsewhere"], "got no model of tiny / none, expected the store of the run"),
    ],
)
def test_what_cannot_be_protected_is_told_in_one_line(
    words: list[str], message: str, place: Path, tmp_path: Path
) -> None:
    shutil.copy(CLIPS[0], tmp_path / "own.flac")
    (tmp_path / "own.txt").write_text("no sound")
    data = CLIPS[0].read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    store = [] if "--store" in words else ["--store", place / "store"]
    done = advser_here("hide", *words, "--run", place / "out", *store, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("advser:")
    assert message in line
    assert not list(tmp_path.glob("b.*"))


def test_published_results_have_no_models(tmp_path: Path) -> None:
    published = PUBLISHED / "emodb"
    shutil.copy(CLIPS[0], tmp_path / "own.flac")
    done = advser_here("hide", "own.flac", "b.wav", "--run", published, cwd=tmp_path)
    assert done.returncode == 2
    assert "--run: got no trained model, expected results with examples" in done.stderr


@pytest.mark.hour
def test_an_hour_of_sound_takes_no_more_memory_than_a_minute(place: Path, tmp_path: Path) -> None:
    peaks = []
    for name, seconds in (("minute", 60), ("hour", 3600)):
        recording(tmp_path / f"{name}.wav", 16_000, 1, seconds)
        command = [ADVSER, "hide", f"{name}.wav", f"{name}.flac", "--run", place / "out", "--store", place / "store"]
        measured = [sys.executable, "-c", MEASURED, *map(str, command)]
        done = subprocess.run(measured, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.splitlines()[-1]))
    assert peaks[1] < 2_000_000, "kilobytes"
    assert peaks[1] < 1.2 * peaks[0]


MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""
