"""Tensors on disk, written and read a few rows at a time, so that memory does not grow with their size.

`writing` and `StoredTensor` use the safetensors format: eight bytes with the length of the header; the header (JSON,
padded with spaces); the tensors, little-endian, row after row. The library safetensors writes and reads only whole
tensors. `scratch` holds tensors for the duration of a job.
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
"""Name in the header → type, in the library's order: large types first, so that all tensors are aligned."""

_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file whose rows are read on demand.

    Attributes:
        path: the file.
        dtype: type of the elements.
        shape: shape of the tensor; rows lie along the first dimension.
        offset: byte at which the tensor begins.
    """

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int

    @classmethod
    def find(cls, path: Path, name: str) -> Self:
        """Return the tensor of that name in a file.

        Raises:
            KeyError: if the file has no such tensor, or its type is not in `DTYPES`.
        """
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entry = json.loads(file.read(length))[name]
        return cls(path, DTYPES[entry["dtype"]], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, spans: Iterable[tuple[int, int]]) -> Iterator[Tensor]:
        """Yield the rows ``start`` to ``stop`` − 1 of each span (``start``, ``stop``)."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        # Not memory-mapped: pages that were read would count as memory of the process.
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
    """A safetensors file with declared types and shapes whose rows are written in parts, in any order.

    Args:
        file: an empty file, open for writing.
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
            ContractError: if their type, shape or number does not match the declaration.
        """
        offset, dtype, shape = self._places[name]
        if rows.dtype != dtype or rows.shape[1:] != shape[1:] or start + len(rows) > shape[0]:
            raise ContractError(
                f"{name}: got rows {start} to {start + len(rows)} of {rows.dtype} {tuple(rows.shape[1:])}, "
                f"expected up to {shape[0]} of {dtype} {shape[1:]}"
            )
        _write(self._file, self._data + offset + start * math.prod(shape[1:]) * dtype.itemsize, rows)


@contextmanager
def writing(path: Path, tensors: Mapping[str, tuple[torch.dtype, Sequence[int]]]) -> Iterator[Writing]:
    """Open a safetensors file for writing; rows that are never put are zero.

    Args:
        path: the file.
        tensors: name → type, one of `DTYPES`, and shape.
    """
    with path.open("wb") as file:
        yield Writing(file, tensors)


class Scratch:
    """Tensors of any types and shapes in a file.

    Args:
        file: an empty file, open for reading and writing, unbuffered.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._end = 0
        self._places: list[tuple[int, torch.dtype, tuple[int, ...]]] = []

    def __len__(self) -> int:
        return len(self._places)

    @property
    def lengths(self) -> list[int]:
        """First dimension of each tensor."""
        return [shape[0] for _, _, shape in self._places]

    def __getitem__(self, number: int) -> Tensor:
        """Return the tensor with the index ``number`` (from 0, in the order of `append`), on the CPU."""
        return _read(self._file, *self._places[number])

    def append(self, tensor: Tensor) -> None:
        """Write a tensor from any device."""
        self._places.append((self._end, tensor.dtype, tuple(tensor.shape)))
        self._end += _write(self._file, self._end, tensor)


@contextmanager
def scratch(folder: Path) -> Iterator[Scratch]:
    """Open a scratch file without a name; it is deleted on exit.

    Args:
        folder: folder of the file; the system's folder for temporary files may be in memory.
    """
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        yield Scratch(file)


def _read(file: IO[bytes], offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    tensor = torch.empty(shape, dtype=dtype)
    left = memoryview(_bytes(tensor))
    file.seek(offset)
    while left:
        # One call reads at most 2 GiB.
        read = file.readinto(left)  # type: ignore[attr-defined]
        if not read:
            raise EOFError(f"{file.name}: ends {len(left)} bytes early")
        left = left[read:]
    return tensor


def _write(file: IO[bytes], offset: int, tensor: Tensor) -> int:
    """Write a tensor's elements at a byte of a file, and return their number of bytes."""
    left = memoryview(_bytes(tensor.detach().cpu().contiguous()))
    size = len(left)
    file.seek(offset)
    while left:
        left = left[file.write(left) :]
    return size


def _bytes(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy()
