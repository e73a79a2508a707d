"""The store: artefacts are complete or absent, verified, and safe with concurrent processes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from advser.store import artefacts as store_module
from advser.store.artefacts import MANIFEST, Store
from advser.store.digests import canonical, digest
from advser.store.files import replacing

KEY = "ab" + "0" * 62
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def make(store: Store, content: bytes = b"content") -> None:
    with store.create(KEY, {"job": "test"}) as folder:
        (folder / "data.bin").write_bytes(content)


def rewrite(file: Path, content: bytes) -> None:
    """Rewrite a file with a later modification time; two writes in a row may have the same time."""
    file.write_bytes(content)
    later = file.stat().st_mtime_ns + 10**9
    os.utime(file, ns=(later, later))


def test_a_stored_artefact_is_present_and_intact(store: Store) -> None:
    assert KEY not in store
    make(store)
    assert KEY in store
    assert store.get(KEY).intact()
    assert store.get(KEY).manifest["job"] == "test"
    assert store.discard_if_damaged(KEY)


def test_an_error_leaves_nothing_behind(store: Store) -> None:
    with pytest.raises(RuntimeError), store.create(KEY, {}) as folder:
        (folder / "half").write_text("written")
        raise RuntimeError
    assert KEY not in store
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "data.bin").write_bytes(b"longer than before"),
        lambda folder: rewrite(folder / "data.bin", b"changed"),
        lambda folder: (folder / "data.bin").unlink(),
        lambda folder: (folder / MANIFEST).write_text("{"),
        lambda folder: (folder / MANIFEST).write_text("{}"),
        lambda folder: (folder / MANIFEST).unlink(),
    ],
    ids=["longer", "as long, later", "removed", "manifest cut", "manifest empty", "manifest removed"],
)
def test_a_damaged_artefact_counts_as_absent_and_can_be_recomputed(store: Store, damage) -> None:
    make(store)
    damage(store.folder(KEY))
    assert not store.discard_if_damaged(KEY)
    assert KEY not in store
    make(store)
    assert store.get(KEY).intact()


def test_only_files_with_another_time_are_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    make(store)
    read: list[Path] = []
    checksum = store_module._sha256
    monkeypatch.setattr(store_module, "_sha256", lambda path: read.append(path) or checksum(path))
    assert store.get(KEY).intact()
    assert read == []
    rewrite(store.get(KEY).path("data.bin"), b"content")
    assert store.get(KEY).intact()
    assert read == [store.get(KEY).path("data.bin")]


def test_an_artefact_without_recorded_times_is_read(store: Store) -> None:
    make(store)
    manifest = store.get(KEY).path(MANIFEST)
    recorded = json.loads(manifest.read_text())
    del recorded["written"]
    manifest.write_text(json.dumps(recorded))
    assert store.get(KEY).intact()
    store.get(KEY).path("data.bin").write_bytes(b"changed")
    assert not store.get(KEY).intact()


def test_the_first_of_two_equal_artefacts_stays(store: Store) -> None:
    with store.create(KEY, {}) as slow:
        make(store, b"first")
        (slow / "data.bin").write_bytes(b"second")
    assert store.get(KEY).path("data.bin").read_bytes() == b"first"
    assert store.get(KEY).intact()


def test_a_missing_key_is_an_error(store: Store) -> None:
    with pytest.raises(KeyError):
        store.get(KEY)


def test_folders_of_processes_of_this_machine_that_are_gone_are_removed_at_once(store: Store) -> None:
    with store.create("ab" * 32, {}) as running:
        gone = running.with_name(running.name.replace(f"-{os.getpid()}-", "-999999999-"))
        elsewhere = running.with_name("unfinished-another_machine-999999999-x")
        gone.mkdir()
        elsewhere.mkdir()
        store.sweep()
        assert running.exists()
        assert elsewhere.exists()
        assert not gone.exists()


def test_a_pipe_in_place_of_a_file_is_a_damaged_artefact(store: Store) -> None:
    with store.create("ab" * 32, {}) as folder:
        (folder / "data").write_bytes(b"1")
    file = store.get("ab" * 32).path("data")
    file.unlink()
    os.mkfifo(file)
    assert not store.discard_if_damaged("ab" * 32)


def test_sweep_removes_the_folders_of_killed_processes(store: Store) -> None:
    make(store)
    (store.root / "unfinished-x").mkdir()
    store.sweep()
    assert (store.root / "unfinished-x").exists(), "another run may be writing to it"
    store.sweep(older_than=-1)
    assert [path.name for path in store.root.iterdir()] == ["ab"]
    assert KEY in store


@given(st.dictionaries(st.text(), JSON))
def test_the_digest_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


@given(JSON, JSON)
def test_digests_are_equal_exactly_for_equal_json(first: object, second: object) -> None:
    assert (digest(first) == digest(second)) == (
        json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    )


def test_canonical_text_reads_back() -> None:
    value = {"b": [1, 2.5, None], "a": {"ε": "ß"}}
    assert json.loads(canonical(value)) == value


def test_a_key_must_not_contain_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest({"epsilon": math.nan})


def test_a_replaced_file_is_whole_or_as_before(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError), replacing(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"
    with replacing(path) as beside:
        beside.write_text("after")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def masked(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o027, 0o077])
def test_every_file_and_folder_has_the_rights_that_the_umask_leaves(umask: int, tmp_path: Path) -> None:
    def own(path: Path) -> None:
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))

    def tensors(path: Path) -> None:
        save_file({"a": torch.zeros(2)}, path)

    writers = {"text": lambda path: path.write_text("x"), "own": own, "tensors": tensors}
    with masked(umask):
        store = Store(tmp_path / "store")
        with store.create("ab12", {"stage": "test"}) as folder:
            for name, write in writers.items():
                write(folder / name)
        for name, write in writers.items():
            with replacing(tmp_path / "out" / name) as beside:
                write(beside)
    for path in [*(tmp_path / "store").rglob("*"), *(tmp_path / "out").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path
    assert store.get("ab12").intact()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"file/a\.txt") as error, replacing(tmp_path / "file" / "a.txt"):
        pass
    assert error.value.filename == str(tmp_path / "file" / "a.txt")
