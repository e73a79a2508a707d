"""Broken input of every kind: one line and exit code 2, or a result; no traceback, and nothing left behind.

`tox -e fuzz` tries CASES inputs; without that variable a few of each kind are tried.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import pytest
import soundfile
import synthetic
import yaml
from commandline import advser_here
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import DEMO

KINDS = 6
CASES = int(os.environ.get("CASES", "120"))
"""Inputs of all kinds together."""

LONGEST = 60
"""Seconds after which a case counts as a runaway."""

fuzzed = settings(
    max_examples=max(1, CASES // KINDS),
    derandomize=True,
    deadline=None,
    suppress_health_check=[*HealthCheck],
    database=None,
)
pytestmark = pytest.mark.fuzz


@contextmanager
def limited() -> Iterator[None]:
    """Fail a case that takes too long."""

    def fail(number: int, frame: Any) -> NoReturn:
        raise AssertionError(f"a runaway: more than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def tried(folder: Path, *words: str | Path, kept: str = "store") -> int:
    """Run a command in a folder, check how it ends, and return its exit code."""
    before = files(folder)
    with limited():
        done = advser_here(*words, cwd=folder)
    assert done.returncode in (0, 1, 2, 3), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if done.returncode == 2:
        lines = done.stderr.splitlines()
        assert lines, words
        assert lines[-1].startswith("advser: "), done.stderr
        assert len(lines[-1]) < 2000
        assert lines[-1].isprintable(), lines[-1]
        left = {name for name in files(folder) - before if name.partition("/")[0] != kept}
        assert not left, left
    return done.returncode


# Values that a hand or a program may write by mistake.
SCALARS = st.sampled_from(
    [
        None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 10**400, 0.0, -0.5, 1e-300, 1e300, float("inf"),
        float("-inf"), float("nan"), "", " ", "a", "none", "fgsm", "[", "{", "\n", "\t=1", "\x1b[31m", "\x00", "é",
        "e\u0301", "\ud800", "../x", "/etc/passwd", "a/b", "*", "?", "a" * 300, "1e9", "2001-99-99", "$x^2", "<b>",
    ]
)  # fmt: skip
JUNK = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | SCALARS.map(str), inner, max_size=3)
    ),
    max_leaves=5,
)
SUITE: dict[str, Any] = {
    "name": "small", "title": "A suite", "notes": ["a note"], "corpus": "demo", "task": "emotion", "protocol": "3pair",
    "folds": ["fold1"], "classes": ["anger", "sadness"], "seeds": [0], "bootstrap": 20, "batch_size": 16,
    "training": {"iterations": 5, "batch_size": 4, "learning_rate": 1e-3, "fit_on": "train"},
    "models": [{"name": "tiny", "params": {"frames": 32}, "label": "small"}],
    "defenses": ["none", {"name": "vanilla", "params": {"attack": {"name": "fgsm", "params": {"epsilon": 0.06}}}}],
    "attacks": [{"name": "noise", "params": {"epsilon": [0.001, 0.002]}, "domain": "waveform", "labels": ["true"]}],
    "metrics": ["uar", "accuracy", "snr"], "transcriber": "none", "noise": False, "audit": False,
    "worst": [{"name": "worst"}],
}  # fmt: skip


def places(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places within plain data, the outermost included."""
    yield place
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*place, key))


def replaced(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return plain data with another value at a place."""
    if not place:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[place[0]] = replaced(data[place[0]], place[1:], value)
    return copy


@st.composite
def mutated(draw: st.DrawFn, data: Any) -> Any:
    """Plain data with junk in up to three places."""
    for _ in range(draw(st.integers(1, 3))):
        data = replaced(data, draw(st.sampled_from([*places(data)])), draw(JUNK))
    return data


@st.composite
def damaged(draw: st.DrawFn, contents: bytes) -> bytes:
    """Bytes of which some are changed, cut off or repeated."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(contents) - 1)))
        change = draw(st.sampled_from(["cut", "flip", "insert", "repeat"]))
        if change == "cut":
            contents = contents[:at]
        elif change == "repeat":
            contents += contents[:at]
        else:
            new = draw(st.binary(min_size=1, max_size=8))
            contents = contents[:at] + new + contents[at + len(new) * (change == "flip") :]
    return contents


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


TEXTS = st.one_of(
    mutated(SUITE).map(lambda data: dumped(data)),
    damaged(yaml.safe_dump(SUITE).encode()),
    st.sampled_from(
        [
            b"a: &a [*a]", b"x: !!int abc", b"x: 2001-99-99", b"!!python/object/apply:os.getcwd []", b"- " * 3000,
            b"a: &a [1,2,3]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\nd: &d [*c,*c,*c]\ne: [*d,*d,*d]", b"\xff\xfe", b"",
            b"{" * 500, b"? " * 500, b"name: [\n", b"name: a\nname: b", b"parts: {a: {training: x}}",
        ]
    ),
)  # fmt: skip


def dumped(data: Any) -> bytes:
    try:
        return yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass")
    except (yaml.YAMLError, ValueError):
        return json.dumps(data, default=str).encode("utf-8", "surrogatepass")


@fuzzed
@given(text=TEXTS)
def test_suites(text: bytes, store: Path) -> None:
    with TemporaryDirectory() as name:
        (Path(name) / "suite.yaml").write_bytes(text)
        tried(Path(name), "run", "suite.yaml", "--store", store, "--dry-run")


KEYS = ["attack", "model", "training.iterations", "seed", "attacks", "folds", "demo", ""]
VALUES = st.tuples(st.sampled_from(KEYS), SCALARS.map(str)).map("=".join) | SCALARS.map(str) | st.text(max_size=12)
NAMES = [
    "--set", "--only", "--where", "--metrics", "--by", "--format", "--columns", "--pivot", "--decimals", "--data",
    "--out", "--store", "--plugin", "--external", "--workers", "--device", "--param",
]  # fmt: skip
OPTIONS = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=4)
COMMANDS = [
    ("run", "mock", "--dry-run"), ("board", "results"), ("compare", "results", "results"), ("list",),
    ("list", "attacks"), ("show", "attack", "fgsm"), ("show", "attack"), ("check", "attack", "fgsm"),
    ("check", "attack", "none-such"), ("figure", "results", "uar-against-epsilon"), ("hide", "a.wav", "b.wav"),
    ("submit", "results"), ("verify", "a.zip"), ("draw", "none-such"),
]  # fmt: skip


@fuzzed
@given(command=st.sampled_from(COMMANDS), options=OPTIONS)
def test_options(command: tuple[str, ...], options: list[tuple[str, str]], store: Path) -> None:
    words = [word for option in options for word in option if "\0" not in word]
    # A suite of its own would train; a check of a plugin without a fault takes half a minute.
    if command[:1] == ("check",) and not words:
        words = ["--param", "x=1"]
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "results").mkdir()
        synthetic.results().save(folder / "results")
        soundfile.write(folder / "a.wav", [0.0] * 16_000, 16_000)
        reads = ("board", "compare", "list", "show", "submit", "draw", "figure")
        own = [] if command[0] in reads else ["--store", str(store)]
        tried(folder, *command, *own, *words)


STATEMENTS = [
    "import sys; sys.exit(0)", "import sys; sys.exit('bye')", "raise BaseException", "raise KeyError",
    "raise GeneratorExit", "1/0", "def f(): return f()\nf()", "import no_such_module",
    "import advser\n@advser.attack('x')\nclass X: pass",
    "import advser\n@advser.attack('A B')\ndef x(target, x, labels, generator): return x", "x = (", "\0", "\xff", "",
    "import advser\n@advser.attack('own')\ndef own(): return 1",
    "import advser\n@advser.attack('own', domains=('air',))\ndef own(target, x, labels, generator): return x",
    "import advser\nfrom advser.plugins import budget\n@advser.attack('own')\n"
    "def own(target, x, labels, generator, *, epsilon: float = budget()): return x",
    "import advser\nadvser.attack('fgsm')(int)", "import advser\n@advser.model('m')\nclass M: pass",
    "import advser\n@advser.metric('m')\nclass M:\n  title = 1", "from advser.plugins import *", "raise SystemExit(0)",
    "import advser\nfrom advser.plugins import Attack\n@advser.attack('own')\nclass O(Attack):\n  budget = 3",
    "class E(Exception):\n  def __str__(self): return '\\x1b[31m' + 'x' * 9000\nraise E",
    "class E(Exception):\n  def __str__(self): raise ValueError\nraise E",
]  # fmt: skip


@fuzzed
@given(lines=st.lists(st.sampled_from(STATEMENTS), min_size=1, max_size=2), number=st.integers(0, 10**9))
def test_plugins(lines: list[str], number: int) -> None:
    with TemporaryDirectory() as name:
        file = f"plugin{number}.py"
        (Path(name) / file).write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
        assert tried(Path(name), "list", "attacks", "--plugin", file, kept="__pycache__") in (0, 2)


RUN = {
    **synthetic.results().run,
    "suite": {"name": "small", "parts": {}, "attacks": []},
    "audit": {"checks": {}, "needs": {}, "looked_at": {}, "flags": []},
}  # fmt: skip


@fuzzed
@given(
    run=mutated(RUN),
    broken=st.sampled_from(["run.json", "results.parquet", "examples.parquet", "ranks.parquet"]),
    contents=st.none() | damaged(b"PAR1" + bytes(64)),
    command=st.sampled_from(
        [("board",), ("board", "--by", "audit"), ("board", "--format", "latex"), ("compare", "other")]
    ),
)
def test_results_folders(run: Any, broken: str, contents: bytes | None, command: tuple[str, ...]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        for own in ("results", "other"):
            (folder / own).mkdir()
            synthetic.results().save(folder / own)
        if contents is None:
            text = json.dumps(run, default=str).encode("utf-8", "surrogatepass")
            (folder / "results" / "run.json").write_bytes(text)
        else:
            (folder / "results" / broken).write_bytes(contents)
        tried(folder, command[0], *(word for word in command[1:] if word == "other"), "results", *_others(command))


def _others(command: tuple[str, ...]) -> list[str]:
    return [word for word in command[1:] if word != "other"]


WAV = next(DEMO.rglob("*.flac"))


def encoded(form: str) -> bytes:
    """A clip of the demo corpus in a format."""
    samples, rate = soundfile.read(WAV)
    with TemporaryDirectory() as name:
        path = Path(name) / f"clip.{form}"
        soundfile.write(path, samples, rate)
        return path.read_bytes()


@fuzzed
@given(
    form=st.sampled_from(["wav", "flac", "mp3", "ogg"]).flatmap(
        lambda form: st.tuples(st.just(form), damaged(encoded(form)))
    ),
    table=st.none() | damaged(b"file,speaker,label,text\na.wav,f1,anger,a\nb.wav,f2,sadness,b\n"),
)
def test_audio(form: tuple[str, bytes], table: bytes | None, store: Path) -> None:
    suffix, contents = form
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        rows = ["file,speaker,label,text"]
        for speaker in ("f1", "f2", "f3"):
            for label in ("anger", "sadness"):
                clip = f"{speaker}_{label}.{suffix}"
                (folder / "corpus" / clip).write_bytes(contents if speaker == "f2" else encoded(suffix))
                rows.append(f"{clip},{speaker},{label},{speaker} {label}")
        (folder / "corpus" / "metadata.csv").write_bytes(table if table is not None else "\n".join(rows).encode())
        suite = {**SUITE, "corpus": "folder", "protocol": "loso", "folds": ["f1"]}
        (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
        words = ("run", "suite.yaml", "--data", "folder=corpus", "--store", "own", "--dry-run")
        tried(folder, *words, kept="own")


@fuzzed
@given(data=st.data())
def test_submissions(data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        _pack(folder, data.draw)
        tried(folder, "verify", "claim.zip")


def _pack(folder: Path, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """Write a submission that is wrong in one way; none has a plugin file, and none can be run."""
    synthetic.results().save(folder / "claim")
    contents = {path.name: path.read_bytes() for path in (folder / "claim").iterdir()}
    shutil.rmtree(folder / "claim")
    contents["submission.json"] = json.dumps(draw(mutated({"advser": "1", "files": dict.fromkeys(contents, "0" * 64)}))
                                             , default=str).encode("utf-8", "surrogatepass")  # fmt: skip
    names = st.sampled_from(["../x", "/x", "a/" * 2000, "plugins/x.py", "x\0y", "", "C:\\x", "x" * 300])
    with zipfile.ZipFile(folder / "claim.zip", "w") as archive:
        for name, part in contents.items():
            archive.writestr(name, part)
        if draw(st.booleans()):
            archive.writestr(draw(names) or "x", draw(st.binary(max_size=20)))
    if draw(st.booleans()):
        packed = (folder / "claim.zip").read_bytes()
        (folder / "claim.zip").write_bytes(draw(damaged(packed)))
