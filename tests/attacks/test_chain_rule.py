"""The chain rule: its formulas, costs, limits, and relation to the exact gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
import toys
from torch import Tensor, nn

from advser.attacks.chain_rule import ChainRule
from advser.attacks.controls import FrameNoise
from advser.attacks.gradient_sign import FGSM
from advser.audio.clips import sound_mask
from advser.errors import AccessError
from advser.models.base import EmotionModel
from advser.models.frontends import DecibelMel, LogMel
from advser.models.mel import MelFrontEnd
from advser.models.terms import Domain
from advser.models.tiny import Tiny
from advser.threat.model import Access
from advser.threat.target import Target


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Banded(EmotionModel):
    """Logits that are linear in mel bands, so that their gradient has a closed form."""

    def __init__(self, frontend: MelFrontEnd, classes: int = 2) -> None:
        super().__init__()
        self.frontend = frontend
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.head = nn.Linear(len(frontend.centres) * frontend.frames, classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return features.flatten(1)


def noise(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return waveforms of white noise (B, T), their lengths (B,), and labels (B,)."""
    sizes = torch.tensor(lengths)
    waveform = 0.1 * torch.randn(len(sizes), max(lengths), generator=generator(seed))
    return waveform * sound_mask(sizes, max(lengths)), sizes, torch.arange(len(sizes)) % 2


def as_coded(waveform: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return g′ (T,) of one clip for G (bands, frames), transcribed term by term."""
    bands, frames = gradient.shape
    r = scipy.signal.resample(waveform, frames)
    b, f = np.arange(frames), 204 * np.arange(1, bands + 1)
    d = np.abs(r * np.exp(2j * np.pi * b * f[:, None]))
    q = np.array([1 / (r[b + 1] - r[b] + 0.001) for b in range(frames - 1)] + [1 / (r[-1] - r[-2] + 0.001)])
    return scipy.signal.resample(gradient.T @ (d @ q), len(waveform))


def feature_gradient(model: EmotionModel, x: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
    """Return G (B, bands, frames) by autograd, without a target."""
    features = model.eval().frontend(x, lengths).detach().requires_grad_()
    logits = model.outputs(features, lengths, "spectrogram").logits
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    return torch.autograd.grad(loss, features)[0]


def test_the_coded_chain_rule_equals_the_sources_formula() -> None:
    model = toys.model(toys.Convolutional).double()
    x, lengths, labels = toys.sounds()
    x = x.double()
    gradient = feature_gradient(model, x, lengths, labels)
    attack = ChainRule(steps=1, alpha=0.004)
    with Target(model, lengths, "waveform") as target:
        substitute = attack.gradient(target, x, labels)
        perturbed = attack.perturb(target, x, labels, generator())
    for row, length in enumerate(lengths.tolist()):
        expected = torch.from_numpy(as_coded(x[row, :length].numpy(), gradient[row].numpy()))
        torch.testing.assert_close(substitute[row, :length], expected)
        clear = expected.abs() > 1e-6 * expected.abs().max()
        assert clear.float().mean() > 0.99
        step = (perturbed - x)[row, :length]
        torch.testing.assert_close(step[clear], 0.004 * expected.sign()[clear])
        assert not perturbed[row, length:].any()


def test_the_coded_chain_rule_is_a_number_times_the_sum_over_bands() -> None:
    """At each frame's sample the step has the sign of c · Σ G, and it has at most one change of sign per frame."""
    model = toys.model(toys.Linear).double()
    waveform, _, labels = toys.sounds()
    x, lengths = waveform.double(), torch.full((len(waveform),), toys.SAMPLES)
    summed = feature_gradient(model, x, lengths, labels).sum(1)
    with Target(model, lengths, "waveform") as target:
        step = ChainRule(steps=1).perturb(target, x, labels, generator()) - x
        at_frames = ChainRule().gradient(target, x, labels)[:, :: toys.SAMPLES // summed.shape[1]]
    ratio = at_frames / summed
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert ((step.sign().diff() != 0).sum(1) <= summed.shape[1]).all()


RULES = [{"variant": "coded"}, {"variant": "published"}, {"variant": "published", "phase": "real"}]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("epsilon", [None, 0.01])
def test_the_chain_rule_takes_steps_of_alpha_with_one_pass_each(rule: dict[str, Any], epsilon: float | None) -> None:
    model = Banded(LogMel(12))
    x, lengths, labels = noise(6000, 3000, 4500)
    steps, alpha = 4, 0.007
    with Target(model, lengths, "waveform") as target:
        attack = ChainRule(alpha=alpha, steps=steps, epsilon=epsilon, **rule)
        change = attack.perturb(target, x, labels, generator()) - x
        costs = target.forwards.tolist(), target.backwards.tolist()
    assert costs == ([steps] * 3, [steps] * 3)
    assert change.abs().max().item() == pytest.approx(epsilon or steps * alpha, rel=1e-4)
    assert not change[~sound_mask(lengths, 6000)].any(), "the attack changed the padding"
    if epsilon is None:
        torch.testing.assert_close(change / alpha, (change / alpha).round(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("kind", "domain", "access", "variant", "message"),
    [
        (toys.Waveform, "waveform", "white-box", "coded", "Waveform has no spectrogram"),
        (toys.Waveform, "waveform", "white-box", "published", "Waveform has no spectrogram"),
        (toys.Linear, "waveform", "white-box", "published", "got the front end 'Frames', expected a MelFrontEnd"),
        (toys.Linear, "spectrogram", "white-box", "coded", "domain is 'spectrogram', expected waveform"),
        (toys.Linear, "waveform", "scores", "coded", "access is 'scores', expected white-box"),
    ],
)
def test_the_chain_rule_reports_an_unusable_model_domain_or_access(
    kind: type[EmotionModel], domain: Domain, access: Access, variant: Any, message: str
) -> None:
    model = toys.model(kind)
    waveform, lengths, labels = toys.sounds()
    x = model.inputs(waveform, lengths, domain)
    with Target(model, lengths, domain, access) as target, pytest.raises(AccessError, match=message):
        ChainRule(variant=variant).perturb(target, x, labels, generator())


@pytest.mark.parametrize("phase", ["modulus", "real"])
def test_the_published_chain_rule_on_one_frame_and_band(phase: Any) -> None:
    model = Banded(LogMel(20))
    frame, band = 5, 17
    with torch.no_grad():
        weights = model.head.weight.view(2, 64, 20)[:, band, frame].clone()
        model.head.weight.zero_().view(2, 64, 20)[:, band, frame] = weights
    x, lengths, labels = noise(8000)
    with Target(model, lengths, "waveform") as target:
        substitute = ChainRule(variant="published", phase=phase).gradient(target, x, labels)[0]
        logit_gradient = target.logits(x).softmax(1)[0] - torch.tensor([1.0, 0.0])
    gradient = float(logit_gradient @ weights)
    # Frames have a distance of 256 samples = 0.016 s and a length of 512; frame 5 is centred on sample 1280.
    r, after = (float(x[0, start : start + 512].mean()) for start in (1024, 1280))
    centre = float(model.frontend.centres[band])
    phi = abs(r) if phase == "modulus" else r * np.cos(2 * np.pi * centre * frame * 0.016)
    expected = torch.zeros(8000)
    expected[1153:1409] = gradient * phi / ((after - r) / 0.016 + 0.001)
    torch.testing.assert_close(substitute, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("before", "sounding", "after", "first", "last"),
    [(16_000, 8000, 12_000, 16_000, 24_000), (0, 80_000, 0, 24_000, 56_000)],
    ids=["trimmed silence", "frames outside the input"],
)
def test_the_published_chain_rule_leaves_sound_outside_the_models_input(
    before: int, sounding: int, after: int, first: int, last: int
) -> None:
    model = Banded(DecibelMel())
    x, _, labels = noise(sounding)
    x = nn.functional.pad(x, (before, after))
    lengths = torch.tensor([x.shape[1]])
    with Target(model, lengths, "waveform") as target:
        change = (ChainRule(variant="published", steps=1).perturb(target, x, labels, generator()) - x)[0]
    # The front end detects silence in frames of 2048 samples.
    assert not change[: max(first - 2048, 0)].any()
    assert not change[last + 2048 :].any()
    assert change[first:last].count_nonzero() > 0.95 * (last - first)


def test_the_chain_rule_is_as_unrelated_to_the_gradient_as_noise_of_its_shape() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Tiny(2, frames=48)
    x, lengths, labels = noise(*range(8000, 12_000, 200))
    model.frontend.fit([(x, lengths)])
    model(x, lengths)
    attacks = {"fgsm": FGSM(epsilon=0.004), "frame-noise": FrameNoise(epsilon=0.004)}
    attacks |= {str(rule): ChainRule(alpha=0.004, steps=1, **rule) for rule in RULES}
    with Target(model, lengths, "waveform") as target:
        exact = target.gradient(x, labels)
        # Scaled, because the gradient's square may underflow in float32.
        exact = exact / exact.abs().amax(1, keepdim=True)
        cosine = {
            name: float(torch.cosine_similarity(attack.perturb(target, x, labels, generator()) - x, exact).abs().mean())
            for name, attack in attacks.items()
        }
    for rule in map(str, RULES):
        assert cosine[rule] < 4 * cosine["frame-noise"]
        assert cosine["fgsm"] > 20 * cosine[rule]
