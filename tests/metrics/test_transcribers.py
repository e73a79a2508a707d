"""Real speech recognisers: PocketSphinx on speech, faster-whisper on a random model, and their choice."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import DEMO
from recognisers import save_whisper

from advser.audio.files import read
from advser.audio.pcm import Pcm, to_pcm
from advser.errors import InputError, NotApplicableError
from advser.metrics.transcribers.bigram import arpa, draw_distractors
from advser.metrics.transcribers.choice import choose
from advser.metrics.transcribers.sphinx import DIRECTORY_VARIABLE, PocketSphinx
from advser.metrics.transcribers.whisper import FasterWhisper
from advser.metrics.transcription import count_errors
from advser.plugins.parameters import build, validated

GERMAN = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the machine's acoustic models and cached weights."""
    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def english() -> tuple[list[Pcm], list[str]]:
    """Return clips of the demo corpus and their texts."""
    with (DEMO / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "neutral"][::2]
    return [to_pcm(read(DEMO / row["file"], row["file"])[0]) for row in rows], [row["text"] for row in rows]


def word_error_rate(references: list[str], transcripts: list[str], language: str) -> float:
    counts = [count_errors(*pair, language) for pair in zip(references, transcripts, strict=True)]
    return sum(count.word_errors for count in counts) / sum(count.words for count in counts)


def noisy(clip: Pcm, snr: float) -> Pcm:
    sound = clip / 32768
    noise = np.random.default_rng(0).standard_normal(len(sound))
    return to_pcm(0.5 * (sound + noise * np.sqrt(np.mean(sound**2) / np.mean(noise**2) / 10 ** (snr / 10))))


# The language model


def probabilities(text: str) -> tuple[dict[str, float], dict[str, float], dict[tuple[str, str], float]]:
    """Return the unigrams, back-off weights and bigrams of an ARPA file as probabilities."""
    unigrams, back_off, bigrams = {}, {}, {}
    for line in text.splitlines():
        if re.match(r"-?\d", line):
            fields = line.split()
            if len(fields) == 3 and "2-grams" in text[: text.index(line)]:
                bigrams[fields[1], fields[2]] = 10 ** float(fields[0])
            else:
                unigrams[fields[1]] = 10 ** float(fields[0])
                back_off[fields[1]] = 10 ** float(fields[2]) if len(fields) == 3 else 1.0
    return unigrams, back_off, bigrams


letters = st.text("abcdef", min_size=1, max_size=2)


@given(
    sentences=st.lists(st.lists(letters, min_size=1, max_size=5), min_size=1, max_size=5),
    others=st.sets(letters, max_size=10),
    weight=st.floats(0.05, 0.95),
)
def test_after_every_word_the_probabilities_add_up_to_one(sentences, others, weight):
    vocabulary = {word for words in sentences for word in words} | others
    unigrams, back_off, bigrams = probabilities(arpa(sentences, vocabulary, weight))
    following = vocabulary | {"</s>"}
    for history in vocabulary | {"<s>"}:
        total = sum(bigrams.get((history, word), back_off[history] * unigrams[word]) for word in following)
        assert total == pytest.approx(1, abs=1e-4)


def test_bigram_is_mixed_with_the_uniform_unigram():
    _, _, bigrams = probabilities(arpa([["a", "b"], ["a", "c"]], ["a", "b", "c", "d"], 0.8))
    assert bigrams["a", "b"] == pytest.approx(0.8 / 2 + 0.2 / 5, rel=1e-5)
    assert bigrams["<s>", "a"] == pytest.approx(0.8 + 0.2 / 5, rel=1e-5)


@given(words=st.sets(st.text("abcä'1", min_size=1, max_size=5), max_size=40), number=st.integers(0, 10))
def test_distractors_are_plain_unspoken_words(words, number):
    exclude = set(sorted(words)[::2])
    drawn = draw_distractors(words, exclude, number)
    assert drawn == draw_distractors(sorted(words, reverse=True), exclude, number)
    assert len(set(drawn)) == len(drawn) <= number
    assert not set(drawn) & exclude
    assert all(re.fullmatch("[a-z]{3,}", word) for word in drawn)


# PocketSphinx


def test_english_works_at_once_and_has_more_errors_in_noise(english):
    clips, texts = english
    engine = PocketSphinx()
    assert engine.unavailable("en") is None
    assert engine.closed_text
    clean = word_error_rate(texts, list(engine.transcribe(clips, "en", sorted(set(texts)))), "en")
    transcripts = list(engine.transcribe([noisy(clip, 0) for clip in clips], "en", sorted(set(texts))))
    assert clean < 0.35
    assert word_error_rate(texts, transcripts, "en") > clean + 0.2


def test_a_transcript_depends_on_the_clip_alone(english):
    clips, texts = english
    sentences = sorted(set(texts))
    engine = PocketSphinx()
    some = [noisy(clip, 15) for clip in clips[:6]]
    forward = list(engine.transcribe(some, "en", sentences))
    assert list(engine.transcribe(some[::-1], "en", sentences[::-1])) == forward[::-1]
    louder = [(clip // 2 * 2).astype(np.int16) for clip in some]
    quieter = [clip // 2 for clip in louder]
    assert list(engine.transcribe(quieter, "en", sentences)) == list(engine.transcribe(louder, "en", sentences))


@pytest.mark.parametrize("samples", [1, 300, 16000])
def test_silence_and_very_short_clips_are_transcribed(samples):
    (text,) = PocketSphinx().transcribe([np.zeros(samples, np.int16)], "en", ["He came home last night."])
    assert isinstance(text, str)


def test_a_word_without_pronunciation_is_named():
    with pytest.raises(NotApplicableError, match=r"cmudict-en-us\.dict lacks words of the corpus: grzlbrmpf"):
        list(PocketSphinx().transcribe([], "en", ["He grzlbrmpf home."]))


def test_a_corpus_without_text_is_refused():
    with pytest.raises(NotApplicableError, match="no sentence"):
        PocketSphinx().transcribe([], "en", ["", "…"])


def test_a_language_without_a_model_is_reported_with_the_folder(tmp_path):
    assert f"${DIRECTORY_VARIABLE} name no folder with acoustic/ and de.dict" in PocketSphinx().unavailable("de")
    engine = PocketSphinx(model_dir=str(tmp_path))
    assert f"{tmp_path} holds no folder" in engine.unavailable("de")
    assert engine.unavailable("en") is None
    with pytest.raises(InputError, match="no acoustic model of 'de'"):
        engine.transcribe([], "de", ["Das will sie."])


def test_the_parameters_record_the_folder_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    assert validated(PocketSphinx, {}, "transcriber")["model_dir"] == str(tmp_path)
    assert build(PocketSphinx, {"model_dir": "given"}, "transcriber").model_dir == "given"


@pytest.mark.parametrize("params", [{"distractors": -1}, {"weight": 1.0}, {"beams": 3}, {"model_dir": 3}])
def test_bad_parameters_are_named(params):
    with pytest.raises(InputError, match=next(iter(params))):
        build(PocketSphinx, params, "transcriber 'pocketsphinx'")


@pytest.mark.data
def test_german_models_are_selected_by_language(german_sphinx):
    for directory in (german_sphinx, german_sphinx.parent):
        engine = PocketSphinx(model_dir=str(directory))
        assert engine.unavailable("de") is None
        assert "no acoustic model of 'it'" in engine.unavailable("it")


@pytest.mark.data
def test_german_error_rate_is_low_when_clean_and_grows_with_noise(emodb_directory, german_sphinx):
    files = sorted((emodb_directory / "wav").glob("*.wav"))[::36]
    clips = [to_pcm(read(file, file.name)[0]) for file in files]
    texts = [GERMAN[file.name[2:5]] for file in files]
    engine = PocketSphinx(model_dir=str(german_sphinx))
    rates = [
        word_error_rate(texts, list(engine.transcribe(judged, "de", list(GERMAN.values()))), "de")
        for judged in (clips, [noisy(clip, 10) for clip in clips], [noisy(clip, 0) for clip in clips])
    ]
    assert rates[0] < 0.13
    assert all(noisier > cleaner + 0.15 for cleaner, noisier in pairwise(rates))


# faster-whisper


@pytest.fixture(scope="session")
def random_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="transformers writes the random Whisper model")
    return save_whisper(tmp_path_factory.mktemp("whisper"))


def test_whisper_transcribes_from_a_local_folder(random_whisper, english):
    engine = FasterWhisper(model=str(random_whisper), device="cpu", beam=1)
    assert not engine.closed_text
    assert engine.unavailable("de") is None
    clips = english[0][:2]
    texts = list(engine.transcribe(clips, "de", ["ignored"]))
    assert len(texts) == 2
    assert all(text == text.strip() for text in texts)
    assert any(texts)
    assert list(engine.transcribe(clips[::-1], "de", [])) == texts[::-1]


def test_whisper_without_weights_is_unavailable_and_uses_no_network():
    reason = FasterWhisper(model="base").unavailable("en")
    assert reason is not None
    assert "cache of weights lacks model.bin" in reason
    with pytest.raises(InputError, match="cache of weights"):
        FasterWhisper(model="base").transcribe([], "en", [])
    assert FasterWhisper(model="base", download=True).unavailable("en") is None


@pytest.mark.parametrize(
    ("model", "language", "reason"),
    [
        ("base", "xx", "no language 'xx'"),
        ("base.en", "de", "transcribes only English"),
        ("gigantic", "de", "'gigantic'.*expected one of"),
    ],
)
def test_whisper_gives_the_reason_for_being_unavailable(model, language, reason):
    for download in (False, True):
        assert re.search(reason, str(FasterWhisper(model=model, download=download).unavailable(language)))


@pytest.mark.parametrize("file", ["model.bin", "tokenizer.json"])
def test_whisper_names_a_missing_file_of_a_folder(random_whisper, tmp_path, file):
    folder = Path(shutil.copytree(random_whisper, tmp_path / "copy"))
    (folder / file).unlink()
    assert str(FasterWhisper(model=str(folder)).unavailable("en")).endswith(f"lacks {file}")


def test_whisper_names_a_model_that_cannot_be_loaded(random_whisper, tmp_path):
    folder = Path(shutil.copytree(random_whisper, tmp_path / "copy"))
    (folder / "model.bin").write_bytes(b"not a model")
    with pytest.raises(InputError, match="cannot be loaded on cpu"):
        list(FasterWhisper(model=str(folder), device="cpu").transcribe([], "en", []))


# The choice


def test_choice_falls_back_and_gives_the_reason():
    chosen = choose("en")
    assert (chosen.name, type(chosen.transcriber)) == ("pocketsphinx", PocketSphinx)
    assert "Whisper model 'base'" in chosen.reason


def test_no_recogniser_serves_a_language_without_models():
    chosen = choose("de")
    assert chosen.transcriber is None
    assert chosen.name == "none"
    assert "Whisper" in chosen.reason
    assert "pocketsphinx" in chosen.reason


@pytest.mark.data
def test_choice_follows_the_environment(german_sphinx, monkeypatch):
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(german_sphinx.parent))
    chosen = choose("de")
    assert chosen.transcriber is not None
    assert chosen.transcriber.model_dump()["model_dir"] == str(german_sphinx.parent)


def test_cached_weights_are_preferred(random_whisper, tmp_path):
    repository = tmp_path / "cache" / "models--Systran--faster-whisper-base"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    shutil.copytree(random_whisper, repository / "snapshots" / ("0" * 40))
    chosen = choose("en")
    assert (chosen.name, chosen.reason) == ("faster-whisper", "")


def test_importing_the_plugins_imports_no_engine():
    code = "import sys, advser.metrics.transcribers.choice, advser.metrics.transcribers.sphinx; " \
           "import advser.metrics.transcribers.whisper; " \
           "print({'faster_whisper', 'pocketsphinx', 'ctranslate2'} & set(sys.modules))"  # fmt: skip
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "set()"
