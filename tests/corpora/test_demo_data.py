"""The embedded corpus: complete, small, balanced, and learnable but not trivial."""

import importlib.util
import shutil
import sys
from collections import Counter
from itertools import product

import numpy as np
import pytest
import soundfile
from places import ROOT
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from advser.audio.pcm import from_pcm
from advser.corpora.decode import decode
from advser.corpora.demo import DATA, Demo
from advser.corpora.protocols import folds
from advser.errors import InputError


@pytest.fixture(scope="module")
def decoded():
    rows, clips, classes = decode(Demo().read(None))
    return rows, list(clips), classes


def test_every_combination_of_emotion_voice_and_sentence_occurs_once(decoded):
    rows, clips, classes = decoded
    assert classes == ("anger", "happiness", "neutral", "sadness")
    texts = sorted(set(rows["text"]))
    voices = sorted(set(rows["speaker"]))
    assert (len(texts), len(voices), len(clips)) == (6, 6, 144)
    spoken = Counter(zip(rows["label"], rows["speaker"], rows["text"], strict=True))
    assert spoken == Counter(product(classes, voices, texts))
    assert Counter(rows.drop_duplicates("speaker")["gender"]) == {"f": 3, "m": 3}


def test_files_are_16_bit_16_khz_mono_flac_unclipped():
    for path in DATA.glob("*.flac"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype, info.format) == (16000, 1, "PCM_16", "FLAC"), path.name
        assert np.abs(soundfile.read(path)[0]).max() < 0.99, path.name
        assert 0.5 < info.duration < 2.5, path.name


def test_it_is_small_and_has_only_listed_files():
    listed = {path.name for path in Demo().files(None)}
    present = {path.name for path in DATA.iterdir() if path.is_file()}
    assert present - listed == {"README.md", "__init__.py"}
    assert sum(path.stat().st_size for path in DATA.iterdir() if path.is_file()) < 4_000_000


def test_recordings_are_distinct(decoded):
    assert len({clip.tobytes() for clip in decoded[1]}) == len(decoded[1])


def test_the_caveat_states_that_its_numbers_prove_nothing():
    assert "prove nothing" in Demo.caveat
    assert "prove nothing" in (DATA / "README.md").read_text()


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="embedded"):
        Demo().read(tmp_path)


def spectrum(samples):
    frames = np.lib.stride_tricks.sliding_window_view(samples, 512)[::256] * np.hanning(512)
    power = np.abs(np.fft.rfft(frames)) ** 2
    bands = np.log(np.add.reduceat(power[:, 1:], np.arange(0, 256, 8), axis=1) + 1e-4)
    return np.concatenate([bands.mean(0), bands.std(0), [np.log(len(samples))]])


def test_held_out_voices_are_classified_well_but_not_perfectly(decoded):
    rows, clips, _ = decoded
    features = np.stack([spectrum(from_pcm(clip)) for clip in clips])
    targets = rows["target"].to_numpy()
    predicted = np.empty_like(targets)
    for fold in folds("3pair", rows, Demo.speaker_pairs):
        train, test = [*fold.train, *fold.validation], list(fold.test)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        predicted[test] = model.fit(features[train], targets[train]).predict(features[test])
    assert 0.7 <= recall_score(targets, predicted, average="macro") <= 0.97


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_the_renderer_is_deterministic(monkeypatch):
    script = ROOT / "tools" / "render_demo.py"
    if not script.is_file():
        pytest.skip("the renderer is not part of an installed copy")
    spec = importlib.util.spec_from_file_location("render_demo", script)
    renderer = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "render_demo", renderer)
    spec.loader.exec_module(renderer)
    voice, prosody = renderer.VOICES[0], renderer.EMOTIONS["anger"]
    first, second, sad = (
        renderer.speak(voice, "She has left.", how) for how in (prosody, prosody, renderer.EMOTIONS["sadness"])
    )
    assert np.array_equal(first, second)
    assert len(sad) > len(first)
    assert np.abs(sad).max() < np.abs(first).max()
