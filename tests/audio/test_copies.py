"""Near copies are recognised after changes that leave the recording the same, and other takes are not."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from advser.audio.copies import Landmarks, near_copies
from advser.audio.pcm import Pcm
from advser.corpora import demo_data

CLIPS = [soundfile.read(path, dtype="int16")[0] for path in sorted(Path(demo_data.__file__).parent.glob("*.flac"))]
MARKS = [Landmarks.of(clip) for clip in CLIPS]


def as_mp3(clip: Pcm) -> Pcm:
    buffer = BytesIO()
    soundfile.write(buffer, clip, 16_000, format="MP3")
    buffer.seek(0)
    return soundfile.read(buffer, dtype="int16")[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda clip: clip,
        lambda clip: (0.3 * clip).astype(np.int16),
        lambda clip: clip[777:],
        lambda clip: clip[32:],
        lambda clip: as_mp3(clip[64:]),
        lambda clip: np.pad(clip, (5000, 0)),
        as_mp3,
    ],
)
def test_a_changed_copy_is_recognised(change):
    chosen = range(0, len(CLIPS), 16)
    copies = [Landmarks.of(change(CLIPS[number])) for number in chosen]
    expected = {(number, len(CLIPS) + index) for index, number in enumerate(chosen)}
    recognised = set(near_copies([*MARKS, *copies]))
    assert recognised <= expected
    # After a shift by half a hop, the worst case, one in ten is missed.
    assert len(recognised) >= 0.8 * len(expected)


def test_other_takes_are_no_copies():
    assert near_copies(MARKS) == []


def test_clips_with_too_little_in_them_are_not_compared():
    tone = (9000 * np.sin(np.arange(16_000) / 9)).astype(np.int16)
    assert near_copies([Landmarks.of(clip) for clip in (tone, tone, tone[:99], np.zeros(5000, np.int16))]) == []
    assert near_copies([]) == []
