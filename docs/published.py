"""Draw the published results: git holds their tables, sounds, and the boards and figures that pages cite.

`python docs/published.py` writes the cited boards and figures again (`tox -e pages` does, after cog), and
`python docs/published.py --check` reports those that differ. The site shows all that is drawn (`docs/hooks.py`).
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from advser.leaderboards.leftovers import DRAWN_FILE, declared_pictures
from advser.leaderboards.write import write_all
from advser.results.folder import Results

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "leaderboards" / "published"
CACHE = ROOT / ".cache" / "published"
"""Drawing takes a minute or two. It is done again when tables, code or a library below change."""

SOURCES = ("*.parquet", "run.json", "samples/*.flac", "samples/index.json")
"""What a published folder is drawn from."""

CODE = ("advser", "advser.attacks", "advser.defenses", "advser.leaderboards", "advser.models")
LIBRARIES = ("jinja2", "matplotlib", "numpy", "pandas", "pillow", "pyarrow", "pyyaml", "soundfile", "tabulate")
CITED = re.compile(r"leaderboards/published/([a-z0-9-]+/(?:boards|figures)/[\w.-]+\.\w+)")


def drawn() -> Path:
    """Return a folder like `PUBLISHED` with each results folder drawn, and one ``assets/`` for all their pages.

    Pictures of sounds that a licence forbids to publish are copied, for no drawing makes them.
    """
    place = CACHE / _digest()
    if place.is_dir():
        return place
    CACHE.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=CACHE))
    try:
        shown = [Path(name) for name in cited()]
        for folder in folders():
            # The pages of the site show figures as SVG.
            bitmaps = {path.stem for path in shown if path.parts[0] == folder.name and path.suffix == ".png"}
            _draw(folder, beside / folder.name, bitmaps)
        for earlier in CACHE.iterdir():
            if earlier != beside and re.fullmatch(r"[0-9a-f]{64}", earlier.name):
                shutil.rmtree(earlier, ignore_errors=True)
        beside.chmod(0o755)
        beside.rename(place)
    except OSError:
        # Two processes may draw at once.
        if not place.is_dir():
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def folders() -> list[Path]:
    """Return the published results folders."""
    return sorted(path.parent for path in PUBLISHED.glob("*/run.json"))


def inputs(folder: Path) -> list[Path]:
    """Return the files of a published folder that cannot be drawn: tables, sounds, and pictures of absent sounds."""
    sources = [path for pattern in SOURCES for path in folder.glob(pattern)]
    if not (folder / "samples").is_dir():
        names = declared_pictures(Results.load(folder))
        sources += [path for path in folder.glob("figures/*") if path.stem in names and path.suffix in (".png", ".svg")]
    return sorted(sources)


def cited() -> dict[str, str]:
    """Return the boards and figures that pages cite: path within `PUBLISHED` → page."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {
        match[1]: page.relative_to(ROOT).as_posix()
        for page in pages
        for match in CITED.finditer(page.read_text(encoding="utf-8"))
    }


def differing() -> list[str]:
    """Return a line for each cited file that no drawing makes, or that differs from its drawing."""
    place = drawn()
    lines = []
    for name, page in cited().items():
        if not (place / name).is_file():
            lines.append(f"{page}: cites {name}, which `advser draw` does not write")
        elif not (PUBLISHED / name).is_file() or (PUBLISHED / name).read_bytes() != (place / name).read_bytes():
            lines.append(f"{PUBLISHED.relative_to(ROOT)}/{name}: differs from what `advser draw` writes")
    return lines


def refresh() -> None:
    """Write the cited files again."""
    place = drawn()
    for name in cited():
        if (place / name).is_file():
            (PUBLISHED / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(place / name, PUBLISHED / name)


def _draw(folder: Path, place: Path, bitmaps: set[str]) -> None:
    for path in inputs(folder):
        (place / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / path.relative_to(folder))
    write_all(Results.load(place), place, assets="../assets", bitmaps=bitmaps)
    (place / DRAWN_FILE).unlink()


def _digest() -> str:
    """Return a digest of all that drawing depends on."""
    digest = hashlib.sha256(" ".join([*(version(library) for library in LIBRARIES), *sorted(cited())]).encode())
    for path, name in _read():
        digest.update(f"\0{name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _read() -> Iterator[tuple[Path, str]]:
    """Yield each file that drawing reads, and the name that it has wherever the package is installed."""
    for folder in folders():
        yield from ((path, path.relative_to(PUBLISHED).as_posix()) for path in inputs(folder))
    for package in CODE:
        (root,) = import_module(package).__path__
        for path in sorted(Path(root).rglob("*")):
            name = path.relative_to(root)
            if path.is_file() and not {"published", "__pycache__"} & {*name.parts}:
                yield path, f"{package}/{name.as_posix()}"


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--check"]):
        raise SystemExit("usage: python docs/published.py [--check]")
    if not sys.argv[1:]:
        refresh()
    if lines := differing():
        raise SystemExit("\n".join(lines))
