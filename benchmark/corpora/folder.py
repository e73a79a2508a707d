"""Any folder of recordings with a ``metadata.csv``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from advser.corpora.base import Corpus, require_folder
from advser.corpora.rows import METADATA, read_metadata, to_dataset
from advser.plugins.parameters import parameter

if TYPE_CHECKING:
    from datasets import Dataset


class Folder(Corpus):
    """A directory with recordings and a ``metadata.csv``.

    Columns of the table: ``file`` (relative to the directory) and ``label``; optional ``speaker``, ``text``,
    ``gender`` (``f``, ``m`` or empty) and ``split`` (``train``, ``validation`` or ``test``, for the ``official``
    protocols). Without speakers, only the speaker-dependent protocols can split it.
    """

    title: ClassVar[str] = "Folder of recordings"
    licence: ClassVar[str] = "as its owner states"

    language: str = parameter("en", about="spoken language, ISO 639-1 code", pattern="^[a-z]{2}$")
    labels: tuple[str, ...] | None = parameter(None, about="allowed labels; none: any", strict=False)

    def read(self, directory: Path | None) -> Dataset:
        """Return the rows of ``metadata.csv``, in its order.

        Raises:
            InputError: as `advser.corpora.rows.read_metadata`, or if no directory is given.
        """
        return to_dataset(read_metadata(require_folder(directory, "folder"), self.labels))

    def files(self, directory: Path | None) -> list[Path]:
        """Return the table and the files it lists; errors as in `read`."""
        root = require_folder(directory, "folder")
        return sorted([root / METADATA, *(row.path for row in read_metadata(root, self.labels))])
