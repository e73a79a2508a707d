"""`advser hide`: recordings of any format are protected, and nothing else about them changes."""

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
from advser.protect.effect import Effect
from advser.protect.hide import Perturbation, hide
from advser.protect.listeners import Listeners, _refuse_tasks, load_listeners
from advser.results.folder import Results
from advser.store.artefacts import Store

SUITE = """
name: listeners
corpus: demo
protocol: 3pair
folds: [fold1]
training: {iterations: 250, batch_size: 16, learning_rate: 2e-3, schedule: cosine, fit_on: train+validation}
models: [{name: tiny, params: {frames: 64}}]
defenses: [none, {name: low-pass, params: {cutoff: 6000}}]
attacks: [{name: fgsm, params: {epsilon: 0.001}}]
metrics: [uar]
noise: false
audit: false
"""
CLIPS = sorted(Path(demo_data.__file__).parent.glob("f1_*.flac"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hide")
    (folder / "suite.yaml").write_text(SUITE)
    done = advser_here("run", "suite.yaml", "--store", "store", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def listeners(place: Path) -> Listeners:
    return load_listeners(Results.load(place / "out"), Store(place / "store"))


def recording(path: Path, rate: int, channels: int, seconds: float, subtype: str | None = None) -> Path:
    """Speech of the demo corpus: the second channel is softer, the last tenth is silent."""
    sound = np.concatenate([resample(soundfile.read(clip, dtype="float32")[0], 16_000, rate) for clip in CLIPS])
    length = round(seconds * rate)
    sound = np.resize(sound, length) * (np.arange(length) < 0.9 * length)
    form, _, kind = (subtype or "").rpartition(" ")
    soundfile.write(
        path, np.stack([sound, 0.5 * sound], 1)[:, :channels], rate, subtype=kind or None, format=form or None
    )
    return path


def protect(source: Path, into: Path, listeners: Listeners, strength: float = -30) -> Effect:
    return hide(source, into, listeners, Perturbation("mi-fgsm", {"steps": 3}, strength))


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("a.wav", 16_000, 1, "PCM_16"),
        ("a.wav", 44_100, 2, "PCM_24"),
        ("a.wav", 8_000, 1, "FLOAT"),
        ("a.wav", 48_000, 2, "WAVEX PCM_24"),
        ("a.wav", 16_000, 1, "RF64 PCM_16"),
        ("a.wav", 8_000, 1, "GSM610"),
        ("a.wav", 11_127, 1, "PCM_16"),
        ("a.flac", 48_000, 2, "PCM_16"),
        ("a.ogg", 22_050, 1, "VORBIS"),
        ("a.mp3", 44_100, 2, "MPEG_LAYER_III"),
    ],
)
def test_rate_channels_length_and_encoding_stay(
    name: str, rate: int, channels: int, subtype: str, tmp_path: Path, listeners: Listeners
) -> None:
    source = recording(tmp_path / name, rate, channels, 7.3, subtype)
    effect = protect(source, tmp_path / f"out-{name}", listeners)
    before, after = soundfile.info(source), soundfile.info(tmp_path / f"out-{name}")
    assert (after.samplerate, after.channels, after.frames) == (before.samplerate, before.channels, before.frames)
    assert (after.format, after.subtype) == (before.format, before.subtype)
    assert f"{after.format} {after.subtype}".endswith(subtype)
    assert effect.seconds == pytest.approx(7.3, abs=0.1)
    assert effect.windows == 2
    assert effect.changed["tiny / none"] >= 1


def test_another_format_has_no_less_precision_and_floats_above_full_scale_stay(
    tmp_path: Path, listeners: Listeners
) -> None:
    source = recording(tmp_path / "a.wav", 16_000, 1, 4, "FLOAT")
    sound, rate = soundfile.read(source, dtype="float32")
    sound[100] = 1.7
    soundfile.write(source, sound, rate, subtype="FLOAT")
    protect(source, tmp_path / "b.wav", listeners)
    assert soundfile.read(tmp_path / "b.wav")[0][100] > 1.6
    protect(source, tmp_path / "b.flac", listeners)
    assert soundfile.info(tmp_path / "b.flac").subtype == "PCM_24"


def test_models_of_several_tasks_are_refused_and_one_task_can_be_chosen(listeners: Listeners) -> None:
    (listener, *_) = listeners.models
    with pytest.raises(InputError, match=r"got models of several tasks, .* \(tiny / none\); f, m \(sex\)"):
        _refuse_tasks([listener, replace(listener, title="sex", classes=("f", "m"))])
    _refuse_tasks([listener, listener])


def test_the_perturbation_has_the_given_level_in_each_channel_and_spares_silence(
    tmp_path: Path, listeners: Listeners
) -> None:
    source = recording(tmp_path / "a.wav", 16_000, 2, 2 * BLOCK + 5, "FLOAT")
    effect = protect(source, tmp_path / "b.wav", listeners, -30)
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
    # The perturbation is the same in each channel, but the second channel is softer.
    assert 25 < effect.snr < 45


def test_the_same_seed_gives_the_same_file_and_more_strength_changes_more(tmp_path: Path, listeners: Listeners) -> None:
    source = recording(tmp_path / "a.wav", 16_000, 1, 9)
    effects = [protect(source, tmp_path / f"{number}.wav", listeners, strength) for number, strength in
            enumerate((-30, -30, -60))]  # fmt: skip
    assert (tmp_path / "0.wav").read_bytes() == (tmp_path / "1.wav").read_bytes()
    assert effects[2].snr > effects[0].snr + 20
    assert effects[2].measured["PESQ"] > effects[0].measured["PESQ"]


def test_a_recording_without_sound_stays_as_it_is(tmp_path: Path, listeners: Listeners) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(40_000), 16_000)
    effect = protect(tmp_path / "a.wav", tmp_path / "b.wav", listeners)
    assert effect.windows == 0
    assert np.isnan(effect.snr)
    assert not soundfile.read(tmp_path / "b.wav")[0].any()


def test_a_recording_of_a_few_milliseconds_stays_as_it_is(tmp_path: Path, listeners: Listeners) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(100, 0.5), 16_000)
    assert protect(tmp_path / "a.wav", tmp_path / "b.wav", listeners).windows == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_surrogates_are_the_undefended_models(listeners: Listeners) -> None:
    assert {listener.title: listener.surrogate for listener in listeners.models} == {
        "tiny / none": True,
        "tiny / low-pass": False,
    }


def test_on_the_command_line_answers_change_and_transcripts_stay(place: Path, tmp_path: Path) -> None:
    shutil.copy(CLIPS[0], tmp_path / "own.flac")
    done = advser("hide", "own.flac", "own.wav", "--run", place / "out", "--store", place / "store", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    none = next(line for line in lines if line.startswith("tiny / none"))
    assert none.endswith("1 of 1")
    assert re.fullmatch(r"classified differently by [12] of 2 models", lines[-1])
    transcripts = [line.partition(":")[2].strip() for line in lines if line.startswith(("before:", "after:"))]
    if transcripts:
        assert transcripts[0] == transcripts[1] != "(nothing)"
    assert "own.flac" in done.stderr, "a progress bar"


def test_a_recording_that_is_not_hidden_is_reported_and_ends_with_1(place: Path, tmp_path: Path) -> None:
    shutil.copy(CLIPS[0], tmp_path / "own.flac")
    soundfile.write(tmp_path / "silent.wav", np.zeros(20_000), 16_000)
    given = ("--run", place / "out", "--store", place / "store")
    for words, verdict in (
        (("silent.wav", "b.wav"), "NOT hidden: the recording is silent"),
        (("own.flac", "b.wav", "--strength", "-120"), "NOT hidden: every model classifies it as before"),
    ):
        done = advser_here("hide", *words, *given, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert done.stdout.splitlines()[-1].startswith(verdict)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["own.txt", "b.wav"], "own.txt: unreadable as audio"),
        (["none.wav", "b.wav"], "none.wav: no such file"),
        (["own.flac", "b.aac"], "b.aac: got the suffix '.aac', expected .wav, .flac, .ogg, .mp3"),
        (["cut.flac", "b.wav"], "cut.flac: unreadable as audio"),
        (["own.flac", "b.wav", "--where", "model=cnn9"], "--where model=cnn9: no cell matches, expected here: "),
        (["own.flac", "own.flac"], "own.flac: got the recording itself"),
        (
            ["own.flac", "b.wav", "--attack", "generator"],
            "--attack generator: got an attack that cannot be used here, expected an attack on waveforms",
        ),
        (["own.flac", "b.wav", "--attack", "pdg"], "unknown attack 'pdg'; did you mean 'pgd'"),
        (["own.flac", "b.wav", "--param", "steps=0"], "attack 'mi-fgsm': steps"),
        (["own.flac", "b.wav", "--store", "elsewhere"], "got no model of tiny / none, expected the store of the run"),
    ],
)
def test_unusable_input_is_reported_in_one_line(words: list[str], message: str, place: Path, tmp_path: Path) -> None:
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


def damaged(path: Path, kind: str) -> Path:
    recording(path, 16_000, 2 if kind == "phase" else 1, 4, "FLOAT" if kind == "scale" else None)
    sound, rate = soundfile.read(path, dtype="float32")
    if kind == "phase":
        soundfile.write(path, np.stack([sound[:, 0], -sound[:, 0]], 1), rate)
    elif kind == "scale":
        soundfile.write(path, sound * 32_768, rate, subtype="FLOAT")
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    return path


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("a.mp3", "cut", "samples its header promises"),
        ("a.wav", "cut", "bytes its header promises"),
        ("a.flac", "cut", "unreadable as audio"),
        ("a.wav", "phase", "got channels that cancel"),
        ("a.wav", "scale", "as in the scale of integers"),
    ],
)
def test_a_damaged_recording_ends_the_same_way_each_time_and_leaves_nothing(
    name: str, kind: str, message: str, place: Path, tmp_path: Path
) -> None:
    source = damaged(tmp_path / name, kind)
    given = ("--run", place / "out", "--store", place / "store")
    ends = [advser_here("hide", name, "out.wav", *given, cwd=tmp_path) for _ in range(2)]
    for end in ends:
        assert end.returncode == 2
        assert message in end.stderr
        assert "Traceback" not in end.stderr
    assert list(tmp_path.iterdir()) == [source]


def test_an_error_while_the_effect_is_measured_leaves_nothing(
    tmp_path: Path, listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Effect:
        raise InputError("got a fault, expected none")

    source = recording(tmp_path / "a.wav", 16_000, 1, 1)
    monkeypatch.setattr("advser.protect.hide.measure_effect", refuse)
    with pytest.raises(InputError, match="got a fault"):
        protect(source, tmp_path / "b.wav", listeners)
    assert list(tmp_path.iterdir()) == [source]


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
