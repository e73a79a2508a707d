"""Removes drawn files that results no longer have; the list ``drawn.json`` names the files of the last drawing."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from advser.leaderboards.boards.exhibits import exhibits
from advser.results.folder import Results
from advser.results.schema import SAMPLES_FOLDER
from advser.store.files import replacing
from advser.suite.exhibits import DRAWN_AXES, DRAWN_METRICS, Pictures
from advser.suite.texts import file_part

DRAWN_FILE: Final = "drawn.json"
"""The list of drawn files in a folder, as paths relative to the folder."""

_OWNED: Final = re.compile(
    rf"boards/[^/\\]+\.(txt|md|tex|csv)|figures/[^/\\]+\.(svg|png)|{SAMPLES_FOLDER}/[^/\\]+\.png|assets/[^/\\]+|page/[^/\\]+\.js"
)
"""Paths that a drawing writes; the list of a folder from elsewhere removes nothing else."""


def remove_leftovers(results: Results, directory: Path, written: Collection[Path]) -> Path:
    """Remove the files of earlier drawings that ``written`` lacks, write ``drawn.json``, and return its path.

    In a folder without a list, the curves whose names match these results' parts are removed. A picture that the suite
    declares stays: without its sounds, which a licence may forbid to publish, no drawing makes it again. Files by any
    other name stay.

    Args:
        results: the results that were drawn.
        directory: their folder.
        written: every file that the drawing wrote.
    """
    current = {path.relative_to(directory).as_posix() for path in written if path.is_relative_to(directory)}
    pictures = declared_pictures(results)
    earlier = _listed(directory)
    for name in _curves(results, directory) if earlier is None else earlier:
        path = directory / name
        if path.parent.name == "figures" and path.stem in pictures and path.is_file():
            current.add(name)
        elif name not in current:
            path.unlink(missing_ok=True)
    place = directory / DRAWN_FILE
    with replacing(place) as beside:
        beside.write_text(json.dumps(sorted(current), indent=1) + "\n", encoding="utf-8")
    return place


def declared_pictures(results: Results) -> set[str]:
    """Return the names of the pictures of sounds that the run's suite declares."""
    return {exhibit.pictures for exhibit in exhibits(results) if isinstance(exhibit, Pictures)}


def _listed(directory: Path) -> list[str] | None:
    """Return the paths in ``drawn.json`` that a drawing may have written; None without a list that can be read."""
    try:
        names = json.loads((directory / DRAWN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(names, list):
        return None
    return [name for name in names if isinstance(name, str) and _OWNED.fullmatch(name)]


def _curves(results: Results, directory: Path) -> Iterator[str]:
    """Yield the files in ``figures/`` that are named like a curve of these results."""
    parts = {file_part(part) for part in results.table["part"].unique() if part}
    suffix = f"(-({'|'.join(map(re.escape, sorted(parts)))}))?" if parts else ""
    name = re.compile(rf"({'|'.join(DRAWN_METRICS)})-against-({'|'.join(DRAWN_AXES)}){suffix}(_\d+)?\.(svg|png)")
    for path in sorted((directory / "figures").glob("*")):
        if name.fullmatch(path.name):
            yield f"figures/{path.name}"
