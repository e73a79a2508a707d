"""Files that hold less than they promise, are in another scale, or have channels that cancel."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from advser.audio.files import read
from advser.audio.recordings import blocks, opened
from advser.errors import InputError

RATE = 16_000
SOUND = (0.3 * np.random.default_rng(0).standard_normal(2 * RATE).clip(-2, 2)).astype(np.float32)
FORMS = [
    ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("WAV", "GSM610"), ("WAV", "IMA_ADPCM"),
    ("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"),
    ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip


def encoded(form: str, subtype: str, sound: np.ndarray = SOUND) -> bytes:
    buffer = BytesIO()
    soundfile.write(buffer, sound, RATE, format=form, subtype=subtype)
    return buffer.getvalue()


def recorded(path: Path) -> np.ndarray:
    with opened(path) as file:
        return np.concatenate([block for block, _ in blocks(file)])


@pytest.mark.parametrize(("form", "subtype"), FORMS)
@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_refused_in_one_line(form, subtype, share, tmp_path):
    whole = encoded(form, subtype)
    path = tmp_path / "a"
    path.write_bytes(whole)
    assert len(recorded(path)) == len(read(path, "a")[0]) == len(read(whole, "a")[0]) >= len(SOUND)
    path.write_bytes(whole[: round(share * len(whole))])
    for action in (lambda: read(path, str(path)), lambda: read(path.read_bytes(), str(path)), lambda: recorded(path)):
        with pytest.raises(InputError, match=f"^{path}: .*(promises|unreadable|empty)") as refusal:
            action()
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0x7FFFFFDB, 0xFFFFFFDB])
def test_wav_files_from_a_pipe_do_not_know_their_length(size, tmp_path):
    whole = encoded("WAV", "PCM_16")
    start = whole.index(b"data") + 4
    streamed = whole[:start] + struct.pack("<I", size) + whole[start + 4 :]
    path = tmp_path / "a.wav"
    path.write_bytes(streamed)
    assert np.array_equal(read(path, "a")[0], read(whole, "a")[0])
    assert len(recorded(path)) == len(SOUND)


def test_flac_files_without_a_length_are_refused_in_one_line(tmp_path):
    whole = bytearray(encoded("FLAC", "PCM_16"))
    # STREAMINFO: the 36 bits before the MD5 hold the number of samples.
    whole[21] &= 0xF0
    whole[22:26] = bytes(4)
    path = tmp_path / "a.flac"
    path.write_bytes(whole)
    for action in (lambda: read(path, str(path)), lambda: recorded(path)):
        with pytest.raises(InputError, match=f"^{path}: got a FLAC file of unknown length, expected"):
            action()


def test_a_wrong_size_of_the_whole_file_or_a_missing_padding_byte_is_no_truncation():
    whole = encoded("WAV", "PCM_16")
    for size in (0, 12, len(whole), 0xFFFFFFFF):
        assert len(read(whole[:4] + struct.pack("<I", size) + whole[8:], "a")[0]) == len(SOUND)
    assert len(read(encoded("WAV", "PCM_U8", SOUND[:999])[:-1], "a")[0]) == 999


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("scale", [128, 32768, 8388608, 2147483648])
def test_floats_in_the_scale_of_integers_are_refused(subtype, scale, tmp_path):
    path = tmp_path / "a.wav"
    for quiet in (1, 4 / scale):
        path.write_bytes(encoded("WAV", subtype, np.rint(SOUND * quiet * scale)))
        for action in (lambda: read(path, str(path)), lambda: recorded(path)):
            with pytest.raises(InputError, match=f"^{path}: got a peak of .* expected samples from -1 to 1"):
                action()


def test_floats_above_full_scale_are_read_as_they_are():
    for peak in (1.0, 1.5, 4.0):
        samples, _ = read(encoded("WAV", "FLOAT", SOUND / np.abs(SOUND).max() * peak), "a")
        assert np.abs(samples).max() == pytest.approx(peak)


def test_channels_that_cancel_are_not_called_silent():
    for other in (-SOUND, -SOUND + 1e-4):
        with pytest.raises(InputError, match=r"^a: got channels that cancel \(opposite phase\)"):
            read(encoded("WAV", "PCM_16", np.stack([SOUND, other], 1)), "a")
    for other in (0 * SOUND, -0.5 * SOUND, np.roll(SOUND, 9)):
        assert read(encoded("WAV", "PCM_16", np.stack([SOUND, other], 1)), "a")[0].any()
    assert not read(encoded("WAV", "PCM_16", np.zeros((999, 2))), "a")[0].any()
