"""Tensors on disk, written and read a few rows at a time, so that memory does not grow with what is stored.

`writing` and `StoredTensor` are for files in the format of safetensors: eight bytes with the length of the header; the
header, JSON, padded with spaces; then the tensors, little-endian, row after row. The library of that name writes and
reads whole tensors. `scratch` is for what is needed no longer than a job lasts.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

import torch
from torch import Tensor

from advser.errors import ContractError

DTYPES: Final = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
}
"""Name in the header → type, in the order in which the library writes them: large ones first, so all are aligned."""

_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file, of which rows are read when they are asked for.

    Attributes:
        path: the file.
        dtype: the type of its elements.
        shape: its shape; rows lie along the first dimension.
        offset: the byte at which it begins.
    """

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int

    @classmethod
    def find(cls, path: Path, name: str) -> Self:
        """Return the tensor of that name in a file.

        Raises:
            KeyError: if there is none, or of a type that is not in `DTYPES`.
        """
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            told = json.loads(file.read(length))[name]
        return cls(path, DTYPES[told["dtype"]], tuple(told["shape"]), 8 + length + told["data_offsets"][0])

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, spans: Iterable[tuple[int, int]]) -> Iterator[Tensor]:
        """Yield the rows from ``start`` to before ``stop``, of each span (``start``, ``stop``)."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        # Not mapped: pages of a mapped file that were looked at count as memory of the process.
        with self.path.open("rb", buffering=0) as file:
            for start, stop in spans:
                yield _read(file, self.offset + start * size, self.dtype, (stop - start, *self.shape[1:]))

    def whole(self) -> Tensor:
        """Return all rows."""
        return next(self.read([(0, len(self))]))

    def rows(self, indices: Sequence[int]) -> Tensor:
        """Return the rows at ``indices``, in that order."""
        return torch.cat(list(self.read((index, index + 1) for index in indices)))


class Writing:
    """A safetensors file of which all types and shapes are known, and the rows come bit by bit, in any order.

    Args:
        file: open for writing, empty.
        tensors: name → type and shape.
    """

    def __init__(self, file: IO[bytes], tensors: Mapping[str, tuple[torch.dtype, Sequence[int]]]) -> None:
        self._file = file
        self._places: dict[str, tuple[int, torch.dtype, tuple[int, ...]]] = {}
        header: dict[str, Any] = {}
        end = 0
        order = [*DTYPES.values()]
        for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: (order.index(item[1][0]), item[0])):
            start, end = end, end + math.prod(shape) * dtype.itemsize
            header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
            self._places[name] = start, dtype, tuple(shape)
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        file.write(len(text).to_bytes(8, "little") + text)
        self._data = file.tell()
        file.truncate(self._data + end)

    def put(self, name: str, start: int, rows: Tensor) -> None:
        """Write the rows of a tensor from ``start`` on.

        Raises:
            ContractError: if they are of another type or shape than was told, or too many.
        """
        offset, dtype, shape = self._places[name]
        if rows.dtype != dtype or rows.shape[1:] != shape[1:] or start + len(rows) > shape[0]:
            raise ContractError(
                f"{name}: found rows {start} to {start + len(rows)} of {rows.dtype} {tuple(rows.shape[1:])}, "
                f"expected up to {shape[0]} of {dtype} {shape[1:]}"
            )
        _write(self._file, self._data + offset + start * math.prod(shape[1:]) * dtype.itemsize, rows)


@contextmanager
def writing(path: Path, tensors: Mapping[str, tuple[torch.dtype, Sequence[int]]]) -> Iterator[Writing]:
    """Open a safetensors file to be filled; rows that are never put are zero.

    Args:
        path: the file.
        tensors: name → type, one of `DTYPES`, and shape.
    """
    with path.open("wb") as file:
        yield Writing(file, tensors)


class Scratch:
    """Tensors of any types and shapes in a file that is written and read.

    Args:
        file: open for both, unbuffered, empty.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._end = 0
        self._places: list[tuple[int, torch.dtype, tuple[int, ...]]] = []

    def __len__(self) -> int:
        return len(self._places)

    @property
    def lengths(self) -> list[int]:
        """The first dimension of each tensor."""
        return [shape[0] for _, _, shape in self._places]

    def __getitem__(self, number: int) -> Tensor:
        """Return the tensor that was appended as that number, from 0, on the processor."""
        return _read(self._file, *self._places[number])

    def append(self, tensor: Tensor) -> None:
        """Write a tensor, of whatever device."""
        self._places.append((self._end, tensor.dtype, tuple(tensor.shape)))
        self._end += _write(self._file, self._end, tensor)


@contextmanager
def scratch(folder: Path) -> Iterator[Scratch]:
    """Open a scratch file without a name, which is gone afterwards.

    Args:
        folder: where it lies; the system's own folder for temporary files may be memory.
    """
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        yield Scratch(file)


def _read(file: IO[bytes], offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    found = torch.empty(shape, dtype=dtype)
    wanted = memoryview(_bytes(found))
    file.seek(offset)
    while wanted:
        # One call reads 2 GiB at most.
        read = file.readinto(wanted)  # type: ignore[attr-defined]
        if not read:
            raise EOFError(f"{file.name}: ends {len(wanted)} bytes early")
        wanted = wanted[read:]
    return found


def _write(file: IO[bytes], offset: int, tensor: Tensor) -> int:
    """Write a tensor's elements at a byte of a file; return how many bytes they are."""
    left = memoryview(_bytes(tensor.detach().cpu().contiguous()))
    size = len(left)
    file.seek(offset)
    while left:
        left = left[file.write(left) :]
    return size


def _bytes(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy()
