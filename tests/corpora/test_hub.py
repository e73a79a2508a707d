"""Data sets of the Hugging Face Hub: local copies of both kinds, column mapping, refused copies."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from advser.corpora.base import COLUMNS
from advser.corpora.decode import decode
from advser.corpora.hub import Hub
from advser.corpora.protocols import folds
from advser.errors import InputError
from advser.plugins.parameters import build

MAPPING = {"label": "emotion", "speaker": "who", "gender": "sex", "text": "words"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep the cache of `datasets` out of the user's home."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def sound(seconds: float = 0.2) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, 0.5 * np.sin(np.arange(int(16000 * seconds)) / 5), 16000, format="WAV")
    return stream.getvalue()


def rows(split: str, clips: int = 4) -> list[dict]:
    return [
        {
            "audio": {"bytes": sound(0.2 + number / 100), "path": f"{number}.wav"},
            "emotion": number % 2,
            "who": f"{split}{number}",
            "sex": ["Female", "male", "other", None][number % 4],
            "words": None if number else "Well, no.",
        }
        for number in range(clips)
    ]


FEATURES = {
    "audio": {"sampling_rate": 16000, "_type": "Audio"},
    "emotion": {"names": ["glad", "sad"], "_type": "ClassLabel"},
    **{name: {"dtype": "string", "_type": "Value"} for name in ("who", "sex", "words")},
}


def parquet_copy(directory: Path, **splits: list[dict]) -> Path:
    """Write a data set in the Hub's layout: one Parquet file per split, the features as schema metadata."""
    (directory / "data").mkdir(parents=True, exist_ok=True)
    for split, listed in splits.items():
        table = pa.Table.from_pylist(listed)
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
        pq.write_table(table, directory / "data" / f"{split}-00000-of-00001.parquet")
    return directory


def hub(**params) -> Hub:
    return build(Hub, MAPPING | params, "corpus 'hub'")


def refused(action, *fragments: str) -> None:
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for fragment in ("corpus 'hub'", *fragments):
        assert fragment in message


@pytest.fixture
def copy(tmp_path) -> Path:
    return parquet_copy(tmp_path / "copy", train=rows("train"), validation=rows("dev", 2), test=rows("test", 2))


def test_a_parquet_copy_is_read_with_the_column_mapping(copy):
    dataset = hub().read(copy)
    assert tuple(dataset.column_names) == COLUMNS
    frame = dataset.remove_columns("audio").to_pandas()
    assert frame.iloc[0].to_dict() == {
        "clip": "train/000000",
        "speaker": "train0",
        "gender": "f",
        "text": "Well, no.",
        "label": "glad",
        "split": "train",
    }
    assert frame["gender"].tolist()[:4] == ["f", "m", "", ""]
    assert frame["split"].tolist() == ["train"] * 4 + ["validation"] * 2 + ["test"] * 2
    assert frame["clip"].is_unique


def test_its_sound_is_decoded_and_its_split_is_a_protocol(copy):
    frame, clips, classes = decode(hub().read(copy))
    assert classes == ("glad", "sad")
    assert [len(clip) for clip in clips] == [3200, 3360, 3520, 3680, 3200, 3360, 3200, 3360]
    (fold,) = folds("official", frame)
    assert (fold.train, fold.validation, fold.test) == ((0, 1, 2, 3), (4, 5), (6, 7))


def test_folders_from_save_to_disk_are_read(copy, tmp_path):
    from datasets import Audio, Dataset, DatasetDict

    saved = Dataset.from_list(rows("train")).cast_column("audio", Audio(decode=False))
    DatasetDict(train=saved, test=saved).save_to_disk(tmp_path / "several")
    saved.save_to_disk(tmp_path / "single")
    several = hub().read(tmp_path / "several")
    assert list(several["split"]) == ["train"] * 4 + ["test"] * 4
    assert list(several["label"])[:2] == ["0", "1"]
    assert list(hub().read(tmp_path / "single")["split"]) == ["all"] * 4


def test_splits_are_chosen_in_their_order(copy):
    assert list(hub(splits=["test", "validation"]).read(copy)["split"]) == ["test"] * 2 + ["validation"] * 2
    refused(lambda: hub(splits=["test", "dev"]).read(copy), "got no split dev", "expected train, validation, test")


def test_unnamed_columns_are_empty(copy):
    frame = hub(speaker="", gender="", text="").read(copy).remove_columns("audio").to_pandas()
    assert set(frame["speaker"]) == set(frame["gender"]) == set(frame["text"]) == {""}


def test_the_digest_depends_on_the_contents_and_their_places_alone(copy, tmp_path):
    first = hub().digest(copy)
    elsewhere = copy.rename(tmp_path / "moved")
    (elsewhere / ".cache").mkdir()
    (elsewhere / ".cache" / "lock").touch()
    assert hub().digest(elsewhere) == first
    train, test = (elsewhere / "data" / f"{split}-00000-of-00001.parquet" for split in ("train", "test"))
    train.rename(elsewhere / "swapped")
    test.rename(train)
    (elsewhere / "swapped").rename(test)
    second = hub().digest(elsewhere)
    parquet_copy(elsewhere, test=rows("other", 3))
    assert len({first, second, hub().digest(elsewhere)}) == 3


def test_links_into_a_cache_are_hashed_with_their_own_places(copy, tmp_path):
    snapshot = tmp_path / "snapshot"
    for path in hub().files(copy):
        (snapshot / path.relative_to(copy)).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path.relative_to(copy)).symlink_to(path)
    assert hub().digest(snapshot) == hub().digest(copy)


@pytest.mark.parametrize(
    ("params", "fragments"),
    [
        ({"label": "mood"}, ["got no column mood", "expected audio, emotion, who, sex, words"]),
        ({"audio": "sound", "speaker": "id"}, ["got no column sound, id"]),
        ({"audio": "words"}, ["column 'words': got string", "expected sound with its bytes"]),
    ],
)
def test_a_wrong_mapping_is_refused(copy, params, fragments):
    refused(lambda: hub(**params).read(copy), "split 'train'", *fragments)


def test_a_copy_without_the_sound_in_it_is_refused(tmp_path):
    listed = [row | {"audio": {"bytes": None, "path": "/etc/hostname"}} for row in rows("train")]
    listed[0] = rows("train")[0]
    copy = parquet_copy(tmp_path / "copy", train=listed)
    refused(lambda: hub().read(copy), "got 3 of 4 clips without bytes")


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    (tmp_path / "data.parquet").write_bytes(b"not Parquet")
    refused(lambda: hub().read(tmp_path), str(tmp_path), "expected a readable data set")
    (tmp_path / "empty").mkdir()
    refused(lambda: hub().read(tmp_path / "empty"), "/empty: got")
    refused(lambda: hub().files(tmp_path / "empty"), "got an empty folder")


def test_a_named_data_set_is_downloaded_at_its_revision(copy, monkeypatch):
    import huggingface_hub

    request = {}

    def snapshot(name, **options):
        request.update(options, name=name)
        return str(copy)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert hub(name="owner/speech", revision="v1").fetch() == copy
    assert request == {"name": "owner/speech", "repo_type": "dataset", "revision": "v1"}


def test_a_failed_download_is_reported_in_one_line(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot(name, **options):
        raise LocalEntryNotFoundError("An error happened.\nCheck your connection.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    refused(
        hub(name="owner/speech").fetch,
        "owner/speech at main: got 'An error happened. Check your connection.', expected a download",
        "--data hub=DIR",
    )
