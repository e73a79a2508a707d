"""The documentation: every block of code in it is run, parsed or held against what there is, and the site is built."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import synthetic
import yaml
from places import PUBLISHED, ROOT, TESTS
from shown import blocks, commands, unknown_options

from advser.audit import plugin_contract as contract
from advser.plugins.registries import BY_KIND, REGISTRIES
from advser.plugins.registry import load_plugin_file, plugin_names
from advser.suite.loading import load
from advser.suite.schema import Suite

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
EVERY = [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in PAGES]
LANGUAGES = {"python", "yaml", "sh"}
SUITE = {
    "name": "demo", "corpus": "demo", "protocol": "3pair", "models": ["cnn4"], "defenses": ["none"], "metrics": ["uar"],
}  # fmt: skip


def found(language: str) -> Iterator[Any]:
    for page in PAGES:
        for number, block in enumerate(blocks(page.read_text(encoding="utf-8"), language)):
            yield pytest.param(block, id=f"{page.relative_to(ROOT).as_posix()}-{number}")


@pytest.mark.parametrize("page", EVERY)
def test_every_block_is_in_a_language_that_is_tested(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)$", text, flags=re.MULTILINE)
    assert set(fences[::2]) <= {*LANGUAGES, ""}
    assert set(fences[1::2]) <= {""}
    # What has no language is what a command prints.
    printed = re.sub(r"^```\w+\n.*?^```\n", "", text, flags=re.DOTALL | re.MULTILINE)
    for block in blocks(printed, ""):
        assert not re.search(r"^(import|from|def|class|advser) |^@\w", block, flags=re.MULTILINE), block


@pytest.mark.parametrize("page", EVERY)
def test_every_option_that_a_page_shows_exists(page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        assert unknown_options(line) == set(), line


@pytest.mark.parametrize("block", [*found("python")])
def test_every_block_of_python_runs_and_plugins_keep_their_contract(block: str, tmp_path: Path) -> None:
    if "(advser_result)" in block:
        (tmp_path / "conftest.py").write_text(GIVEN.format(tests=str(TESTS), suite=SUITE), encoding="utf-8")
        (tmp_path / "test_shown.py").write_text(block, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "test_shown.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        return
    if not (named := re.match(r"# (\w+\.py)", block)):
        synthetic.results(suite=SUITE).save(_folder(tmp_path / "results" / "demo"))
        done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return
    (tmp_path / named[1]).write_text(block, encoding="utf-8")
    registered = plugin_names(load_plugin_file(tmp_path / named[1]), REGISTRIES.values())
    assert registered
    for name in registered:
        (kind,) = [kind for kind, registry in BY_KIND.items() if name in registry.decorated()]
        plugin = BY_KIND[kind].get(name)
        given = {"epsilon": 0.004} if kind == "attack" else {}
        findings = [*contract.described(kind, name), *contract.CONTRACTS[kind](plugin, given)]
        assert [finding for finding in findings if finding.wrong] == []
        BY_KIND[kind].withdraw(name)


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
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("block", [*found("yaml")])
def test_every_block_of_yaml_is_a_suite_or_a_part_of_one(block: str, tmp_path: Path) -> None:
    data = yaml.safe_load(block)
    if isinstance(data, dict) and "name" in data:
        (tmp_path / "shown.yaml").write_text(block, encoding="utf-8")
        assert load(str(tmp_path / "shown.yaml")).name == data["name"]
        return
    usual = {"name": "shown", "corpus": "demo", "protocol": "3pair", "models": ["tiny"], "defenses": ["none"]}
    whole = {**usual, "metrics": ["uar"], **(data if isinstance(data, dict) else {"attacks": data})}
    Suite.model_validate(whole)


def test_the_reference_has_every_suite_key_and_plugin() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert [key for key in Suite.model_fields if f"| `{key}` |" not in text] == []
    shipped = [name for registry in REGISTRIES.values() for name in registry if name not in registry.decorated()]
    assert [name for name in shipped if f"### `{name}`" not in text] == []


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
