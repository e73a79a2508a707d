"""Standard output and standard error of the installed command: other locales, lost readers, full disks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from commandline import ADVSER, advser
from places import PUBLISHED

RESULTS = PUBLISHED / "demo"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of Bash, in which ``$advser`` is the command and ``$results`` a results folder."""
    names = {"advser": str(ADVSER), "results": str(RESULTS)}
    return subprocess.run(
        ["bash", "-c", line],
        env={**os.environ, **names, **environment},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_locale_without_greek_letters_prints_all_boards(encoding: str) -> None:
    done = shell('"$advser" board "$results"', PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u03b5" in done.stdout


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ('"$advser" board "$results" >&-', 0, ""),
        ('"$advser" board "$results" 2>&-', 0, ""),
        ('"$advser" board missing 2>&-', 2, ""),
        ('"$advser" board "$results" | head -1; exit "${PIPESTATUS[0]}"', 0, ""),
        # The reader is gone, the verdict stays.
        ('"$advser" compare "$results" missing | true; exit "${PIPESTATUS[0]}"', 2, "missing"),
    ],
)
def test_a_lost_stream_changes_no_exit_code(line: str, code: int, error: str) -> None:
    done = shell(line)
    assert (done.returncode, bool(done.stderr)) == (code, bool(error))
    assert error in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_behind_standard_output_is_named() -> None:
    done = shell('"$advser" list models > /dev/full')
    assert (done.returncode, done.stderr) == (2, "advser: standard output: No space left on device\n")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ('run mock --store "$here/store" --out "$here/out" --workers 1', "store"),
        ('figure "$results" uar-against-epsilon "$here/new/figure.pdf"', "new/figure.pdf"),
    ],
)
def test_a_full_disk_names_the_place_and_leaves_no_file(command: str, named: str, tmp_path: Path) -> None:
    # A limit on the size of files stands for the full disk: the error comes from the same call.
    done = shell(f'ulimit -f 1; "$advser" {command}', here=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"advser: {tmp_path / named}: File too large"
    assert "Traceback" not in done.stderr
    assert [path for path in tmp_path.rglob("*") if path != tmp_path / "store"] == []


@pytest.mark.parametrize("words", [["run", "demo", "--store", ""], ["board", ""], ["run", "demo", "--out", ""]])
def test_an_empty_argument_is_no_folder(words: list[str], tmp_path: Path) -> None:
    done = advser(*words, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "got an empty argument after it, expected a value" in done.stderr
    assert list(tmp_path.iterdir()) == []
