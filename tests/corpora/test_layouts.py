"""Corpora in their official layouts, with generated sound, and copies with errors."""

import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from advser.corpora import cremad, demos, emovo, iemocap, ravdess
from advser.corpora.decode import decode
from advser.corpora.protocols import folds
from advser.errors import InputError
from advser.plugins.parameters import build
from advser.plugins.registries import CORPORA

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2000) / 16000)


def sounds(folder: Path, *names: str, rate: int = 16000, channels: int = 1) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.stack([TONE] * channels, 1), rate)


def rows(name: str, directory: Path, **params):
    return build(CORPORA.get(name), params, name).read(directory).remove_columns("audio").to_pandas()


def refused(name: str, directory: Path, *fragments: str, **params) -> None:
    with pytest.raises(InputError) as caught:
        rows(name, directory, **params)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in (name, str(directory), *fragments):
        assert fragment in message


def findings(name: str, directory: Path, **params) -> tuple[str, ...]:
    return build(CORPORA.get(name), params, name).findings(directory)


COMPLETE = {
    "ravdess": [f"Actor_{name[-6:-4]}/{name}" for name in sorted(ravdess.OFFICIAL)],
    "emovo": [f"{name[4:6]}/{name}" for name in sorted(emovo.OFFICIAL)],
}


@pytest.mark.parametrize(("name", "clips", "each"), [("ravdess", 1440, 60), ("emovo", 588, 98)])
def test_the_number_of_official_names_is_the_published_number(name, clips, each):
    assert len(COMPLETE[name]) == CORPORA.get(name).official == clips
    folders = [path.partition("/")[0] for path in COMPLETE[name]]
    assert {folders.count(folder) for folder in folders} == {each}


@pytest.mark.parametrize("name", sorted(COMPLETE))
def test_a_complete_copy_has_no_finding_and_a_missing_clip_is_named(name, tmp_path):
    for place in COMPLETE[name]:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    assert findings(name, tmp_path) == ()
    removed = random.Random(0).choice(COMPLETE[name])
    (tmp_path / removed).unlink()
    (finding,) = findings(name, tmp_path)
    assert finding.startswith(f"the copy has {len(COMPLETE[name]) - 1} clips")
    assert f"the official corpus {len(COMPLETE[name])}: {Path(removed).name} is missing" in finding


@pytest.mark.parametrize(
    ("name", "good", "foreign"),
    [
        ("ravdess", "Actor_01/03-01-05-01-01-01-01.wav", "Actor_01/03-02-05-01-01-01-01.wav"),
        ("ravdess", "Actor_01/03-01-05-01-01-01-01.wav", "Actor_01/03-01-09-01-01-01-01.wav"),
        ("ravdess", "Actor_01/03-01-05-01-01-01-01.wav", "Actor_01/notes.txt"),
        ("cremad", "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1092_DFA_ANG_XX.wav"),
        ("cremad", "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1001_DFA_JOY_XX.wav"),
        ("cremad", "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1001_DFA_ANG_XX.mp3"),
        ("demos", "DEMOS/PR_f_01_rab01a.wav", "DEMOS/PR_f_01_joy01a.wav"),
        ("demos", "DEMOS/PR_f_01_rab01a.wav", "NEU/leggimi.txt"),
        ("emovo", "f1/rab-f1-b1.wav", "f1/rab-f4-b1.wav"),
        ("emovo", "f1/rab-f1-b1.wav", "f1/ama-f1-b1.wav"),
    ],
)
def test_foreign_files_and_bad_labels_are_refused_by_name(name, good, foreign, tmp_path):
    sounds(tmp_path, good)
    assert len(rows(name, tmp_path)) == 1
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_bytes(b"")
    (tmp_path / good).with_name(".hidden").write_bytes(b"")
    refused(name, tmp_path, "got 1 unexpected file(s)", foreign, "expected names such as")


@pytest.mark.parametrize(
    ("name", "folder"),
    [("ravdess", "Actor_01"), ("cremad", "AudioWAV"), ("demos", "DEMOS"), ("emovo", "f1"), ("iemocap", "Session1")],
)
def test_a_missing_folder_is_refused_by_name(name, folder, tmp_path):
    refused(name, tmp_path, f"got no folder '{folder}'")


@pytest.mark.parametrize(
    ("name", "folder"), [("ravdess", "Actor_01"), ("cremad", "AudioWAV"), ("demos", "DEMOS"), ("emovo", "f1")]
)
def test_an_empty_folder_is_refused_by_name(name, folder, tmp_path):
    (tmp_path / folder).mkdir()
    refused(name, tmp_path, f"{folder} empty", str(CORPORA.get(name).official))


@pytest.mark.parametrize(
    ("name", "place", "expected"),
    [
        (
            "ravdess",
            "Actor_12/03-01-06-01-02-01-12.wav",
            {
                "clip": "03-01-06-01-02-01-12",
                "speaker": "12",
                "gender": "f",
                "text": "Dogs are sitting by the door.",
                "label": "fear",
                "split": "",
            },
        ),
        (
            "ravdess",
            "Audio_Speech_Actors_01-24/Actor_01/03-01-05-02-01-02-01.wav",
            {"speaker": "01", "gender": "m", "text": "Kids are talking by the door.", "label": "anger"},
        ),
        (
            "cremad",
            "CREMA-D/AudioWAV/1040_ITH_SAD_X.wav",
            {
                "clip": "1040_ITH_SAD_X",
                "speaker": "1040",
                "gender": "",
                "text": cremad.TEXTS["ITH"],
                "label": "sadness",
            },
        ),
        (
            "demos",
            "wav_DEMoS/DEMOS/NP_m_02_col07b.wav",
            {"clip": "NP_m_02_col07b", "speaker": "m02", "gender": "m", "text": "", "label": "guilt", "split": ""},
        ),
        (
            "emovo",
            "EMOVO/m3/dis-m3-l4.wav",
            {
                "speaker": "m3",
                "gender": "m",
                "text": "Vorrei il numero telefonico del Signor Piatti.",
                "label": "disgust",
            },
        ),
    ],
)
def test_a_file_name_gives_the_row(name, place, expected, tmp_path):
    sounds(tmp_path, place)
    (row,) = rows(name, tmp_path).to_dict("records")
    assert {column: row[column] for column in expected} == expected


def test_demos_reads_emotional_and_neutral_speech_and_counts_clips_per_emotion(tmp_path):
    sounds(tmp_path, "DEMOS/PR_f_01_rab01a.wav", "DEMOS/NP_f_01_tri02b.wav", "NEU/f_01_neu01a.wav")
    frame = rows("demos", tmp_path)
    assert sorted(frame["label"]) == ["anger", "neutral", "sadness"]
    assert set(frame["speaker"]) == {"f01"}
    (finding,) = findings("demos", tmp_path)
    assert "the copy has 3 clips, the official corpus 9697: anger 1 of 1477" in finding
    assert sum(demos.CLIPS.values()) - demos.CLIPS["neutral"] == 9365


def test_converted_copies_of_ravdess_are_reported(tmp_path):
    sounds(tmp_path, "Actor_01/03-01-01-01-01-01-01.wav", rate=48000, channels=2)
    assert len(findings("ravdess", tmp_path)) == 1
    sounds(tmp_path, "Actor_01/03-01-01-01-01-02-01.wav", rate=16000)
    assert (
        "1 file(s) are converted, the official format is 48 kHz: 03-01-01-01-01-02-01.wav"
        in findings("ravdess", tmp_path)[1]
    )


class TestCREMAD:
    TABLE = '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","a","b"\n1002,21,"Female","a","b"\n'

    def copy(self, directory: Path, table: str = TABLE) -> Path:
        sounds(directory / "AudioWAV", "1001_DFA_ANG_XX.wav", "1002_IEO_HAP_LO.wav", "1076_MTI_SAD_XX.wav")
        (directory / "VideoDemographics.csv").write_text(table)
        return directory

    def test_genders_come_from_the_table_and_the_silent_clip_is_left_out(self, tmp_path):
        frame = rows("cremad", self.copy(tmp_path))
        assert frame[["speaker", "gender"]].values.tolist() == [["1001", "m"], ["1002", "f"]]
        assert "1076_MTI_SAD_XX" in CORPORA.get("cremad").caveat

    def test_the_digest_depends_on_the_table(self, tmp_path):
        corpus = build(CORPORA.get("cremad"), {}, "cremad")
        first = corpus.digest(self.copy(tmp_path))
        assert corpus.digest(self.copy(tmp_path, self.TABLE.replace("Male", "Female"))) != first

    def test_unknown_genders_are_reported(self, tmp_path):
        (self.copy(tmp_path) / "VideoDemographics.csv").unlink()
        assert "the genders are unknown" in findings("cremad", tmp_path)[-1]
        assert set(rows("cremad", tmp_path)["gender"]) == {""}

    @pytest.mark.parametrize("table", ["ActorID,Gender\n1001,Male\n", TABLE.replace("Male", "M"), ""])
    def test_a_table_with_wrong_columns_is_refused_and_an_empty_table_gives_no_genders(self, tmp_path, table):
        self.copy(tmp_path, table)
        if table:
            refused("cremad", tmp_path, "VideoDemographics.csv", "expected columns ActorID and Sex")
        else:
            assert set(rows("cremad", tmp_path)["gender"]) == {""}

    def test_pointers_of_git_lfs_are_refused(self, tmp_path):
        self.copy(tmp_path)
        (tmp_path / "AudioWAV" / "1001_DFA_ANG_XX.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid")
        refused("cremad", tmp_path, "got 1 Git LFS pointer", "git lfs pull")

    def test_missing_actors_are_named(self, tmp_path):
        finding = findings("cremad", self.copy(tmp_path))[0]
        assert "the copy has 2 clips, the official corpus 7441" in finding
        assert "no clip of actor 1003" in finding


HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"


def evaluated(utterance: str, code: str) -> str:
    opinions = "C-E1:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
    return f"[6.2901 - 8.2357]\t{utterance}\t{code}\t[2.5000, 2.5000, 2.5000]\n{opinions}"


def iemocap_copy(directory: Path, codes=tuple(iemocap.LABELS), sessions=range(1, 6)) -> Path:
    """Write two dialogues per session, with each code once for each of the two speakers."""
    for session in sessions:
        root = directory / f"Session{session}"
        for folder in ("EmoEvaluation/Categorical", "transcriptions"):
            (root / "dialog" / folder).mkdir(parents=True, exist_ok=True)
        for gender, dialog in (("F", f"Ses0{session}F_impro01"), ("M", f"Ses0{session}M_script01_1b")):
            names = [f"{dialog}_{gender}{number:03}" for number in range(len(codes))]
            labels = HEADER + "".join(evaluated(name, code) for name, code in zip(names, codes, strict=True))
            transcript = "".join(f"{name} [006.2901-008.2357]: Well, [LAUGHTER] number {name[-1]}.\n" for name in names)
            (root / "dialog" / "EmoEvaluation" / f"{dialog}.txt").write_text(labels)
            (root / "dialog" / "EmoEvaluation" / f"._{dialog}.txt").write_bytes(b"\x00\xff")
            (root / "dialog" / "transcriptions" / f"{dialog}.txt").write_text(f"M: a stray line\n{transcript}")
            sounds(root / "sentences" / "wav" / dialog, *(f"{name}.wav" for name in names))
    return directory


class TestIEMOCAP:
    def test_four_classes_are_the_default_and_excitement_is_happiness(self, tmp_path):
        frame = rows("iemocap", iemocap_copy(tmp_path / "IEMOCAP_full_release").parent)
        assert frame["label"].value_counts().to_dict() == {
            "happiness": 20, "anger": 10, "neutral": 10, "sadness": 10,
        }  # fmt: skip
        assert frame.iloc[0].to_dict() == {
            "clip": "Ses01F_impro01_F000",
            "speaker": "1F",
            "gender": "f",
            "text": "Well, number 0.",
            "label": "anger",
            "split": "",
        }
        assert set(frame["speaker"]) == {f"{n}{gender}" for n in range(1, 6) for gender in "FM"}

    def test_every_code_has_its_label_and_without_a_majority_the_label_is_empty(self, tmp_path):
        frame = rows("iemocap", iemocap_copy(tmp_path), emotions=None, merge_excited=False)
        assert frame["label"].value_counts().to_dict() == dict.fromkeys(iemocap.LABELS.values(), 10)
        undecided = build(CORPORA.get("iemocap"), {"emotions": None}, "iemocap").read(tmp_path)
        with pytest.raises(InputError, match="got no label for Ses01F_impro01_F010"):
            decode(undecided)
        assert decode(undecided, "gender")[2] == ("f", "m")

    def test_two_classes_can_be_selected(self, tmp_path):
        frame = rows("iemocap", iemocap_copy(tmp_path), emotions=["anger", "sadness"])
        assert set(frame["label"]) == {"anger", "sadness"}

    @pytest.mark.parametrize("emotions", [["anger", "joy"], ["anger", "excitement"]])
    def test_labels_that_cannot_occur_are_refused(self, emotions):
        with pytest.raises(InputError, match="emotions"):
            build(CORPORA.get("iemocap"), {"emotions": emotions}, "iemocap")

    def test_five_folds_leave_one_session_out(self, tmp_path):
        frame = rows("iemocap", iemocap_copy(tmp_path)).assign(target=lambda all_rows: all_rows["label"].eq("anger"))
        splits = folds("5pair", frame, iemocap.IEMOCAP.speaker_pairs)
        assert [set(frame["clip"].iloc[list(fold.test)].str[:5]) for fold in splits] == [
            {f"Ses0{n}"} for n in range(1, 6)
        ]

    def test_a_bad_label_is_refused_by_file_and_line(self, tmp_path):
        iemocap_copy(tmp_path, codes=("ang", "joy"))
        refused("iemocap", tmp_path, "Ses01F_impro01.txt, line 7", "joy", "ang, dis, exc")

    def test_a_line_of_a_different_form_is_refused(self, tmp_path):
        iemocap_copy(tmp_path, codes=("ang",))
        table = tmp_path / "Session2" / "dialog" / "EmoEvaluation" / "Ses02F_impro01.txt"
        table.write_text(table.read_text().replace("\tang\t", "\t"))
        refused("iemocap", tmp_path, "Ses02F_impro01.txt, line 3", "expected [start - end]")

    @pytest.mark.parametrize(
        ("folder", "files"),
        [("dialog/EmoEvaluation", "*.txt"), ("dialog/transcriptions", "*.txt"), ("sentences/wav", "*/*.wav")],
    )
    def test_a_missing_folder_of_a_session_is_refused(self, tmp_path, folder, files):
        for path in (iemocap_copy(tmp_path, codes=("ang",)) / "Session4" / folder).glob(files):
            path.unlink()
        refused("iemocap", tmp_path, "Session4", f"in {folder}, expected one")

    def test_missing_sound_and_labels_are_reported_and_left_out(self, tmp_path):
        iemocap_copy(tmp_path, codes=("ang", "sad"), sessions=[1, 3])
        dialog = tmp_path / "Session1" / "sentences" / "wav" / "Ses01F_impro01"
        (dialog / "Ses01F_impro01_F000.wav").rename(dialog / "Ses01F_impro01_MXX0.wav")
        incomplete, soundless, unlabelled = findings("iemocap", tmp_path)
        assert "has 8 utterances, the official corpus 10039: Session2, Session4, Session5 missing" in incomplete
        assert soundless.startswith("1 utterance(s) have no sound file and are left out: Ses01F_impro01_F000")
        assert unlabelled.startswith("1 sound file(s) have no label and are left out: Ses01F_impro01_MXX0")
        assert len(rows("iemocap", tmp_path)) == 7

    def test_the_digest_depends_on_labels_words_and_sound(self, tmp_path):
        corpus = build(CORPORA.get("iemocap"), {}, "iemocap")
        iemocap_copy(tmp_path, codes=("ang",))
        digests = {corpus.digest(tmp_path)}
        for place, old, new in (
            ("dialog/EmoEvaluation/Ses01F_impro01.txt", b"\tang\t", b"\tsad\t"),
            ("dialog/transcriptions/Ses01F_impro01.txt", b"Well", b"Oh"),
            ("sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav", b"RIFF", b"RIFX"),
        ):
            file = tmp_path / "Session1" / place
            file.write_bytes(file.read_bytes().replace(old, new))
            digests.add(corpus.digest(tmp_path))
        assert len(digests) == 4
