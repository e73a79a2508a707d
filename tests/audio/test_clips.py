"""Audio files, 16-bit rounding, and packed clips, with real files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save_file

from advser.audio.clips import Clips, batches_by_length, sound_mask
from advser.audio.files import read, resample, write
from advser.audio.pcm import PCM_HIGHEST, PCM_LOWEST, PCM_STEP, SAMPLE_RATE, Pcm, from_pcm, to_pcm
from advser.errors import InputError
from advser.stages.prepare import load_clips
from advser.threat.admission import round_within
from advser.threat.budget import Budget

SUFFIXES = (".wav", ".flac")
pcm_arrays = arrays(np.int16, st.integers(1, 50), elements=st.integers(PCM_LOWEST, PCM_HIGHEST))
sounds = arrays(np.float32, st.integers(1, 50), elements=st.floats(-1, 1, width=32, allow_subnormal=False))


@given(pcm_arrays)
def test_16_bit_samples_survive_the_way_to_float_and_back(pcm: Pcm) -> None:
    samples = from_pcm(pcm)
    assert samples.dtype == np.float32
    assert np.abs(samples).max() <= 1
    assert np.array_equal(to_pcm(samples), pcm)


@given(sounds)
def test_rounding_is_to_the_nearest_step(samples: np.ndarray) -> None:
    error = np.abs(from_pcm(to_pcm(samples)) - samples)
    # Above 32767.5 steps the highest step is the nearest.
    assert (error <= np.where(samples > PCM_HIGHEST * PCM_STEP, PCM_STEP, PCM_STEP / 2)).all()


def test_full_scale_is_clipped_and_does_not_wrap() -> None:
    beyond = np.array([1.0, -1.0, 1.7, -1.7, 0.99999], np.float32)
    assert to_pcm(beyond).tolist() == [32767, -32768, 32767, -32768, 32767]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_written_sound_is_read_back_exactly(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    pcm = np.array([PCM_LOWEST, -1, 0, 1, PCM_HIGHEST, *range(-400, 400)], np.int16)
    write(path, pcm)
    samples, rate = read(path, "clip")
    assert rate == SAMPLE_RATE
    assert samples.dtype == np.float32
    assert np.array_equal(to_pcm(samples), pcm)
    assert np.array_equal(read(path.read_bytes(), "clip")[0], samples)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(
    st.floats(0, 0.01, allow_subnormal=False),
    arrays(np.int16, 64, elements=st.integers(PCM_LOWEST, PCM_HIGHEST)),
    arrays(np.float32, 64, elements=st.floats(-0.015625, 0.015625, width=32, allow_subnormal=False)),
)
def test_a_stored_perturbation_keeps_its_linf_budget_exactly(
    suffix: str, tmp_path_factory: pytest.TempPathFactory, epsilon: float, pcm: Pcm, change: np.ndarray
) -> None:
    original = torch.from_numpy(from_pcm(pcm))[None]
    budget = Budget("linf", epsilon, "full-scale")
    perturbed = budget.project(original + torch.from_numpy(change), original).clamp(-1, 1)
    rounded = round_within(perturbed, original, budget)
    path = tmp_path_factory.getbasetemp() / f"budget{suffix}"
    write(path, to_pcm(rounded[0].numpy()))
    judged = read(path, "clip")[0]
    assert np.array_equal(judged, rounded[0].numpy())
    # In whole steps, so that the comparison rounds no float; 1e-6 of a step covers ε = k steps in floats.
    steps = np.abs(to_pcm(judged).astype(np.int64) - pcm.astype(np.int64))
    assert steps.max() <= epsilon / PCM_STEP + 1e-6
    # The stored and the projected perturbation differ by rounding only.
    error = np.abs(judged.astype(np.float64) - perturbed[0].double().numpy())
    assert error.max() <= PCM_STEP * (1 + 1e-3)


def test_rounding_alone_would_leave_the_budget() -> None:
    original = torch.zeros(1, 4)
    perturbed = torch.full((1, 4), 0.6 * PCM_STEP)
    assert round_within(perturbed, original, None).max() == PCM_STEP
    assert round_within(perturbed, original, Budget("linf", 0.6 * PCM_STEP, "full-scale")).max() == 0
    assert round_within(perturbed, original, Budget("linf", PCM_STEP, "full-scale")).max() == PCM_STEP
    # In L2 the budget has room for two of the four rounded samples: 1² + 1² ≤ 1.42².
    uneven = torch.tensor([[0.7, 0.6, 0.6, 0.6]]) * PCM_STEP
    within = round_within(uneven, original, Budget("l2", 1.42 * PCM_STEP, "full-scale"))
    assert within.tolist() == [[PCM_STEP, PCM_STEP, 0, 0]]


@given(
    st.floats(0, 40),
    arrays(np.int16, 64, elements=st.integers(-20_000, 20_000)),
    arrays(np.float32, 64, elements=st.floats(-8, 8, width=32, allow_subnormal=False)),
)
def test_a_stored_perturbation_keeps_its_l2_budget_exactly(bound: float, pcm: Pcm, change: np.ndarray) -> None:
    original = torch.from_numpy(from_pcm(pcm))[None]
    budget = Budget("l2", bound * PCM_STEP, "full-scale")
    perturbed = budget.project(original + torch.from_numpy(change) * PCM_STEP, original)
    stored = to_pcm(round_within(perturbed, original, budget)[0].numpy()).astype(np.int64)
    assert np.sqrt(np.square(stored - pcm).sum()) <= bound * (1 + 1e-6)
    error = np.abs(stored - perturbed[0].double().numpy() / PCM_STEP)
    assert error.max() <= 1 + 1e-3, "the stored and the projected perturbation differ by more than rounding"


def test_channels_are_averaged_and_44100_hz_becomes_16000(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    time = np.arange(44_100) / 44_100
    left = 0.5 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(path, np.stack([left, np.zeros_like(left)], 1), 44_100, subtype="PCM_16")
    samples, rate = read(path, "stereo.wav")
    assert rate == 44_100
    assert samples.shape == (44_100,)
    resampled = resample(samples, rate)
    assert resampled.dtype == np.float32
    assert len(resampled) == SAMPLE_RATE
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    assert np.abs(resampled - expected)[100:-100].max() < 1e-3


def test_resampling_to_16000_hz_removes_frequencies_above_8000_hz() -> None:
    time = np.arange(44_100) / 44_100
    above = np.sin(2 * np.pi * 12_000 * time).astype(np.float32)
    assert np.abs(resample(above, 44_100))[200:-200].max() < 0.05
    assert resample(above, SAMPLE_RATE) is above


def unusable(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.wav"
    if kind == "text":
        path.write_text("this is no sound")
    if kind == "empty-file":
        path.write_bytes(b"")
    if kind == "no-samples":
        soundfile.write(path, np.zeros(0), SAMPLE_RATE)
    if kind == "not-finite":
        soundfile.write(path, np.array([0.0, np.nan, np.inf, 0.1], np.float32), SAMPLE_RATE, subtype="FLOAT")
    if kind == "cut-off":
        whole = folder / "whole.flac"
        write(whole, np.arange(20_000, dtype=np.int16))
        path = folder / "cut-off.flac"
        path.write_bytes(whole.read_bytes()[:60])
    if kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "unreadable as audio"),
        ("text", "unreadable as audio"),
        ("empty-file", "unreadable as audio"),
        ("folder", "unreadable as audio"),
        ("cut-off", "unreadable as audio|empty"),
        ("no-samples", "empty \\(0 samples\\)"),
        ("not-finite", "2 samples are not finite numbers"),
    ],
)
def test_unusable_sound_is_named(kind: str, message: str, tmp_path: Path) -> None:
    path = unusable(tmp_path, kind)
    for source in [path, path.read_bytes()] if path.is_file() else [path]:
        with pytest.raises(InputError, match=f"^some/clip.wav: ({message})") as refusal:
            read(source, "some/clip.wav")
        assert "\n" not in str(refusal.value)


@given(st.lists(pcm_arrays, min_size=1, max_size=6), st.data())
def test_packed_clips_are_read_unchanged(clips: list[Pcm], data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "audio.safetensors"
        save_file({"samples": np.concatenate(clips), "lengths": np.array([len(clip) for clip in clips])}, path)
        for packed in (Clips.pack(clips), load_clips(path)):
            assert_unchanged(packed, clips, data)


def assert_unchanged(packed: Clips, clips: list[Pcm], data: st.DataObject) -> None:
    assert len(packed) == len(clips)
    assert all(np.array_equal(read, clip) for read, clip in zip(packed, clips, strict=True))
    indices = data.draw(st.lists(st.integers(0, len(clips) - 1), min_size=1, max_size=8))
    selected = packed.select(indices)
    assert all(np.array_equal(selected[row], clips[index]) for row, index in enumerate(indices))
    assert np.array_equal(selected.packed(), np.concatenate([clips[index] for index in indices]))
    assert selected.samples is packed.samples, "no copy"
    waveform, lengths = packed.batch(indices)
    assert waveform.shape == (len(indices), max(len(clips[index]) for index in indices))
    assert lengths.tolist() == [len(clips[index]) for index in indices]
    for row, index in enumerate(indices):
        assert np.array_equal(waveform[row, : lengths[row]].numpy(), from_pcm(clips[index]))
    assert not waveform[~sound_mask(lengths, waveform.shape[1])].any()


def test_an_empty_pack_is_valid_and_has_no_first_clip() -> None:
    packed = Clips.pack([])
    assert list(packed) == []
    assert packed.packed().dtype == np.int16
    with pytest.raises(IndexError):
        packed[0]


@given(arrays(np.int64, st.integers(0, 40), elements=st.integers(1, 1000)), st.integers(1, 9))
def test_batches_hold_every_clip_once_in_order_of_length(lengths: np.ndarray, size: int) -> None:
    batches = batches_by_length(lengths, size)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in batches)
    assert np.all(np.diff(lengths[flat]) >= 0)


def test_a_batch_is_padded_to_an_hour_at_most() -> None:
    minutes = np.array([1, 200, 2, 30, 1, 29, 61]) * 60 * SAMPLE_RATE
    assert batches_by_length(minutes, 3) == [[0, 4, 2], [5, 3], [6], [1]]


@pytest.mark.data
def test_real_speech_lies_on_the_16_bit_grid(emodb_directory: Path) -> None:
    files = sorted(emodb_directory.rglob("*.wav"))[::100]
    assert files
    for path in files:
        samples, rate = read(path, path.name)
        assert rate == SAMPLE_RATE
        assert np.array_equal(from_pcm(to_pcm(samples)), samples)
