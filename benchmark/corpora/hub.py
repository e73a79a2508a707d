"""Any data set of the Hugging Face Hub that has sound and labels, or a local copy of one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, ClassVar, Final

from advser.corpora.base import COLUMNS, Corpus, existing
from advser.errors import InputError
from advser.plugins.parameters import parameter

if TYPE_CHECKING:
    from datasets import Dataset

GENDERS: Final = {"f": "f", "female": "f", "woman": "f", "m": "m", "male": "m", "man": "m"}
"""How a gender may be written, in any case; any other is taken for unknown."""

SAVED: Final = ("dataset_dict.json", "state.json")
"""One of these is in a folder that `datasets` wrote with ``save_to_disk``."""


class Hub(Corpus):
    """A data set of the Hugging Face Hub, by its name or as a local copy.

    A local copy is what was downloaded (Parquet files with the sound in them), or what ``save_to_disk`` wrote. The
    sound is read undecoded, bytes and all; a copy that only tells where sound files are is refused, since `digest`
    would not cover them. Code of a data set is never run.
    """

    title: ClassVar[str] = "Hugging Face data set"
    licence: ClassVar[str] = "as its card says"
    source: ClassVar[str] = "https://huggingface.co/datasets, or give its parameter 'name'"

    language: str = parameter("en", about="ISO 639-1 code of what is spoken", pattern="^[a-z]{2}$")
    name: str = parameter("", about="owner/name on the Hub, which is downloaded if no directory is given")
    revision: str = parameter("main", about="commit hash, tag or branch that is downloaded")
    subset: str | None = parameter(None, about="the data set's configuration; none: its default")
    splits: tuple[str, ...] | None = parameter(None, about="the splits that are read; none: all", strict=False)
    audio: str = parameter("audio", about="column with the sound")
    label: str = parameter("label", about="column with the emotion")
    speaker: str = parameter("", about="column with the speaker; empty: there is none")
    gender: str = parameter("", about="column with the gender (such as f, Male, woman); empty: there is none")
    text: str = parameter("", about="column with what is said; empty: there is none")

    def fetch(self) -> Path | None:
        """Return the folder of the data set in Hugging Face's own cache; download what is not there yet.

        None if the data set has no name.

        Raises:
            InputError: if it is neither in the cache nor reachable, or there is no such data set or revision.
        """
        if not self.name:
            return None
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.name, repo_type="dataset", revision=self.revision))
        except (OSError, ValueError) as error:
            raise InputError(
                f"corpus 'hub': {self.name} at {self.revision} cannot be fetched ({_one_line(error)}); "
                "say where a copy is with --data hub=DIR"
            ) from error

    def read(self, directory: Path | None) -> Dataset:
        """Return the rows of the chosen splits, in their order; ``split`` is the name of the split.

        Raises:
            InputError: if the folder is no readable data set, a split or column is missing, or the sound is not in it.
        """
        from datasets import concatenate_datasets

        loaded = self._loaded(existing(directory, "hub", self.source))
        wanted = list(loaded) if self.splits is None else list(dict.fromkeys(self.splits))
        absent = [split for split in wanted if split not in loaded]
        if absent or not wanted:
            raise InputError(f"corpus 'hub': no split {', '.join(absent)} (found: {', '.join(loaded) or 'none'})")
        rows = concatenate_datasets([self._rows(split, loaded[split]) for split in wanted])
        return rows.select_columns(list(COLUMNS))

    def files(self, directory: Path | None) -> list[Path]:
        """Return every file of the folder that is not hidden, sorted."""
        root = existing(directory, "hub", self.source)
        found = sorted(path for path in root.rglob("*") if path.is_file() and not _hidden(path.relative_to(root)))
        if not found:
            raise InputError(f"corpus 'hub': {root}: empty; a data set has Parquet or Arrow files")
        return found

    def digest(self, directory: Path | None) -> str:
        """Hash the contents of `files` and their places in ``directory``."""
        root = existing(directory, "hub", self.source)
        digest = hashlib.sha256()
        for path in self.files(directory):
            # Hugging Face's cache links to files that are named by their contents: the link's place is what counts.
            with path.open("rb") as file:
                place = path.relative_to(root).as_posix()
                digest.update(f"{place}\n".encode() + hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def _loaded(self, root: Path) -> Mapping[str, Dataset]:
        from datasets import Dataset, load_dataset, load_from_disk
        from datasets.exceptions import DatasetsError

        try:
            if any((root / name).is_file() for name in SAVED):
                loaded = load_from_disk(str(root))
            else:
                loaded = load_dataset(str(root), self.subset)
        except (OSError, ValueError, DatasetsError) as error:
            raise InputError(f"corpus 'hub': {root}: unreadable as a data set: {_one_line(error)}") from error
        return {str(loaded.split or "all"): loaded} if isinstance(loaded, Dataset) else loaded

    def _rows(self, split: str, part: Dataset) -> Dataset:
        from datasets import Audio

        named = {"label": self.label, "speaker": self.speaker, "gender": self.gender, "text": self.text}
        absent = [column for column in (self.audio, *filter(None, named.values())) if column not in part.column_names]
        if absent:
            raise InputError(
                f"corpus 'hub': split '{split}': no column {', '.join(absent)} (found: {', '.join(part.column_names)})"
            )
        values = {column: _texts(part, source) for column, source in named.items()}
        values["gender"] = [GENDERS.get(value.casefold(), "") for value in values["gender"]]
        values["clip"] = [f"{split}/{row:06}" for row in range(len(part))]
        values["split"] = [split] * len(part)
        _refuse_paths(part, self.audio, split)
        rows = part.select_columns([self.audio]).rename_columns({self.audio: "audio"})
        rows = rows.cast_column("audio", Audio(decode=False))
        for column, texts in values.items():
            rows = rows.add_column(column, texts)
        return rows


def _texts(part: Dataset, column: str) -> list[str]:
    """Return a column as text, class numbers by their names; a value that is missing is empty."""
    if not column:
        return [""] * len(part)
    names = getattr(part.features[column], "names", None)
    values: list[Any] = list(part[column])
    if names:
        # Class −1 is how an unlabelled row is written.
        return ["" if value is None or value < 0 else names[value] for value in values]
    return ["" if value is None else str(value) for value in values]


def _refuse_paths(part: Dataset, column: str, split: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    stored = part.with_format("arrow").select_columns([column])[:][column]
    kind = stored.type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise InputError(f"corpus 'hub': split '{split}': column '{column}': got {kind}, expected sound with its bytes")
    lacking = pc.struct_field(stored, "bytes").null_count
    if lacking:
        raise InputError(
            f"corpus 'hub': split '{split}': {lacking} of {len(part)} clips have no bytes in column '{column}'; "
            "only copies with the sound in them can be used (to_parquet and push_to_hub embed it)"
        )


def _hidden(place: Path) -> bool:
    return any(part.startswith(".") for part in place.parts)


def _one_line(error: BaseException) -> str:
    return shorten(str(error), 300, placeholder=" …") or type(error).__name__
