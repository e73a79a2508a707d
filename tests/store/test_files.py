"""Files that are replaced whole, or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from advser.store.files import replacing


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "figure.svg"
    for text in ("first", "second"):
        with replacing(path) as beside:
            beside.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.rglob("*.svg")) == [path]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("wrong"), SystemExit(0)]
)
def test_an_error_leaves_neither_file_nor_folder(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "b" / "c" / "figure.svg"
    with pytest.raises(type(error)) as caught, replacing(path) as beside:
        beside.write_text("half", encoding="utf-8")
        raise error
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]
    if isinstance(error, OSError):
        assert isinstance(caught.value, OSError)
        assert caught.value.filename == str(path)


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "figure.svg"
    path.write_text("before", encoding="utf-8")
    with pytest.raises(ValueError, match="wrong"), replacing(path):
        raise ValueError("wrong")
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["before"]
