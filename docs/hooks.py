"""Hooks of MkDocs that copy published results and suites into the site and redirect the links to them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from published import drawn

ROOT = Path(__file__).parents[1]
PLACES = {"leaderboards/published": "published", "benchmark/suite/shipped": "suites"}
"""Folder of the repository → folder of the site."""

COPIED = (".html", ".css", ".js", ".png", ".svg", ".flac", ".json", ".txt", ".csv", ".tex", ".yaml")
"""Suffixes of the files that the site includes."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the published boards, pages and figures, as they are drawn now, and the shipped suites."""
    drawings = {"leaderboards/published": drawn()}
    for folder, place in PLACES.items():
        source = drawings.get(folder, ROOT / folder)
        for path in sorted(source.rglob("*")):
            if path.suffix in COPIED:
                uri = f"{place}/{path.relative_to(source).as_posix()}"
                files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links to folders of the repository by links to their copies in the site."""

    def redirected(match: re.Match[str]) -> str:
        up, folder, rest = match[1].removesuffix("../"), match[2], match[3]
        file = rest if Path(rest).suffix else f"{rest.rstrip('/')}/index.html"
        return f"]({up}{PLACES[folder]}/{file.removeprefix('/')})"

    folders = "|".join(map(re.escape, PLACES))
    return re.sub(rf"\]\(((?:\.\./)+)({folders})(/[^)#]*)\)", redirected, markdown)
