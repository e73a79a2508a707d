"""The documentation: tests run or parse every block of code, check commands and plugins, and build the site."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import synthetic
import yaml
from places import PUBLISHED, ROOT, TESTS
from shown import blocks, commands, unknown_options

from advser.audit import plugin_contract as contract
from advser.corpora.base import COLUMNS
from advser.corpora.decode import decode
from advser.errors import InputError
from advser.plugins.parameters import build
from advser.plugins.registries import BY_KIND, REGISTRIES
from advser.plugins.registry import load_plugin_file, plugin_names
from advser.suite.loading import load
from advser.suite.schema import Suite

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
EVERY = [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in PAGES]
LANGUAGES = {"python", "yaml", "sh"}
SUITE = {
    "name": "demo", "corpus": {"name": "demo"}, "protocol": "3pair", "models": [{"name": "cnn4"}],
    "defenses": [{"name": "none"}], "metrics": [{"name": "uar"}],
}  # fmt: skip


FACE = "advser.plugins"
"""The module from which plugins import everything of AdvSER's."""

BESIDE_THE_FACE = {"example_processing.py": {"advser.defenses.processing"}}
"""File of a plugin → other modules of AdvSER's that it may import."""


def shown(language: str) -> Iterator[Any]:
    for page in PAGES:
        for number, block in enumerate(blocks(page.read_text(encoding="utf-8"), language)):
            yield pytest.param(block, id=f"{page.relative_to(ROOT).as_posix()}-{number}")


@pytest.mark.parametrize("page", EVERY)
def test_every_block_is_in_a_language_that_is_tested(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)$", text, flags=re.MULTILINE)
    assert set(fences[::2]) <= {*LANGUAGES, ""}
    assert set(fences[1::2]) <= {""}
    # Blocks without a language show the output of commands or the contents of files.
    printed = re.sub(r"^```\w+\n.*?^```\n", "", text, flags=re.DOTALL | re.MULTILINE)
    for block in blocks(printed, ""):
        assert not re.search(r"^(import|from|def|class|advser) |^@\w", block, flags=re.MULTILINE), block


@pytest.mark.parametrize("page", EVERY)
def test_every_option_that_a_page_shows_exists(page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        assert unknown_options(line) == set(), line


@pytest.mark.parametrize("block", [*shown("python")])
def test_every_block_of_python_works(block: str, tmp_path: Path) -> None:
    if "(advser_result)" in block:
        _run_as_test(block, tmp_path)
    elif named := re.match(r"# (\w+\.py)", block):
        _use_plugins(block, named[1], tmp_path)
    else:
        _run_as_script(block, tmp_path)


def _run_as_test(block: str, folder: Path) -> None:
    (folder / "conftest.py").write_text(GIVEN.format(tests=str(TESTS), suite=SUITE), encoding="utf-8")
    (folder / "test_shown.py").write_text(block, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "test_shown.py"]
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout


def _run_as_script(block: str, folder: Path) -> None:
    synthetic.results(suite=SUITE).save(_folder(folder / "results" / "demo"))
    completed = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr


def _use_plugins(block: str, file: str, folder: Path) -> None:
    """Load a plugin file; check each plugin's description, and its contract or, without a contract, its use."""
    modules = set(re.findall(r"^(?:from|import) (advser[\w.]*)", block, flags=re.MULTILINE))
    assert FACE in modules
    assert modules <= {FACE, *BESIDE_THE_FACE.get(file, ())}
    (folder / file).write_text(block, encoding="utf-8")
    names = plugin_names(load_plugin_file(folder / file), REGISTRIES.values())
    assert names
    for name in names:
        (kind,) = [kind for kind, registry in BY_KIND.items() if name in registry.decorated()]
        try:
            USES[kind](name, folder)
        finally:
            BY_KIND[kind].withdraw(name)


def _check_contract(kind: str, params: dict[str, Any]) -> Callable[[str, Path], None]:
    """Return a function that checks a plugin's description and contract, as `advser check` does."""

    def check(name: str, folder: Path) -> None:
        findings = [*contract.described(kind, name), *contract.CONTRACTS[kind](BY_KIND[kind].get(name), params)]
        assert findings
        assert [finding for finding in findings if finding.wrong] == []

    return check


def _read_corpus(name: str, folder: Path) -> None:
    """Read two clips, decode them, and check the message for an empty folder."""
    _check_parameters("corpus", name)
    corpus = build(BY_KIND["corpus"].get(name), {}, name)
    with pytest.raises(InputError, match=r"got .*, expected"):
        corpus.read(_folder(folder / "empty"))
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
    for file in ("anger/anna_01.wav", "sadness/bob_01.wav"):
        soundfile.write(_folder((folder / "recordings" / file).parent) / Path(file).name, sound, 16_000)
    recordings = folder / "recordings"
    dataset = corpus.read(recordings)
    assert dataset.column_names == list(COLUMNS)
    rows, clips, classes = decode(dataset)
    assert classes == ("anger", "sadness")
    assert rows["speaker"].tolist() == ["anna", "bob"]
    assert [len(clip) for clip in clips] == [8000, 8000]
    before = corpus.digest(recordings)
    soundfile.write(recordings / "anger" / "anna_01.wav", sound / 2, 16_000)
    assert corpus.digest(recordings) != before


def _transcribe(name: str, folder: Path) -> None:
    """Transcribe two clips by a program that prints the language and the number of samples."""
    _check_parameters("transcriber", name)
    plugin = BY_KIND["transcriber"].get(name)
    program = folder / "recogniser"
    absent = build(plugin, {"program": str(program)}, name)
    assert "not found" in absent.unavailable("en")
    assert absent.fingerprint("en") == ""
    program.write_text(RECOGNISER.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    transcriber = build(plugin, {"program": str(program)}, name)
    assert transcriber.unavailable("en") is None
    assert transcriber.fingerprint("en")
    clips = [np.zeros(1600, np.int16), np.zeros(3200, np.int16)]
    assert [*transcriber.transcribe(clips, "en", [])] == ["en 1600", "en 3200"]


def _check_parameters(kind: str, name: str) -> None:
    assert [finding for finding in contract.described(kind, name) if finding.wrong] == []


USES: dict[str, Callable[[str, Path], None]] = {
    "attack": _check_contract("attack", {"epsilon": 0.004}),
    "defense": _check_contract("defense", {}),
    "model": _check_contract("model", {}),
    "metric": _check_contract("metric", {}),
    "corpus": _read_corpus,
    "transcriber": _transcribe,
}
"""Kind of plugin → what uses a plugin of this name, given an empty folder."""

RECOGNISER = """#!{python}
import sys
import wave

with wave.open(sys.stdin.buffer) as file:
    assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
    print(sys.argv[1], file.getnframes())
"""


def test_the_page_on_plugins_has_a_plugin_of_each_kind() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    decorators = re.findall(r"^@(\w+)\(.*\n(class|def) ", text, flags=re.MULTILINE)
    assert {kind for kind, _ in decorators} == set(BY_KIND)
    assert ("attack", "def") in decorators


GIVEN = """
import sys
from inspect import signature
from pathlib import Path

import pytest

sys.path.append({tests!r})


@pytest.fixture
def advser_result(tmp_path):
    import synthetic
    from advser.api import Run, run
    from advser.commands.pytest_plugin import Checked
    from advser.results.selection import select

    def given(*suite, **options):
        signature(run).bind(*suite, **options)
        results = select(synthetic.results(suite={suite!r}), {{"model": "cnn4"}})
        results.save(tmp_path / "base")
        return Checked(Run(tmp_path / "base", results), tmp_path / "base")

    return given
"""


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("block", [*shown("yaml")])
def test_every_block_of_yaml_is_a_suite_or_a_part_of_one(block: str, tmp_path: Path) -> None:
    data = yaml.safe_load(block)
    if isinstance(data, dict) and "name" in data:
        (tmp_path / "shown.yaml").write_text(block, encoding="utf-8")
        assert load(str(tmp_path / "shown.yaml")).name == data["name"]
        return
    others = {"name": "shown", "corpus": "demo", "protocol": "3pair", "models": ["tiny"], "defenses": ["none"]}
    keys = data if isinstance(data, dict) else {"attacks": data}
    Suite.model_validate({**others, "metrics": ["uar"], **keys})


def test_the_reference_has_every_suite_key_and_plugin() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert [key for key in Suite.model_fields if f"| `{key}` |" not in text] == []
    shipped = [name for registry in REGISTRIES.values() for name in registry if name not in registry.decorated()]
    assert [name for name in shipped if f"### `{name}`" not in text] == []


def test_the_glossary_is_in_alphabetical_order() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = [term.replace("ε", "epsilon").lower() for term in re.findall(r"^- \*\*(.+?)\*\*", text, flags=re.MULTILINE)]
    assert terms
    assert terms == sorted(set(terms))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a warning."""
    pytest.importorskip("mkdocs", reason="MkDocs is not installed (extra docs)")
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def read_by(page: Path) -> list[str]:
    """The addresses of what a page loads."""
    text = re.sub(r"base64,[\w+/=]+", "", page.read_text(encoding="utf-8"))
    return re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', text)


def test_the_site_asks_for_nothing_from_a_network(site: Path) -> None:
    assert "https://" not in "".join(read_by(site / "index.html"))


def test_the_site_has_every_published_page_with_what_it_reads(site: Path) -> None:
    published = sorted(path.parent.name for path in PUBLISHED.glob("*/run.json"))
    assert sorted(path.parent.name for path in (site / "published").glob("*/index.html")) == published
    for name in published:
        folder = site / "published" / name
        addresses = [address for address in read_by(folder / "index.html") if not address.startswith("data:")]
        assert "../assets/page.js" in addresses
        assert [address for address in addresses if not (folder / address).is_file()] == []
        assert {path.suffix for path in (folder / "boards").iterdir()} == {".csv", ".tex", ".txt"}
        assert not (folder / "assets").exists()
        for sample in (folder / "samples").glob("*.flac"):
            assert sample.with_suffix(".png").is_file()


def test_the_files_that_pages_cite_are_what_draw_writes_byte_for_byte() -> None:
    command = [sys.executable, str(ROOT / "docs" / "published.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\nto draw them again: tox -e pages"
