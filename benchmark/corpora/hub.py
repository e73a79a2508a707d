"""Any data set of the Hugging Face Hub that has sound and labels, or a local copy of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, ClassVar, Final

from advser.corpora.base import COLUMNS, Corpus, require_folder
from advser.corpora.groups import spelling
from advser.errors import InputError
from advser.plugins.parameters import parameter

if TYPE_CHECKING:
    from datasets import Dataset

GENDERS: Final = {"f": "f", "female": "f", "woman": "f", "m": "m", "male": "m", "man": "m"}
"""Spelling of a gender, in any case → its code; any other spelling counts as unknown."""

SAVED: Final = ("dataset_dict.json", "state.json")
"""Files of which a folder from ``save_to_disk`` of `datasets` holds at least one."""


class Hub(Corpus):
    """A data set of the Hugging Face Hub, by its name or as a local copy.

    A local copy is a download (Parquet files with the sound in them) or a folder from ``save_to_disk``. The sound is
    read undecoded, as bytes. A copy that holds only the paths of its sound files is refused, since `digest` would not
    cover them. Code of a data set is never run.
    """

    title: ClassVar[str] = "Hugging Face data set"
    licence: ClassVar[str] = "as its card states"
    source: ClassVar[str] = "https://huggingface.co/datasets; parameter 'name' downloads a data set"

    language: str = parameter("en", about="spoken language, ISO 639-1 code", pattern="^[a-z]{2}$")
    name: str = parameter("", about="owner/name on the Hub; downloaded if no directory is given")
    revision: str = parameter("main", about="commit hash, tag or branch to download")
    subset: str | None = parameter(None, about="configuration of the data set; none: its default")
    splits: tuple[str, ...] | None = parameter(None, about="splits to read; none: all", strict=False)
    audio: str = parameter("audio", about="column with the sound")
    label: str = parameter("label", about="column with the emotion")
    speaker: str = parameter("", about="column with the speaker; empty: no such column")
    gender: str = parameter("", about="column with the gender (such as f, Male, woman); empty: no such column")
    text: str = parameter("", about="column with the spoken words; empty: no such column")

    def fetch(self) -> Path | None:
        """Return the data set's folder in Hugging Face's own cache, with missing files downloaded; None without a name.

        Raises:
            InputError: if the data set is neither cached nor reachable, or the Hub has no such data set or revision.
        """
        if not self.name:
            return None
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.name, repo_type="dataset", revision=self.revision))
        except (OSError, ValueError) as error:
            raise InputError(
                f"corpus 'hub': {self.name} at {self.revision}: got '{_one_line(error)}', expected a download, "
                "or a copy with --data hub=DIR"
            ) from error

    def read(self, directory: Path | None) -> Dataset:
        """Return the rows of the chosen splits, in their order; column ``split`` holds the split's name.

        Raises:
            InputError: if the folder is no readable data set, or a split, a column or the sound is missing.
        """
        from datasets import concatenate_datasets

        loaded = self._load_splits(require_folder(directory, "hub", self.source))
        wanted = list(loaded) if self.splits is None else list(dict.fromkeys(self.splits))
        absent = [split for split in wanted if split not in loaded]
        if absent or not wanted:
            raise InputError(f"corpus 'hub': got no split {', '.join(absent)}, expected {', '.join(loaded) or 'any'}")
        rows = concatenate_datasets([self._rows(split, loaded[split]) for split in wanted])
        return rows.select_columns(list(COLUMNS))

    def files(self, directory: Path | None) -> list[Path]:
        """Return every file of the folder that is not hidden, sorted."""
        root = require_folder(directory, "hub", self.source)
        files = sorted(path for path in root.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(root)))
        if not files:
            raise InputError(f"corpus 'hub': {root}: got an empty folder, expected Parquet or Arrow files")
        return files

    def digest(self, directory: Path | None) -> str:
        """Hash the contents of `files` and their places in ``directory``."""
        root = require_folder(directory, "hub", self.source)
        digest = hashlib.sha256()
        for path in self.files(directory):
            # Hugging Face's cache links to files named by their contents, so the place of the link counts.
            with path.open("rb") as file:
                place = path.relative_to(root).as_posix()
                digest.update(f"{place}\n".encode() + hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def _load_splits(self, root: Path) -> Mapping[str, Dataset]:
        from datasets import Dataset, load_dataset, load_from_disk
        from datasets.exceptions import DatasetsError

        try:
            if any((root / name).is_file() for name in SAVED):
                loaded = load_from_disk(str(root))
            else:
                loaded = load_dataset(str(root), self.subset)
        except (OSError, ValueError, DatasetsError) as error:
            raise InputError(f"corpus 'hub': {root}: got '{_one_line(error)}', expected a readable data set") from error
        return {str(loaded.split or "all"): loaded} if isinstance(loaded, Dataset) else loaded

    def _rows(self, split: str, part: Dataset) -> Dataset:
        from datasets import Audio

        named = {"label": self.label, "speaker": self.speaker, "gender": self.gender, "text": self.text}
        absent = [column for column in (self.audio, *filter(None, named.values())) if column not in part.column_names]
        if absent:
            raise InputError(
                f"corpus 'hub': split '{split}': got no column {', '.join(absent)}, "
                f"expected {', '.join(part.column_names)}"
            )
        values = {column: _texts(part, source) for column, source in named.items()}
        values["gender"] = [GENDERS.get(spelling(value).casefold(), "") for value in values["gender"]]
        values["clip"] = [f"{split}/{row:06}" for row in range(len(part))]
        values["split"] = [split] * len(part)
        _refuse_paths(part, self.audio, split)
        rows = part.select_columns([self.audio]).rename_columns({self.audio: "audio"})
        rows = rows.cast_column("audio", Audio(decode=False))
        for column, texts in values.items():
            rows = rows.add_column(column, texts)
        return rows


def _texts(part: Dataset, column: str) -> list[str]:
    """Return a column as text, class numbers as their names, missing values as empty strings."""
    if not column:
        return [""] * len(part)
    names = getattr(part.features[column], "names", None)
    values: list[Any] = list(part[column])
    if names:
        # An unlabelled row has class −1.
        return ["" if value is None or value < 0 else names[value] for value in values]
    # A column of numbers with gaps holds NaN, which differs from itself.
    return ["" if value is None or value != value else str(value) for value in values]


def _refuse_paths(part: Dataset, column: str, split: str) -> None:
    """Raise InputError if any clip of the column has no bytes of sound."""
    import pyarrow as pa
    import pyarrow.compute as pc

    stored = part.with_format("arrow").select_columns([column])[:][column]
    kind = stored.type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise InputError(f"corpus 'hub': split '{split}': column '{column}': got {kind}, expected sound with its bytes")
    without = pc.struct_field(stored, "bytes").null_count
    if without:
        raise InputError(
            f"corpus 'hub': split '{split}': got {without} of {len(part)} clips without bytes in column '{column}', "
            "expected a copy with the sound in it (to_parquet and push_to_hub embed it)"
        )


def _is_hidden(place: Path) -> bool:
    return any(part.startswith(".") for part in place.parts)


def _one_line(error: BaseException) -> str:
    return shorten(str(error), 300, placeholder=" …") or type(error).__name__
