"""Tensors that are written and read a few rows at a time, compared with the library safetensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from advser.errors import ContractError
from advser.stages.prepare import writing_clips
from advser.store.tensors import DTYPES, StoredTensor, scratch, writing


def tensors(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    values = {"b": torch.randn(5, 3, 2), "a": torch.randn(7), "é": torch.randn(0, 4)}
    return {name: (100 * value).to(dtype) for name, value in values.items()} | {"n": torch.arange(3)}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_rows_in_any_order_yield_the_same_file_as_the_library(dtype: torch.dtype, tmp_path: Path) -> None:
    wanted = tensors(dtype)
    save_file(wanted, tmp_path / "theirs")
    with writing(tmp_path / "ours", {name: (value.dtype, value.shape) for name, value in wanted.items()}) as file:
        for name, value in wanted.items():
            for row in reversed(range(len(value))):
                file.put(name, row, value[row : row + 1])
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    loaded = load_file(tmp_path / "ours")
    assert all(torch.equal(loaded[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_rows_of_a_file_of_the_library_can_be_read(dtype: torch.dtype, tmp_path: Path) -> None:
    wanted = tensors(dtype)
    save_file(wanted, tmp_path / "file")
    for name, value in wanted.items():
        stored = StoredTensor.find(tmp_path / "file", name)
        assert (stored.dtype, stored.shape, len(stored)) == (value.dtype, tuple(value.shape), len(value))
        assert torch.equal(stored.whole(), value)
    stored = StoredTensor.find(tmp_path / "file", "b")
    assert torch.equal(stored.rows([4, 0, 4]), wanted["b"][[4, 0, 4]])
    assert [tuple(part.shape) for part in stored.read([(1, 4), (2, 2)])] == [(3, 3, 2), (0, 3, 2)]
    with pytest.raises(KeyError):
        StoredTensor.find(tmp_path / "file", "absent")


def test_missing_rows_are_zero_and_undeclared_rows_are_refused(tmp_path: Path) -> None:
    with writing(tmp_path / "file", {"x": (torch.float32, (3, 2))}) as file:
        file.put("x", 1, torch.ones(1, 2))
        for start, rows in ((0, torch.ones(1, 3)), (0, torch.ones(1, 2).double()), (2, torch.ones(2, 2))):
            with pytest.raises(ContractError, match="x: got rows"):
                file.put("x", start, rows)
    assert load_file(tmp_path / "file")["x"].tolist() == [[0, 0], [1, 1], [0, 0]]


def test_a_truncated_file_raises_an_error(tmp_path: Path) -> None:
    save_file({"x": torch.ones(10)}, tmp_path / "file")
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:-4])
    with pytest.raises(EOFError):
        StoredTensor.find(tmp_path / "file", "x").whole()


def test_clips_are_written_in_any_order(tmp_path: Path) -> None:
    clips = [np.arange(length, dtype=np.int16) for length in (3, 1, 2)]
    with writing_clips(tmp_path / "file", np.array([3, 1, 2])) as write:
        for number in (2, 0, 1):
            write(number, clips[number])
    assert load_file(tmp_path / "file")["samples"].tolist() == [0, 1, 2, 0, 0, 1]


@pytest.mark.parametrize("clip", [[1, 2], [1, 2, 3, 4]])
def test_a_clip_of_another_length_is_refused(clip: list[int], tmp_path: Path) -> None:
    message = f"clip 1: got {len(clip)} samples, expected 3"
    with writing_clips(tmp_path / "file", np.array([1, 3])) as write, pytest.raises(ContractError, match=message):
        write(1, np.array(clip, np.int16))


def test_a_scratch_file_returns_its_tensors_and_leaves_no_file(tmp_path: Path) -> None:
    given = [torch.randn(3, 4).T, torch.arange(2), torch.tensor(1.5, dtype=torch.bfloat16), torch.ones(0, 2)]
    with scratch(tmp_path) as stored:
        for tensor in given:
            stored.append(tensor)
        assert not list(tmp_path.iterdir())
        for number in (2, 0, 3, 1):
            assert torch.equal(stored[number], given[number])
            assert stored[number].dtype == given[number].dtype
        assert len(stored) == 4
    assert not list(tmp_path.iterdir())
