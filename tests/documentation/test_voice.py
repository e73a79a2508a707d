"""The words of the style guide: code, docs and messages use the field's terms."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from places import ROOT

WORDS = {
    "tell": "report, return or describe",
    "tells": "reports, returns or describes",
    "told": "reported or described",
    "hear": "classify, transcribe or receive",
    "hears": "classifies, transcribes or receives",
    "heard": "classified, transcribed or received",
    "fell": "mislead",
    "fells": "misleads",
    "felled": "misled",
    "fallen": "misled",
}
"""Word → the words to use in its place."""

NAMES = {"found", "told", "made", "heard", "meant", "lacking", "fallen", "untold"}
"""Parts of identifiers that do not say what a variable or function holds."""

SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".ini", ".j2", ".js", ".css"}
LEFT_OUT = ("CHANGELOG.md", "leaderboards/published/", "tests/documentation/test_voice.py")
"""History, the texts of published runs, and this file."""

GENERATED = re.compile(r"\]\]\] -->.*?<!-- \[\[\[end\]\]\]", re.DOTALL)
"""Boards in pages: their notes are those of published runs."""


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [name for name in listed.splitlines() if Path(name).suffix in SUFFIXES]
    return [ROOT / name for name in files if not name.startswith(LEFT_OUT) and ".min." not in name]


FILES = tracked() if (ROOT / ".git").exists() else []


def wrong_words(text: str) -> list[str]:
    """The forbidden words of a text, each with its line."""
    pattern = rf"(?<![.\w-])({'|'.join(WORDS)})(?![\w-])"
    text = GENERATED.sub(lambda block: "\n" * block[0].count("\n"), text)
    return [
        f"line {number}: '{match[1]}', expected {WORDS[match[1].lower()]}"
        for number, line in enumerate(text.splitlines(), 1)
        for match in re.finditer(pattern, line, re.IGNORECASE)
    ]


def wrong_names(source: str) -> list[str]:
    """The forbidden identifiers that Python source defines, each with its line."""
    wrong: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        defined: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.append(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.append(node.id)
        elif isinstance(node, ast.arg):
            defined.append(node.arg)
        wrong += [(node.lineno, name) for name in defined if NAMES & {*name.strip("_").lower().split("_")}]
    return [f"line {line}: {name}" for line, name in sorted(wrong)]


@pytest.mark.skipif(not FILES, reason="no git repository: an unpacked archive has no list of files")
def test_no_file_uses_a_word_that_the_style_guide_replaces() -> None:
    wrong = {file: wrong_words(file.read_text(encoding="utf-8")) for file in FILES}
    assert {str(file.relative_to(ROOT)): lines for file, lines in wrong.items() if lines} == {}


@pytest.mark.skipif(not FILES, reason="no git repository: an unpacked archive has no list of files")
def test_identifiers_of_the_package_name_their_content() -> None:
    sources = [file for file in FILES if file.suffix == ".py" and "tests" not in file.parts]
    wrong = {file: wrong_names(file.read_text(encoding="utf-8")) for file in sources}
    assert {str(file.relative_to(ROOT)): lines for file, lines in wrong.items() if lines} == {}


def test_the_word_list_catches_what_it_is_for() -> None:
    assert wrong_words("The model hears it.\nIt was TOLD.") == [
        "line 1: 'hears', expected classifies, transcribes or receives",
        "line 2: 'TOLD', expected reported or described",
    ]
    assert wrong_words("file.tell() retold shell storytelling") == []
    assert wrong_names("found = 1\ndef _rows_told(made): pass\nbackground = foundation = 2") == [
        "line 1: found", "line 2: _rows_told", "line 2: made",
    ]  # fmt: skip
