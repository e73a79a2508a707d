"""Corpus loaders, decoding, and the refusal of unusable files by name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from advser.audio.clips import Clips
from advser.audio.pcm import SAMPLE_RATE, from_pcm
from advser.corpora import decode as decoding
from advser.corpora.base import COLUMNS, Corpus
from advser.corpora.decode import task_classes
from advser.corpora.emodb import CLIPS, TEXTS, EmoDB
from advser.corpora.folder import Folder
from advser.corpora.protocols import folds
from advser.errors import InputError
from advser.plugins.parameters import build
from advser.plugins.registries import CORPORA

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / SAMPLE_RATE)


def write_folder(directory: Path, table: str, *files: str) -> Path:
    (directory / "metadata.csv").write_text(table, encoding="utf-8")
    for file in files:
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(directory / file, TONE, SAMPLE_RATE)
    return directory


def two_clips(directory: Path) -> Path:
    return write_folder(directory, "file,label\na.wav,glad\nb.wav,sad\n", "a.wav", "b.wav")


def decode(*arguments, **keywords):
    rows, clips, classes = decoding.decode(*arguments, **keywords)
    return rows, Clips.pack(clips), classes


def refused(action, *fragments: str) -> None:
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize("name", list(CORPORA))
def test_every_corpus_describes_itself(name):
    corpus = build(CORPORA.get(name), {}, name)
    assert isinstance(corpus, Corpus)
    assert corpus.title
    assert corpus.licence
    assert len(corpus.language) == 2
    assert corpus.findings(None) == () if name == "demo" else True
    assert corpus.citation or name in ("folder", "hub")


@pytest.mark.parametrize("name", [name for name in CORPORA if name != "demo"])
def test_a_missing_directory_is_refused_with_the_corpus_and_its_source(name, tmp_path):
    corpus = build(CORPORA.get(name), {}, name)
    for action in (corpus.read, corpus.files, corpus.digest):
        refused(lambda action=action: action(None), f"--data {name}=DIR", corpus.source)
    refused(lambda: corpus.read(tmp_path / "absent"), name, "absent", "got no folder")
    refused(lambda: corpus.read(tmp_path), str(tmp_path))
    assert corpus.source or name == "folder"


@pytest.mark.parametrize("name", [name for name in CORPORA if name != "emodb"])
def test_only_free_corpora_are_downloaded(name):
    assert build(CORPORA.get(name), {}, name).fetch() is None


def test_the_language_of_a_one_language_corpus_is_fixed():
    refused(lambda: build(EmoDB, {"language": "en"}, "corpus 'emodb'"), "emodb", "language")


class TestFolder:
    def test_rows_keep_their_order_and_values(self, tmp_path):
        table = 'label,file,gender,text,speaker\nsad,sub/b.wav,f,"Well, no.",s1\nNA,a.wav,,,\n'
        dataset = Folder().read(write_folder(tmp_path, "\ufeff" + table, "a.wav", "sub/b.wav"))
        assert tuple(dataset.column_names) == COLUMNS
        rows = dataset.remove_columns("audio").to_pandas().to_dict("records")
        assert rows == [
            {"clip": "sub/b.wav", "speaker": "s1", "gender": "f", "text": "Well, no.", "label": "sad", "split": ""},
            {"clip": "a.wav", "speaker": "", "gender": "", "text": "", "label": "NA", "split": ""},
        ]
        assert [Path(audio["path"]).name for audio in dataset["audio"]] == ["b.wav", "a.wav"]

    @pytest.mark.parametrize(
        ("table", "fragments"),
        [
            ("", ["'file' is missing", "'label' is missing"]),
            ("file,label\n", ["got no rows"]),
            ("file,speaker\na.wav,s\n", ["'label' is missing"]),
            ("file,label,age\na.wav,x,3\n", ["'age' is unknown", "speaker, text, gender"]),
            ("file,label,label\na.wav,x,y\n", ["'label' occurs twice"]),
            ("file,label\na.wav\n", ["line 2", "got 1 values", "expected 2"]),
            ("file,label\na.wav,\n", ["line 2", "got an empty label"]),
            ("file,label\n,x\n", ["line 2", "got an empty file"]),
            ("file,label,gender\na.wav,x,w\n", ["line 2", "gender 'w'", "f, m"]),
            ("file,label\na.wav,x\n./a.wav,y\n", ["line 3", "of line 2 again"]),
            ("file,label\n../a.wav,x\n", ["line 2", "'../a.wav'", "outside"]),
            ("file,label\n/etc/hostname,x\n", ["line 2", "outside"]),
            ("file,label\na.wav,x\nb.wav,y\nc.wav,y\n", ["got 2 of 3 files that do not exist", "b.wav; c.wav"]),
            ('file,label\n"a.wav,x\n', ["expected readable"]),
        ],
    )
    def test_a_wrong_table_is_refused(self, tmp_path, table, fragments):
        write_folder(tmp_path, table, "a.wav")
        refused(lambda: Folder().read(tmp_path), "metadata.csv", *fragments)

    def test_the_table_may_hold_an_official_split(self, tmp_path):
        write_folder(tmp_path, "file,label,split\na.wav,x,train\nb.wav,y,dev\n", "a.wav", "b.wav")
        assert list(Folder().read(tmp_path)["split"]) == ["train", "dev"]

    def test_a_missing_table_is_refused(self, tmp_path):
        refused(lambda: Folder().read(tmp_path), "metadata.csv", "got no such file", "file, label")

    def test_a_table_that_is_not_utf8_is_refused(self, tmp_path):
        (tmp_path / "metadata.csv").write_bytes("file,label\nä.wav,x\n".encode("latin-1"))
        refused(lambda: Folder().read(tmp_path), "metadata.csv", "UTF-8")

    def test_a_link_out_of_the_folder_is_refused(self, tmp_path):
        soundfile.write(tmp_path / "outside.wav", TONE, SAMPLE_RATE)
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.wav").symlink_to(tmp_path / "outside.wav")
        write_folder(tmp_path / "in", "file,label\na.wav,x\n")
        refused(lambda: Folder().read(tmp_path / "in"), "outside")

    def test_a_label_outside_the_allowed_list_is_refused(self, tmp_path):
        corpus = build(Folder, {"labels": ["glad", "calm"]}, "folder")
        refused(lambda: corpus.read(two_clips(tmp_path)), "line 3", "label 'sad'", "glad, calm")

    def test_the_digest_depends_on_table_and_sound(self, tmp_path):
        first = Folder().digest(two_clips(tmp_path))
        assert Folder().digest(tmp_path) == first
        soundfile.write(tmp_path / "a.wav", TONE[:-1], SAMPLE_RATE)
        second = Folder().digest(tmp_path)
        write_folder(tmp_path, "file,label\na.wav,glad\nb.wav,angry\n")
        assert len({first, second, Folder().digest(tmp_path)}) == 3


class TestDecode:
    def test_44_khz_stereo_is_averaged_and_resampled(self, tmp_path):
        two_clips(tmp_path)
        time = np.arange(44100) / 44100
        left = 0.6 * np.sin(2 * np.pi * 440 * time)
        soundfile.write(tmp_path / "a.wav", np.stack([left, np.zeros_like(left)], 1), 44100)
        _, clips, _ = decode(Folder().read(tmp_path))
        assert clips.lengths.tolist() == [16000, 8000]
        expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
        assert np.abs(from_pcm(clips[0]) - expected)[200:-200].max() < 1e-3

    def test_16_khz_mono_is_returned_as_stored(self, tmp_path):
        _, clips, _ = decode(Folder().read(two_clips(tmp_path)))
        assert np.array_equal(clips[0], soundfile.read(tmp_path / "a.wav", dtype="int16")[0])

    def test_embedded_bytes_are_read(self, tmp_path):
        dataset = Folder().read(two_clips(tmp_path))
        embedded = dataset.map(lambda row: {"audio": {"bytes": Path(row["audio"]["path"]).read_bytes(), "path": "x"}})
        assert np.array_equal(decode(embedded)[1].packed(), decode(dataset)[1].packed())

    @pytest.mark.parametrize(
        ("samples", "reason"),
        [
            (np.zeros(0), "empty"),
            (np.zeros(8000), "silent"),
            (np.full(8000, 1e-6), "silent"),
            (TONE[:1599], "too short (0.100 s), expected at least 0.1 s"),
            (np.where(np.arange(8000) == 5, np.nan, TONE), "not finite"),
        ],
    )
    def test_unusable_sound_is_refused_by_name(self, tmp_path, samples, reason):
        two_clips(tmp_path)
        soundfile.write(tmp_path / "b.wav", samples, SAMPLE_RATE, subtype="FLOAT")
        refused(lambda: decode(Folder().read(tmp_path)), "1 of 2 clips are unusable", "b.wav", reason)

    def test_clips_above_full_scale_are_counted_and_full_scale_itself_is_not(self, tmp_path):
        write_folder(tmp_path, "file,label\na.wav,x\nb.wav,y\nc.wav,y\n")
        for name, peak in (("a.wav", 1.0), ("b.wav", 1.01), ("c.wav", 3.0)):
            soundfile.write(tmp_path / name, 2 * peak * TONE, SAMPLE_RATE, subtype="FLOAT")
        _, clips, _ = decoding.decode(Folder().read(tmp_path))
        for _ in range(2):
            assert [np.abs(clip.astype(int)).max() >= 32767 for clip in clips] == [True] * 3
            assert clips.clipped == ["b.wav", "c.wav"]

    def test_a_clip_of_exactly_the_shortest_length_is_used(self, tmp_path):
        two_clips(tmp_path)
        soundfile.write(tmp_path / "b.wav", TONE[:1600], SAMPLE_RATE)
        assert decode(Folder().read(tmp_path))[1].lengths.tolist() == [8000, 1600]

    def test_unusable_embedded_sound_is_named_by_its_clip(self, tmp_path):
        dataset = Folder().read(two_clips(tmp_path))
        broken = dataset.map(lambda row: {"audio": {"bytes": b"not sound", "path": None}})
        refused(lambda: decode(broken), "2 of 2 clips are unusable", "a.wav: unreadable", "b.wav: unreadable")

    def test_ten_unusable_files_are_named_and_the_rest_counted(self, tmp_path):
        names = [f"{number:02}.wav" for number in range(13)]
        write_folder(tmp_path, "file,label\n" + "".join(f"{n},{'xy'[i % 2]}\n" for i, n in enumerate(names)))
        for name in names:
            (tmp_path / name).write_bytes(b"not sound")
        dataset = Folder().read(tmp_path)
        refused(lambda: decode(dataset), "13 of 13", "00.wav", "09.wav", "unreadable", "and 3 more")
        with pytest.raises(InputError) as caught:
            decode(dataset)
        assert "10.wav" not in str(caught.value)

    def test_chosen_classes_keep_their_order_and_other_clips_are_not_read(self, tmp_path):
        table = "file,label\na.wav,x\nb.wav,y\nc.wav,z\n"
        write_folder(tmp_path, table, "a.wav", "c.wav")
        (tmp_path / "b.wav").write_bytes(b"not sound")
        rows, clips, classes = decode(Folder().read(tmp_path), chosen=["z", "x"])
        assert classes == ("z", "x")
        assert rows[["clip", "target"]].to_dict("list") == {"clip": ["a.wav", "c.wav"], "target": [1, 0]}
        assert list(rows.index) == [0, 1]
        assert len(clips) == 2

    @pytest.mark.parametrize(
        ("task", "chosen", "fragments"),
        [
            ("age", None, ["got 'age'", "expected emotion, gender, speaker"]),
            ("emotion", ["x", "q"], ["class q", "expected x, y"]),
            ("emotion", ["x"], ["got 1 class (x)", "two"]),
            ("emotion", ["x", "y", "x"], ["got a class twice"]),
            ("gender", None, ["got no gender for b"]),
            ("speaker", None, ["got 1 class (s)"]),
        ],
    )
    def test_impossible_tasks_are_refused(self, task, chosen, fragments):
        frame = pd.DataFrame({"clip": ["a", "b"], "label": ["x", "y"], "gender": ["f", ""], "speaker": "s"})
        refused(lambda: task_classes(frame, task, chosen), *fragments)


def emodb_copy(directory: Path, names: list[str], rate: int = SAMPLE_RATE) -> Path:
    (directory / "wav").mkdir(parents=True)
    for name in names:
        soundfile.write(directory / "wav" / name, TONE, rate)
    return directory


class TestEmoDBLayout:
    @pytest.mark.parametrize("below", [".", "wav", ".."])
    def test_the_archive_is_read_at_its_usual_levels(self, tmp_path, below):
        emodb_copy(tmp_path / "emodb", ["03a01Fa.wav", ".DS_Store.wav", "14b09Wd.wav"])
        rows = EmoDB().read(tmp_path / "emodb" / below).remove_columns("audio").to_pandas()
        assert rows.iloc[0].to_dict() == {
            "clip": "03a01Fa",
            "speaker": "03",
            "gender": "m",
            "text": "Der Lappen liegt auf dem Eisschrank.",
            "label": "happiness",
            "split": "",
        }
        assert rows["clip"].tolist() == ["03a01Fa", "14b09Wd"]

    @pytest.mark.parametrize("name", ["notes.txt", "04a01Fa.wav", "03a03Fa.wav", "03a01Xa.wav", "03a01Fa.mp3"])
    def test_extra_files_are_refused_by_name(self, tmp_path, name):
        emodb_copy(tmp_path, ["03a01Fa.wav"])
        (tmp_path / "wav" / name).write_bytes(b"")
        refused(lambda: EmoDB().read(tmp_path), "unexpected", name, "03a01Fa.wav")

    def test_a_wrong_or_empty_folder_is_refused(self, tmp_path):
        refused(lambda: EmoDB().read(tmp_path), str(tmp_path), "got no folder 'wav'")
        (tmp_path / "wav").mkdir()
        refused(lambda: EmoDB().read(tmp_path), "wav", "empty", "535")

    def test_an_incomplete_or_converted_copy_is_reported(self, tmp_path):
        emodb_copy(tmp_path, ["03a01Fa.wav"], rate=44100)
        incomplete, converted = EmoDB().findings(tmp_path)
        assert "the copy has 1 clips, the official corpus 535" in incomplete
        assert "speaker 08 0 of 58" in incomplete
        assert "03a01Fa.wav: 44100 Hz" in converted

    @pytest.mark.filterwarnings("error")
    def test_a_finding_names_three_examples_and_is_no_warning_of_python(self, tmp_path):
        emodb_copy(tmp_path, [f"{speaker}a01Fa.wav" for speaker in ("03", "08", "09", "10", "11")], rate=44100)
        assert len(EmoDB().read(tmp_path)) == 5
        _, converted = EmoDB().findings(tmp_path)
        assert converted.count(".wav") == 3
        assert converted.endswith("; and 2 more")


@pytest.fixture(scope="module")
def decoded(emodb_directory):
    return decode(EmoDB().read(emodb_directory))


@pytest.mark.data
class TestEmoDBItself:
    def test_the_copy_is_complete(self, emodb_directory):
        assert EmoDB().findings(emodb_directory) == ()

    def test_counts_equal_the_published_counts(self, decoded):
        rows, clips, classes = decoded
        assert rows["label"].value_counts().to_dict() == {
            "anger": 127, "boredom": 81, "disgust": 46, "fear": 69, "happiness": 71, "sadness": 62, "neutral": 79,
        }  # fmt: skip
        assert rows["speaker"].value_counts().to_dict() == CLIPS
        assert set(rows["text"]) == set(TEXTS.values())
        assert classes == ("anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness")
        assert round(clips.lengths.sum() / SAMPLE_RATE) == 1487

    def test_each_pair_fold_has_every_class(self, decoded):
        rows = decoded[0]
        splits = folds("5pair", rows, EmoDB.speaker_pairs)
        assert [len(fold.test) for fold in splits] == [110, 107, 98, 106, 114]
        for fold in splits:
            counts = rows["label"].iloc[list(fold.test)].value_counts()
            assert len(counts) == 7
            assert counts.min() >= 5

    def test_two_chosen_emotions_are_a_task(self, emodb_directory):
        rows, clips, classes = decode(EmoDB().read(emodb_directory), chosen=["anger", "sadness"])
        assert classes == ("anger", "sadness")
        assert rows["target"].value_counts().to_dict() == {0: 127, 1: 62}
        assert len(clips) == 189
        assert len(folds("5pair", rows, EmoDB.speaker_pairs)) == 5

    def test_gender_is_a_task_of_speaker_independent_folds(self, emodb_directory):
        rows, _, classes = decode(EmoDB().read(emodb_directory), "gender")
        assert classes == ("f", "m")
        assert rows["target"].value_counts().to_dict() == {0: 302, 1: 233}
        assert {len(set(rows["target"].iloc[list(fold.test)])) for fold in folds("5fold", rows)} == {2}

    def test_speaker_is_a_task_of_random_folds_only(self, emodb_directory):
        rows, _, classes = decode(EmoDB().read(emodb_directory), "speaker", ["03", "08", "09", "10"])
        assert classes == ("03", "08", "09", "10")
        (fold,) = folds("random75-5-20", rows)
        assert (len(fold.train), len(fold.validation), len(fold.test)) == (140, 9, 39)
        for protocol in ("5pair", "5fold", "loso"):
            refused(lambda protocol=protocol: folds(protocol, rows, EmoDB.speaker_pairs), "'speaker'", "random75-5-20")

    def test_loso_has_ten_folds(self, decoded):
        splits = folds("loso", decoded[0], EmoDB.speaker_pairs)
        assert {fold.name: len(fold.test) for fold in splits} == CLIPS
