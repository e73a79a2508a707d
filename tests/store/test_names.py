"""Names of files that others wrote."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advser.errors import InputError
from advser.store.artefacts import Store
from advser.store.names import inside

OUTSIDE: list[Any] = [
    "", ".", "..", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "C:\\x", "a\\b", "~/x\0", "a\nb",
    "\x1b[31m", "\ud800", "a" * 300, "a/" * 40 + "b", None, 1, [], {}, b"x",
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_is_no_plain_relative_path_is_refused_in_one_line(name: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="index: got the name ") as error:
        inside(tmp_path, name, "index")
    assert str(error.value).isprintable()


@given(name=st.text(st.sampled_from("ab./\\~:\0 "), max_size=12))
def test_an_accepted_name_is_in_the_folder(name: str) -> None:
    folder = Path("/none/such")
    try:
        path = inside(folder, name, "index")
    except InputError:
        return
    assert path.is_relative_to(folder)
    assert ".." not in path.parts
    assert path.relative_to(folder) == PurePosixPath(name)


@pytest.mark.parametrize("name", ["file", "folder/file"])
def test_links_are_refused_at_every_level(name: str, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("secret")
    (tmp_path / "results" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "results" / "file").symlink_to(tmp_path / "elsewhere" / "file")
    with pytest.raises(InputError, match="a link, expected a file or folder of its own"):
        inside(tmp_path / "results", name, "index")


def test_a_key_does_not_lead_out_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    assert ".." not in Store(tmp_path / "store")
    assert "" not in Store(tmp_path / "store")
