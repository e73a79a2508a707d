"""Published folders are readable and stem from the shipped suites; pages show the output of their commands."""

from __future__ import annotations

import re
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from cogapp import Cog
from commandline import registries_as_they_were
from places import ROOT

from advser.leaderboards.leftovers import declared_pictures
from advser.results.folder import Results
from advser.results.schema import EXAMPLES_FILE
from advser.suite.loading import load
from advser.suite.schema import Suite

PUBLISHED = sorted(path.parent for path in (ROOT / "leaderboards" / "published").glob("*/run.json"))
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / name for name in ("results.md", "ci.md", "reference.md", "performance.md")),
    *sorted((ROOT / "docs" / "papers").glob("*.md")),
]
LARGEST = 6_000_000
"""Bytes of all published files in git; with all that is drawn of them they have 35,000,000."""

FORBIDDEN = {".wav", ".flac", ".ogg", ".mp3", ".opus"}
folders = pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)


def test_the_repository_publishes_results() -> None:
    assert PUBLISHED


@folders
def test_a_published_folder_stems_from_the_shipped_suite_at_a_known_commit(folder: Path) -> None:
    results = Results.load(folder)
    assert Suite.model_validate(results.run["suite"]).has_same_settings(load(folder.name, results.run["set"]))
    assert results.run["only"] == {}
    assert re.fullmatch(r"[0-9a-f]{40}", results.run["git"]["commit"])
    assert results.run["git"]["dirty"] is False
    assert results.run["failures"] == []


@folders
def test_a_published_folder_holds_no_clips_and_no_sound_but_of_the_embedded_corpus(folder: Path) -> None:
    sounds = [path for path in folder.rglob("*") if path.suffix in FORBIDDEN]
    assert bool(sounds) == (Results.load(folder).run["suite"]["corpus"]["name"] == "demo")
    assert not (folder / EXAMPLES_FILE).exists()


def test_git_holds_tables_sounds_and_what_pages_cite() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "leaderboards/published"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode or not listing.stdout:
        pytest.skip("this is no checkout of the repository")
    tracked = {ROOT / name for name in listing.stdout.split("\0") if name}
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    cited = {
        ROOT / name
        for page in pages
        for name in re.findall(r"leaderboards/published/[\w-]+/(?:boards|figures)/[\w.-]+\w", page.read_text("utf-8"))
    }
    assert cited <= tracked, "to add them: git add --force"
    kept = {"README.md", "run.json", "results.parquet", "ranks.parquet", "pooled.parquet", "index.json"}
    others = {path for path in tracked - cited if path.name not in kept and path.suffix != ".flac"}
    pictures = {name for folder in PUBLISHED for name in declared_pictures(Results.load(folder))}
    assert {path.stem for path in others} <= pictures, "to remove the others: git rm --cached"
    assert sum(path.stat().st_size for path in tracked) < LARGEST


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_what_its_commands_print(page: Path) -> None:
    names = "from pages import board, checks, command, figure, keys, performance, plugins, sentences"
    options = ["--check", "--diff", "-I", str(ROOT / "docs"), "-p", names]
    printed = StringIO()
    with redirect_stdout(printed), redirect_stderr(printed), registries_as_they_were():
        code = Cog().main(["cog", *options, str(page)])
    assert code == 0, f"{printed.getvalue()}\nto update the page: tox -e pages"
    assert "[[[cog" in page.read_text(encoding="utf-8")
