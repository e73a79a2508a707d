"""Controls that do not depend on the model, and the access that attacks declare."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advser.attacks.base import Attack
from advser.attacks.chain_rule import ChainRule
from advser.attacks.controls import FrameNoise, Offset
from advser.attacks.generator import Generator
from advser.attacks.square import Square
from advser.models.terms import Domain
from advser.threat.model import Access
from advser.threat.target import Target


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    hop=st.integers(1, 300),
    samples=st.integers(1, 700),
    clips=st.integers(1, 3),
    epsilon=st.floats(1e-4, 0.5),
    seed=st.integers(0, 9),
)
def test_frame_noise_has_one_sign_per_frame(hop: int, samples: int, clips: int, epsilon: float, seed: int) -> None:
    x = torch.zeros(clips, samples)
    target = Target(None, torch.full((clips,), samples), "waveform", "blind")
    noise = FrameNoise(epsilon=epsilon, hop=hop).perturb(target, x, torch.zeros(clips), generator(seed))
    torch.testing.assert_close(noise.abs(), torch.full_like(x, epsilon))
    for start in range(0, samples, hop):
        assert (noise[:, start : start + hop] == noise[:, start : start + 1]).all()


def test_frame_noise_has_both_signs_and_differs_between_clips() -> None:
    target = Target(None, torch.full((2,), 16_000), "waveform", "blind")
    noise = FrameNoise(epsilon=0.01).perturb(target, torch.zeros(2, 16_000), torch.zeros(2), generator())
    assert (noise.mean(1).abs() < 0.003).all()
    assert not torch.equal(noise[0], noise[1])


def test_frame_noise_in_a_spectrogram_has_one_sign_for_all_bands() -> None:
    target = Target(None, torch.full((2,), 100), "spectrogram", "blind")
    noise = FrameNoise(epsilon=0.5).perturb(target, torch.zeros(2, 7, 60), torch.zeros(2), generator())
    assert (noise == noise[:, :1]).all()
    assert (noise.diff(dim=2) != 0).float().mean() > 0.3, "a frame's sign depends on its neighbour's"
    assert set(noise.unique().tolist()) == {-0.5, 0.5}


@pytest.mark.parametrize("shape", [(40, 50), (40, 5, 6)], ids=["waveform", "spectrogram"])
def test_an_offset_is_constant_in_each_clip_and_has_either_sign(shape: tuple[int, ...]) -> None:
    domain: Domain = "waveform" if len(shape) == 2 else "spectrogram"
    target = Target(None, torch.full((40,), 50), domain, "blind")
    noise = Offset(epsilon=0.25).perturb(target, torch.zeros(shape), torch.zeros(40), generator()).flatten(1)
    assert (noise == noise[:, :1]).all()
    assert 10 < (noise[:, 0] == 0.25).sum() < 30
    assert (noise.abs() == 0.25).all()


def test_attacks_declare_their_access() -> None:
    expected: dict[type[Attack], Access] = {
        FrameNoise: "blind",
        Offset: "blind",
        Square: "scores",
        ChainRule: "white-box",
        Generator: "white-box",
    }
    assert {attack: attack.access for attack in expected} == expected
