"""A drawing removes what an earlier drawing wrote and it does not, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import synthetic

from advser.leaderboards.leftovers import DRAWN_FILE, remove_leftovers
from advser.leaderboards.write import write_all
from advser.results.selection import select

RESULTS = synthetic.results(
    suite={
        "name": "made-up",
        "exhibits": [{"pictures": "clip", "title": "One clip", "where": {"attack": "fgsm"}}],
    }
)
CLEAN = select(RESULTS, {"attack": "none"})


def touched(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [folder / name for name in names]


def listed(folder: Path, *names: str) -> None:
    (folder / DRAWN_FILE).write_text(json.dumps(names), encoding="utf-8")


def test_curves_go_with_the_attacks_that_they_showed_and_a_readers_files_stay(tmp_path: Path) -> None:
    written = write_all(select(RESULTS, {"model": "cnn4"}), tmp_path)
    curve = tmp_path / "figures" / "uar-against-epsilon.svg"
    assert curve in written
    own = touched(tmp_path, "figures/narrow.png", "figures/uar-against-epsilon.pdf", "boards/mine.md", "notes.txt")
    again = write_all(CLEAN, tmp_path)
    assert not list(tmp_path.rglob("*-against-epsilon.svg"))
    assert all(path.is_file() for path in (*own, *again))
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*own, *again}


def test_the_list_holds_what_the_last_drawing_wrote(tmp_path: Path) -> None:
    written = write_all(CLEAN, tmp_path)
    names = json.loads((tmp_path / DRAWN_FILE).read_text(encoding="utf-8"))
    assert {tmp_path / name for name in names} == {*written} - {tmp_path / DRAWN_FILE}


def test_boards_pictures_of_sounds_and_page_files_that_are_listed_go(tmp_path: Path) -> None:
    names = ("boards/old.tex", "figures/old.svg", "samples/0123456789ab-1.png", "assets/old.js")
    earlier = touched(tmp_path, *names)
    listed(tmp_path, *names)
    remove_leftovers(CLEAN, tmp_path, [])
    assert not any(path.exists() for path in earlier)


def test_a_declared_picture_stays_for_its_sounds_may_be_gone(tmp_path: Path) -> None:
    (picture,) = touched(tmp_path, "figures/clip.svg")
    listed(tmp_path, "figures/clip.svg")
    remove_leftovers(RESULTS, tmp_path, [])
    assert picture.is_file()
    remove_leftovers(synthetic.results(), tmp_path, [])
    assert not picture.exists()


@pytest.mark.parametrize(
    "name",
    ["run.json", "samples/a.flac", "../boards/a.md", "boards/../run.json", "boards/a/b.md", "figures/a.pdf"],
)
def test_a_list_from_elsewhere_removes_no_other_files(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "results"
    (path,) = touched(folder, name)
    listed(folder, name)
    remove_leftovers(CLEAN, folder, [])
    assert path.is_file()


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_without_a_list_curves_go_by_their_names(tmp_path: Path, text: str | None) -> None:
    gone = touched(tmp_path, "figures/wer-against-steps.png", "figures/uar-against-epsilon_2.svg")
    own = touched(tmp_path, "figures/uar-against-epsilon-narrow.png", "figures/mine.svg", "boards/old.md")
    if text is not None:
        (tmp_path / DRAWN_FILE).write_text(text, encoding="utf-8")
    remove_leftovers(RESULTS, tmp_path, [])
    assert not any(path.exists() for path in gone)
    assert all(path.is_file() for path in own)


def test_without_a_list_curves_of_each_part_go_by_their_names(tmp_path: Path) -> None:
    parts = synthetic.results()
    parts.table["part"] = "fair_play"
    (gone,) = touched(tmp_path, "figures/accuracy-against-steps-fair-play_2.png")
    (own,) = touched(tmp_path, "figures/accuracy-against-steps-fair.png")
    remove_leftovers(parts, tmp_path, [])
    assert not gone.exists()
    assert own.is_file()


def test_pages_share_the_files_that_they_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        touched(tmp_path / name, "assets/page.js")
        listed(tmp_path / name, "assets/page.js")
        write_all(CLEAN, tmp_path / name, assets="../assets")
        assert '<script src="../assets/page.js" defer>' in (tmp_path / name / "index.html").read_text(encoding="utf-8")
        assert not (tmp_path / name / "assets" / "page.js").exists()
    assert (tmp_path / "assets" / "page.js").is_file()
