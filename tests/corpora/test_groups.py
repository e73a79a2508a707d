"""Names of groups have one spelling; missing values, contradictions and repeated utterances are refused."""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from advser.corpora.decode import decode
from advser.corpora.folder import Folder
from advser.corpora.groups import DISTINCT, MISSING, NAMES, NOT_A_NUMBER, with_one_spelling
from advser.corpora.hub import _texts
from advser.corpora.protocols import folds
from advser.errors import InputError
from advser.plugins.parameters import build
from advser.plugins.registries import CORPORA

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2000) / 16000)
JÖRG = unicodedata.normalize("NFD", "jörg")

pytestmark = pytest.mark.filterwarnings("ignore:corpus")

disguises = st.sampled_from(
    [
        lambda name: name,
        lambda name: f" {name}",
        lambda name: f"{name}\t ",
        lambda name: f"{name}\N{NO-BREAK SPACE}",
        lambda name: f"\N{ZERO WIDTH SPACE}{name}\N{BYTE ORDER MARK}",
        lambda name: unicodedata.normalize("NFD", name),
        lambda name: unicodedata.normalize("NFC", name),
    ]
)


def frame(**columns: list[str]) -> pd.DataFrame:
    rows = len(next(iter(columns.values())))
    return pd.DataFrame({"clip": [f"c{row}" for row in range(rows)]} | dict.fromkeys(NAMES, "") | columns)


def corpus(directory: Path, *rows: str) -> Path:
    directory.mkdir(exist_ok=True)
    for row in rows:
        path = directory / row.partition(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, TONE, 16000)
    table = "\n".join(["file,label,speaker,gender", *rows])
    (directory / "metadata.csv").write_text(table, encoding="utf-8")
    return directory


@given(st.sampled_from(NAMES), st.sampled_from(["anger", "jörg", "São Luís", "f1"]), st.lists(disguises, min_size=1))
def test_spellings_that_look_alike_are_one_group(column, name, disguise):
    gender = column == "gender"
    names = [change("f" if gender else name) for change in disguise]
    assert with_one_spelling(frame(**{column: names}))[column].nunique() == 1


@pytest.mark.parametrize("column", DISTINCT)
@pytest.mark.parametrize(("name", "other"), [("f1", "F1"), ("anger", "ａnger"), ("s 1", "s1"), ("straße", "STRASSE")])
def test_names_that_differ_only_in_case_or_width_are_refused(column, name, other):
    with pytest.raises(InputError, match=f"^{column}: got '.*' and '.*', which look alike, expected one spelling$"):
        with_one_spelling(frame(**{column: [name, "x", other]}))


@pytest.mark.parametrize("column", NAMES)
def test_missing_values_are_no_group(column):
    for name in sorted(NOT_A_NUMBER if column == "text" else MISSING):
        with pytest.raises(InputError, match=f"^{column}: got '{name}' for c1, expected"):
            with_one_spelling(frame(**{column: ["a", f" {name}"]}))
    assert with_one_spelling(frame(label=["NA", "none"]))["label"].tolist() == ["NA", "none"]


def test_a_column_of_numbers_with_gaps_holds_no_nan():
    from datasets import Dataset

    part = Dataset.from_dict({"speaker": [1.0, float("nan"), None], "label": ["x", None, "y"]})
    assert _texts(part, "speaker") == ["1.0", "", ""]
    assert _texts(part, "label") == ["x", "", "y"]


def test_a_speaker_with_two_genders_is_refused_and_an_unknown_gender_is_not():
    with pytest.raises(InputError, match=r"^speaker 'a': got gender f and m \(c0; c2\), expected one gender$"):
        with_one_spelling(frame(speaker=["a", "b", "a "], gender=["f", "m", "m"]))
    with_one_spelling(frame(speaker=["a", "a", "", ""], gender=["f", "", "f", "m"]))


def test_leave_one_speaker_out_sees_one_speaker(tmp_path):
    names = ["jörg", JÖRG, "jörg ", "eva", "mia", "udo"]
    labels = ["anger", "anger ", "calm"]
    rows = [f"{n}{k}.wav,{label},{name}," for n, name in enumerate(names) for k, label in enumerate(labels)]
    table, _, classes = decode(Folder().read(corpus(tmp_path, *rows)), chosen=[" anger", "calm"])
    assert classes == ("anger", "calm")
    assert [fold.name for fold in folds("loso", table)] == ["eva", "jörg", "mia", "udo"]
    assert len(table) == len(rows)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_clip_has_one_name_however_its_file_is_written(tmp_path, absolute):
    directory = corpus(tmp_path / "in", "a.wav,x,,", "sub/b.wav,y,,")
    start = str(directory) if absolute else "."
    (directory / "metadata.csv").write_text(f"file,label\n{start}/a.wav,x\n{start}/sub/../sub//b.wav,y\n")
    assert list(Folder().read(directory)["clip"]) == ["a.wav", "sub/b.wav"]
    linked = tmp_path / "link"
    linked.symlink_to(directory)
    assert list(Folder().read(linked)["clip"]) == ["a.wav", "sub/b.wav"]


@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_nul_in_the_table_is_refused_with_its_line(tmp_path, line):
    lines = ["file,label", "a.wav,x", "b.wav,y"]
    lines[line - 1] += "\0"
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match=rf"metadata.csv, line {line}: got a NUL character, expected UTF-8 text$"):
        Folder().read(tmp_path)


def test_a_file_name_that_is_too_long_is_reported_as_missing(tmp_path):
    (tmp_path / "metadata.csv").write_text(f"file,label\n{'a' * 400}.wav,x\n")
    with pytest.raises(InputError, match="got 1 of 1 files that do not exist"):
        Folder().read(tmp_path)


@pytest.mark.parametrize(
    ("name", "folder", "other", "file"),
    [
        ("ravdess", "Actor_01", "Actor_02", "03-01-05-01-02-01-01.wav"),
        ("emovo", "f1", "f2", "rab-f1-b1.wav"),
        ("demos", "DEMOS", "NEU", "PR_f_01_rab01a.wav"),
    ],
)
def test_a_file_in_two_folders_is_refused_by_name(tmp_path, name, folder, other, file):
    for place in (folder, other):
        (tmp_path / place).mkdir()
        soundfile.write(tmp_path / place / file, TONE, 16000)
    dataset = build(CORPORA.get(name), {}, name).read(tmp_path)
    with pytest.raises(InputError, match=rf"clip '{Path(file).stem}': got 2 rows \(.*{folder}/.*{other}/"):
        decode(dataset)


@pytest.mark.parametrize("code", ["ang", "fru"])
def test_an_utterance_in_two_tables_is_refused_whatever_its_label(tmp_path, code):
    session, name = tmp_path / "Session1", "Ses01F_impro01"
    for folder in ("dialog/EmoEvaluation", "dialog/transcriptions", f"sentences/wav/{name}"):
        (session / folder).mkdir(parents=True)
    soundfile.write(session / "sentences/wav" / name / f"{name}_F000.wav", TONE, 16000)
    (session / "dialog/transcriptions" / f"{name}.txt").write_text(f"{name}_F000 [0.1-1.0]: Excuse me.\n")
    table = session / "dialog/EmoEvaluation" / f"{name}.txt"
    table.write_text(f"\ufeff[0.1 - 1.0]\t{name}_F000\tang\t[2.5, 2.5, 2.5]\n", encoding="utf-8")
    iemocap = build(CORPORA.get("iemocap"), {}, "iemocap")
    assert list(iemocap.read(tmp_path)["clip"]) == [f"{name}_F000"]
    table.with_stem(f"{name} (1)").write_text(table.read_text(encoding="utf-8-sig").replace("\tang\t", f"\t{code}\t"))
    with pytest.raises(InputError, match=f"got 1 utterance.* in more than one line: {name}_F000, expected"):
        iemocap.read(tmp_path)


def cremad_copy(directory: Path) -> Path:
    sound = directory / "AudioWAV" / "1001_DFA_ANG_XX.wav"
    sound.parent.mkdir(parents=True)
    soundfile.write(sound, TONE, 16000)
    shutil.copy(sound, sound.with_name("1002_DFA_ANG_XX.wav"))
    return directory


def test_a_table_with_a_byte_order_mark_is_read(tmp_path):
    table = cremad_copy(tmp_path) / "VideoDemographics.csv"
    table.write_text("ActorID,Age,Sex\n1001,51,Male\n1002,21,Female\n", encoding="utf-8-sig")
    assert list(build(CORPORA.get("cremad"), {}, "cremad").read(tmp_path)["gender"]) == ["m", "f"]


def test_pointers_beyond_the_first_file_are_refused_and_files_of_windows_ignored(tmp_path):
    cremad = build(CORPORA.get("cremad"), {}, "cremad")
    folder = cremad_copy(tmp_path) / "AudioWAV"
    for name in ("Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"\xd0\xcf")
    assert len(cremad.read(tmp_path)) == 2
    (folder / "1002_DFA_ANG_XX.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(InputError, match=r"got 1 Git LFS pointer.*: 1002_DFA_ANG_XX\.wav$"):
        cremad.read(tmp_path)
