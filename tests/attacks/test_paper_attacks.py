"""What is specific to the chain rule, its controls, the square attack, and attacks that learn a network."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from advser.attacks.base import Attack
from advser.attacks.chain_rule import ChainRule
from advser.attacks.controls import FrameNoise, Noise, Offset
from advser.attacks.generator import AtrousCNN, Generator
from advser.attacks.gradient_sign import FGSM
from advser.attacks.square import Square
from advser.audio.clips import sound_mask
from advser.audio.pcm import PCM_STEP
from advser.errors import AccessError, ContractError
from advser.execution.worker import execute
from advser.models.base import EmotionModel
from advser.models.frontends import DecibelMel, LogMel
from advser.models.mel import MelFrontEnd
from advser.models.terms import Domain
from advser.models.tiny import Tiny
from advser.plan.cells import Corpus, Plan, Speech
from advser.plan.jobs import prepare_job
from advser.plan.planner import make_plan
from advser.stages.craft import COSTS, NETWORK
from advser.stages.job import Job, Task
from advser.stages.judge import LOGITS
from advser.stages.learn import learn
from advser.stages.prepare import AUDIO, load_clips, load_prepared
from advser.store.artefacts import Store
from advser.suite.schema import Suite
from advser.threat.model import Access
from advser.threat.objectives import margin
from advser.threat.target import Target


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Banded(EmotionModel):
    """Logits that are linear in mel bands, so that their gradient can be written down."""

    def __init__(self, frontend: MelFrontEnd, classes: int = 2) -> None:
        super().__init__()
        self.frontend = frontend
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.head = nn.Linear(len(frontend.centres) * frontend.frames, classes)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        return features.flatten(1)


def noise(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Waveforms of white noise, their lengths, and labels."""
    sizes = torch.tensor(lengths)
    waveform = 0.1 * torch.randn(len(sizes), max(lengths), generator=generator(seed))
    return waveform * sound_mask(sizes, max(lengths)), sizes, torch.arange(len(sizes)) % 2


# The chain rule.


def as_coded(waveform: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """g′ (T,) of one clip and G (bands, frames), transcribed term by term."""
    bands, frames = gradient.shape
    r = scipy.signal.resample(waveform, frames)
    b, f = np.arange(frames), 204 * np.arange(1, bands + 1)
    d = np.abs(r * np.exp(2j * np.pi * b * f[:, None]))
    q = np.array([1 / (r[b + 1] - r[b] + 0.001) for b in range(frames - 1)] + [1 / (r[-1] - r[-2] + 0.001)])
    return scipy.signal.resample(gradient.T @ (d @ q), len(waveform))


def feature_gradient(made: EmotionModel, x: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
    """G (B, bands, frames) by autograd, past the target."""
    features = made.eval().frontend(x, lengths).detach().requires_grad_()
    logits = made.outputs(features, lengths, "spectrogram").logits
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    return torch.autograd.grad(loss, features)[0]


def test_the_coded_chain_rule_is_the_formula_of_the_source() -> None:
    made = toys.model(toys.Convolutional).double()
    x, lengths, labels = toys.sounds()
    x = x.double()
    gradient = feature_gradient(made, x, lengths, labels)
    attack = ChainRule(steps=1, alpha=0.004)
    with Target(made, lengths, "waveform") as target:
        found = attack.gradient(target, x, labels)
        perturbed = attack.perturb(target, x, labels, generator())
    for row, length in enumerate(lengths.tolist()):
        expected = torch.from_numpy(as_coded(x[row, :length].numpy(), gradient[row].numpy()))
        torch.testing.assert_close(found[row, :length], expected)
        clear = expected.abs() > 1e-6 * expected.abs().max()
        assert clear.float().mean() > 0.99
        step = (perturbed - x)[row, :length]
        torch.testing.assert_close(step[clear], 0.004 * expected.sign()[clear])
        assert not perturbed[row, length:].any()


def test_the_coded_chain_rule_is_one_number_times_the_sum_over_bands() -> None:
    """At each frame's own sample the step has the sign of c · Σ G, and it changes sign no oftener than frames do."""
    made = toys.model(toys.Linear).double()
    waveform, _, labels = toys.sounds()
    x, lengths = waveform.double(), torch.full((len(waveform),), toys.SAMPLES)
    summed = feature_gradient(made, x, lengths, labels).sum(1)
    with Target(made, lengths, "waveform") as target:
        step = ChainRule(steps=1).perturb(target, x, labels, generator()) - x
        at_frames = ChainRule().gradient(target, x, labels)[:, :: toys.SAMPLES // summed.shape[1]]
    ratio = at_frames / summed
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert ((step.sign().diff() != 0).sum(1) <= summed.shape[1]).all()


RULES = [{"variant": "coded"}, {"variant": "published"}, {"variant": "published", "phase": "real"}]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("epsilon", [None, 0.01])
def test_the_chain_rule_takes_steps_of_alpha_at_one_pass_each(rule: dict[str, Any], epsilon: float | None) -> None:
    made = Banded(LogMel(12))
    x, lengths, labels = noise(6000, 3000, 4500)
    steps, alpha = 4, 0.007
    with Target(made, lengths, "waveform") as target:
        attack = ChainRule(alpha=alpha, steps=steps, epsilon=epsilon, **rule)
        change = attack.perturb(target, x, labels, generator()) - x
        costs = target.forwards.tolist(), target.backwards.tolist()
    assert costs == ([steps] * 3, [steps] * 3)
    assert change.abs().max().item() == pytest.approx(epsilon or steps * alpha, rel=1e-4)
    assert not change[~sound_mask(lengths, 6000)].any(), "padding is left alone"
    if epsilon is None:
        torch.testing.assert_close(change / alpha, (change / alpha).round(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("kind", "domain", "access", "variant", "message"),
    [
        (toys.Waveform, "waveform", "white-box", "coded", "Waveform has no spectrogram"),
        (toys.Waveform, "waveform", "white-box", "published", "Waveform has no spectrogram"),
        (toys.Linear, "waveform", "white-box", "published", "front end is 'Frames', expected mel bands"),
        (toys.Linear, "spectrogram", "white-box", "coded", "domain is 'spectrogram', expected waveform"),
        (toys.Linear, "waveform", "scores", "coded", "access is 'scores', expected white-box"),
    ],
)
def test_the_chain_rule_says_what_it_lacks(
    kind: type[EmotionModel], domain: Domain, access: Access, variant: Any, message: str
) -> None:
    made = toys.model(kind)
    waveform, lengths, labels = toys.sounds()
    x = made.inputs(waveform, lengths, domain)
    with Target(made, lengths, domain, access) as target, pytest.raises(AccessError, match=message):
        ChainRule(variant=variant).perturb(target, x, labels, generator())


@pytest.mark.parametrize("phase", ["modulus", "real"])
def test_the_published_chain_rule_on_one_frame_and_band(phase: Any) -> None:
    made = Banded(LogMel(20))
    frame, band = 5, 17
    with torch.no_grad():
        kept = made.head.weight.view(2, 64, 20)[:, band, frame].clone()
        made.head.weight.zero_().view(2, 64, 20)[:, band, frame] = kept
    x, lengths, labels = noise(8000)
    with Target(made, lengths, "waveform") as target:
        found = ChainRule(variant="published", phase=phase).gradient(target, x, labels)[0]
        wrong = target.logits(x).softmax(1)[0] - torch.tensor([1.0, 0.0])
    gradient = float(wrong @ kept)
    # Frames are 256 samples = 0.016 s apart and 512 long; this one is centred on sample 1280.
    r, after = (float(x[0, start : start + 512].mean()) for start in (1024, 1280))
    centre = float(made.frontend.centres[band])
    phi = abs(r) if phase == "modulus" else r * np.cos(2 * np.pi * centre * frame * 0.016)
    expected = torch.zeros(8000)
    expected[1153:1409] = gradient * phi / ((after - r) / 0.016 + 0.001)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("before", "sounding", "after", "first", "last"),
    [(16_000, 8000, 12_000, 16_000, 24_000), (0, 80_000, 0, 24_000, 56_000)],
    ids=["silence that is cut off", "frames that are not seen"],
)
def test_the_published_chain_rule_leaves_alone_what_is_not_heard(
    before: int, sounding: int, after: int, first: int, last: int
) -> None:
    made = Banded(DecibelMel())
    x, _, labels = noise(sounding)
    x = nn.functional.pad(x, (before, after))
    lengths = torch.tensor([x.shape[1]])
    with Target(made, lengths, "waveform") as target:
        change = (ChainRule(variant="published", steps=1).perturb(target, x, labels, generator()) - x)[0]
    # Silence is told from sound by frames of 2048 samples.
    assert not change[: max(first - 2048, 0)].any()
    assert not change[last + 2048 :].any()
    assert change[first:last].count_nonzero() > 0.95 * (last - first)


def test_the_chain_rule_is_as_blind_as_noise_of_its_shape() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Tiny(2, frames=48)
    x, lengths, labels = noise(*range(8000, 12_000, 200))
    made.frontend.fit([(x, lengths)])
    made(x, lengths)
    attacks = {"fgsm": FGSM(epsilon=0.004), "frame-noise": FrameNoise(epsilon=0.004)}
    attacks |= {str(rule): ChainRule(alpha=0.004, steps=1, **rule) for rule in RULES}
    with Target(made, lengths, "waveform") as target:
        exact = target.gradient(x, labels)
        # Scaled, as the gradient's square can be too small for float32.
        exact = exact / exact.abs().amax(1, keepdim=True)
        cosine = {
            name: float(torch.cosine_similarity(attack.perturb(target, x, labels, generator()) - x, exact).abs().mean())
            for name, attack in attacks.items()
        }
    for rule in map(str, RULES):
        assert cosine[rule] < 4 * cosine["frame-noise"]
        assert cosine["fgsm"] > 20 * cosine[rule]


# Controls.


@given(
    hop=st.integers(1, 300),
    samples=st.integers(1, 700),
    clips=st.integers(1, 3),
    epsilon=st.floats(1e-4, 0.5),
    seed=st.integers(0, 9),
)
def test_frame_noise_holds_its_sign_over_each_frame(
    hop: int, samples: int, clips: int, epsilon: float, seed: int
) -> None:
    x = torch.zeros(clips, samples)
    target = Target(None, torch.full((clips,), samples), "waveform", "blind")
    made = FrameNoise(epsilon=epsilon, hop=hop).perturb(target, x, torch.zeros(clips), generator(seed))
    torch.testing.assert_close(made.abs(), torch.full_like(x, epsilon))
    for start in range(0, samples, hop):
        assert (made[:, start : start + hop] == made[:, start : start + 1]).all()


def test_frame_noise_has_both_signs_and_is_each_clip_s_own() -> None:
    target = Target(None, torch.full((2,), 16_000), "waveform", "blind")
    made = FrameNoise(epsilon=0.01).perturb(target, torch.zeros(2, 16_000), torch.zeros(2), generator())
    assert (made.mean(1).abs() < 0.003).all()
    assert not torch.equal(made[0], made[1])


def test_frame_noise_in_a_spectrogram_has_one_sign_for_all_bands() -> None:
    target = Target(None, torch.full((2,), 100), "spectrogram", "blind")
    made = FrameNoise(epsilon=0.5).perturb(target, torch.zeros(2, 7, 60), torch.zeros(2), generator())
    assert (made == made[:, :1]).all()
    assert (made.diff(dim=2) != 0).float().mean() > 0.3, "a frame's sign does not depend on its neighbour's"
    assert set(made.unique().tolist()) == {-0.5, 0.5}


@pytest.mark.parametrize("shape", [(40, 50), (40, 5, 6)], ids=["waveform", "spectrogram"])
def test_dc_is_constant_in_each_clip_and_of_either_sign(shape: tuple[int, ...]) -> None:
    domain: Domain = "waveform" if len(shape) == 2 else "spectrogram"
    target = Target(None, torch.full((40,), 50), domain, "blind")
    made = Offset(epsilon=0.25).perturb(target, torch.zeros(shape), torch.zeros(40), generator()).flatten(1)
    assert (made == made[:, :1]).all()
    assert 10 < (made[:, 0] == 0.25).sum() < 30
    assert (made.abs() == 0.25).all()


# The square attack.


@settings(max_examples=25)
@given(
    place=st.sampled_from(toys.PLACES),
    classes=st.integers(2, 3),
    queries=st.integers(1, 30),
    share=st.floats(1e-3, 1),
    epsilon=st.floats(0, 0.2),
    seed=st.integers(0, 5),
)
def test_square_keeps_within_queries_budget_and_sound_and_never_helps_the_model(
    place: tuple[type[EmotionModel], Domain], classes: int, queries: int, share: float, epsilon: float, seed: int
) -> None:
    kind, domain = place
    made = toys.model(kind, classes=classes)
    waveform, lengths, labels = toys.sounds(seed=seed)
    labels = labels % classes
    x = made.inputs(waveform, lengths, domain).detach()
    mask = sound_mask(lengths * x.shape[-1] // toys.SAMPLES, x.shape[-1])
    mask = mask if domain == "waveform" else mask[:, None]
    with Target(made, lengths, domain, Square.access, mask=mask) as target:
        found = Square(epsilon=epsilon, queries=queries, share=share).perturb(target, x, labels, generator(seed))
        asked = target.forwards.clone()
        clean, attacked = target.loss(x, labels, margin), target.loss(found, labels, margin)
    assert (asked <= queries).all()
    assert ((asked == queries) | (attacked > 0)).all(), "it ends before its queries only once a clip is misread"
    assert (attacked >= clean - 1e-5).all()
    assert ((found - x).abs() <= epsilon + 1e-5).all()
    assert torch.equal(torch.where(mask, x, found), x), "padding is left alone"
    assert torch.equal(found[clean > 0], x[clean > 0])
    assert (asked[clean > 0] == 1).all()
    if domain == "waveform":
        assert found.abs().max() <= 1


def test_square_takes_soft_labels_for_the_most_probable_class() -> None:
    made = toys.model(toys.Convolutional)
    x, lengths, labels = toys.sounds()
    soft = nn.functional.one_hot(labels, toys.CLASSES) * 0.4 + 0.2
    with Target(made, lengths, "waveform", "scores") as target:
        hard, softened = (
            Square(epsilon=0.01, queries=10).perturb(target, x, given, generator()) for given in (labels, soft)
        )
    assert torch.equal(hard, softened)
    assert not torch.equal(hard, x)


def right_labels(made: EmotionModel, x: Tensor, lengths: Tensor, domain: Domain) -> Tensor:
    """The classes that a model gives to clean input: it is right on every clip."""
    with torch.no_grad():
        return made.eval().outputs(x, lengths, domain).logits.argmax(1)


@pytest.mark.parametrize("domain", ["waveform", "spectrogram"])
def test_square_beats_noise_of_its_size(domain: Domain) -> None:
    made = toys.model(toys.Convolutional)
    waveform, lengths, _ = toys.sounds(24)
    x = made.eval().inputs(waveform, lengths, domain).detach()
    labels = right_labels(made, x, lengths, domain)
    epsilon = toys.EPSILON[domain]
    with Target(made, lengths, domain, "scores") as target:
        clean = target.loss(x, labels, margin)
        rises = [
            (target.loss(attack.perturb(target, x, labels, generator()), labels, margin) - clean).mean()
            for attack in (Noise(epsilon=epsilon), Square(epsilon=epsilon, queries=60))
        ]
    assert rises[1] > 2 * abs(rises[0])
    assert rises[1] > 0


@pytest.mark.parametrize("domain", ["waveform", "spectrogram"])
def test_square_nearly_reaches_the_optimum_of_a_linear_model(domain: Domain) -> None:
    made = toys.model(toys.Linear, classes=2)
    waveform, lengths, _ = toys.sounds(3)
    x = made.inputs(waveform.clamp(-0.5, 0.5), lengths, domain)
    shape = (32, 32)
    # Weights in blocks of one sign, as large as a square can be; a label so sure that the search never ends early.
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat_interleave(16, 0).repeat_interleave(16, 1)
    if domain == "waveform":
        signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).repeat_interleave(8).expand(shape)
    with torch.no_grad():
        made.head.weight.copy_(torch.stack([0 * signs, signs]).flatten(1))
        made.head.bias.copy_(torch.tensor([1e3, 0.0]))
    labels = torch.zeros(len(x), dtype=torch.long)
    epsilon = 0.1
    with Target(made, lengths, domain, "scores") as target:
        found = Square(epsilon=epsilon, queries=1200).perturb(target, x, labels, generator())
        gained = target.loss(found, labels, margin) - target.loss(x, labels, margin)
        assert (target.forwards == 1202).all()
    assert (gained > 0.9 * epsilon * signs.numel()).all()
    assert (gained < 1.01 * epsilon * signs.numel()).all()


def test_square_stands_before_scores_alone() -> None:
    made = toys.model(toys.Linear)
    x, lengths, labels = toys.sounds()
    with (
        Target(made, lengths, "waveform", Square.access) as target,
        pytest.raises(AccessError, match="gradient: access is 'scores', expected white-box"),
    ):
        target.gradient(x, labels)


# Attacks that learn.


def test_an_attack_without_its_network_makes_no_example() -> None:
    x, lengths, labels = toys.sounds()
    made = toys.model(toys.Linear)
    with Target(made, lengths, "waveform") as target, pytest.raises(ContractError, match="network is not trained"):
        Generator(epsilon=0.01).perturb(target, x, labels, generator())


def tones(clips: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clips of a low (0), middle (1) or high (2) tone of any phase in noise; lengths, labels."""
    draws = generator(seed)
    labels = torch.arange(clips) % toys.CLASSES
    cycles = torch.tensor([0.03, 0.08, 0.2])[labels][:, None] * torch.arange(toys.SAMPLES)
    x = 0.05 * (2 * torch.pi * (cycles + torch.rand(clips, 1, generator=draws))).sin()
    return x + 0.05 * torch.randn(x.shape, generator=draws), torch.full((clips,), toys.SAMPLES), labels


def trained(seed: int) -> EmotionModel:
    """A toy that tells tones apart."""
    made = toys.model(toys.Waveform, seed)
    optimizer = torch.optim.Adam(made.parameters(), 5e-3)
    for step in range(80):
        x, lengths, labels = tones(24, 1000 + step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(made(x, lengths), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return made


class Surrogates:
    """Batches before several toy models in turn; each target is open while it is in use."""

    def __init__(self, *models: EmotionModel) -> None:
        self.models = models
        self.asked = [0] * len(models)

    def batches(self) -> Iterator[tuple[Target, Tensor, Tensor]]:
        for number, (index, made) in enumerate(cycle(enumerate(self.models))):
            x, lengths, labels = tones(12, number)
            with Target(made, lengths, "waveform") as target:
                self.asked[index] += 1
                yield target, x, labels


def learned(attack: Generator, *models: EmotionModel, seed: int = 0) -> tuple[nn.Module, Surrogates]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = attack.network()
    surrogates = Surrogates(*models)
    batches = surrogates.batches()
    attack.learn(network, batches, generator(seed))
    batches.close()
    return network, surrogates


SMALL = {"epsilon": 0.02, "channels": 6, "layers": 5, "learning_rate": 5e-3}


@pytest.mark.parametrize("seeds", [(0,), (0, 1)], ids=["one surrogate", "two in turn"])
def test_a_generator_does_more_to_clips_that_it_has_not_seen_than_noise(seeds: tuple[int, ...]) -> None:
    models = [trained(seed) for seed in seeds]
    attack = Generator(steps=60, **SMALL)
    states, random_state = [toys.state(made) for made in models], torch.get_rng_state()
    network, surrogates = learned(attack, *models)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert surrogates.asked == [60 // len(models)] * len(models)
    for made, before in zip(models, states, strict=True):
        toys.assert_same_state(made, before)
        x, lengths, labels = tones(30, 500)
        with Target(made, lengths, "waveform") as target:
            clean = target.loss(x, labels).mean()
            noisy = target.loss(Noise(epsilon=0.02).perturb(target, x, labels, generator()), labels).mean()
            attacked = target.loss(attack.apply(network, x), labels).mean()
        assert attacked > clean
        assert attacked - clean > 2 * (noisy - clean).abs()


def test_a_generator_learns_the_same_from_the_same_seed() -> None:
    made = toys.model(toys.Waveform)
    attack = Generator(steps=4, **SMALL)
    first, again, other = (learned(attack, made, seed=seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


@settings(max_examples=20)
@given(gain=st.floats(0.01, 1), epsilon=st.floats(0, 0.1), seed=st.integers(0, 5))
def test_a_generator_keeps_its_budget_and_does_not_mind_loudness(gain: float, epsilon: float, seed: int) -> None:
    x = toys.sounds(2, seed)[0]
    attack = Generator(epsilon=epsilon, channels=4, layers=3)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = attack.network()
    change = attack.apply(network, x) - x
    assert (change.abs() <= epsilon + 1e-6).all()
    torch.testing.assert_close(attack.apply(network, gain * x) - gain * x, change, atol=1e-4 * epsilon + 1e-6, rtol=0)


def test_a_generator_bears_silence() -> None:
    attack = Generator(epsilon=0.01, channels=4, layers=3)
    assert attack.apply(attack.network(), torch.zeros(2, 50)).isfinite().all()


@pytest.mark.parametrize("layers", [1, 3, 5])
def test_each_layer_doubles_what_the_network_sees(layers: int) -> None:
    network = AtrousCNN(3, layers)
    for weight in network.parameters():
        # Positive, so that nothing is lost in a ReLU.
        nn.init.constant_(weight, 0.1)
    x = torch.rand(1, 201, generator=generator())
    # A peak of its own, so that scaling joins no sample to another.
    x[0, 0] = 100
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0, 100], x)
    seen = gradient[0, 1:].nonzero().squeeze(1) + 1
    assert [int(seen[0]), int(seen[-1])] == [100 - (2**layers - 1), 100 + (2**layers - 1)]
    assert int(seen[-1] - seen[0]) + 1 == 2 * 2**layers - 1


# The stage that has them learn.


def small_suite(**changes: Any) -> Suite:
    data = {
        "name": "small",
        "corpus": "demo",
        "protocol": "3pair",
        "folds": ["fold1"],
        "models": [{"name": "tiny", "params": {"frames": 48}}],
        "defenses": ["none"],
        "metrics": ["uar"],
        "transcriber": "none",
        "noise": False,
        "training": {"iterations": 40, "batch_size": 16, "learning_rate": 2e-3, "precision": "fp32"},
        "attacks": [
            {
                "name": "generator",
                "params": {"epsilon": 0.005, "channels": 4, "layers": 3, "steps": 10, "learning_rate": 0.01},
            },
            {"name": "noise", "params": {"epsilon": 0.005}},
        ],
    }
    return Suite.model_validate(data | changes)


def planned(suite: Suite, prepare: Job) -> Plan:
    corpus = Corpus({0: prepare.key}, ("fold1", "fold2", "fold3"), "en")
    return make_plan(suite, corpus, Speech(None, "none", "not asked for"), {}, "cpu")


def run(plan: Plan, prepare: Job, root: Path) -> Store:
    for job in (prepare, *plan.jobs.values()):
        outcome = execute(job, root, (), "cpu")
        assert outcome.status == "ok", outcome
    return Store(root)


def job_of(plan: Plan, stage: str, attack: str) -> Job:
    (found,) = [job for job in plan.jobs.values() if job.stage == stage and job.spec.attack.name == attack]
    return found


def test_a_network_is_learned_on_the_training_clips_and_stored_and_crafted_with(tmp_path: Path) -> None:
    prepare = prepare_job(small_suite(), 0, None)
    plan = planned(small_suite(), prepare)
    store = run(plan, prepare, tmp_path / "store")

    learning, craft = job_of(plan, "learn", "generator"), job_of(plan, "craft", "generator")
    assert craft.inputs["network"] == learning.key
    assert learning.inputs == {role: key for role, key in craft.inputs.items() if role != "network"}
    assert "network" not in job_of(plan, "craft", "noise").inputs
    costs = load_file(store.get(craft.key).path(COSTS))
    assert not costs["forwards"].any(), "a network asks its target nothing"

    prepared = load_prepared(store.get(prepare.key))
    test = list(prepared.folds["fold1"].test)
    clean, made = prepared.clips.select(test), load_clips(store.get(craft.key).path(AUDIO))
    change = np.abs(made.packed().astype(int) - clean.packed().astype(int))
    assert 0 < change.max() <= 0.005 / PCM_STEP

    losses: dict[str, float] = {}
    for cell in plan.cells:
        logits = load_file(store.get(cell.folds[0].predicted).path(LOGITS))["logits"]
        losses[cell.columns["attack"]] = float(
            nn.functional.cross_entropy(logits, torch.from_numpy(prepared.targets[test]))
        )
    assert losses["generator"] > losses["none"]

    random_state = torch.get_rng_state()
    learn(Task(learning.spec, {role: store.get(key) for role, key in learning.inputs.items()}, tmp_path))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert (tmp_path / NETWORK).read_bytes() == store.get(learning.key).path(NETWORK).read_bytes()


def test_a_network_learns_from_an_ensemble_of_surrogates(tmp_path: Path) -> None:
    models = [{"name": "tiny", "label": name, "params": {"frames": frames}} for name, frames in
              (("a", 16), ("b", 24), ("victim", 32))]  # fmt: skip
    attack = {
        "name": "generator",
        "params": {"epsilon": 0.005, "channels": 2, "layers": 2, "steps": 2},
        "surrogates": [["a", "b"]],
    }
    training = {"iterations": 2, "batch_size": 8, "precision": "fp32"}
    suite = small_suite(models=models, attacks=[attack], training=training)
    prepare = prepare_job(suite, 0, None)
    plan = planned(suite, prepare)
    learns = [job for job in plan.jobs.values() if job.stage == "learn"]
    assert sorted(len(job.inputs) for job in learns) == [2, 2, 2, 3], "each victim's own, and one for the ensemble"
    store = run(plan, prepare, tmp_path)
    networks = {store.get(job.key).path(NETWORK).read_bytes() for job in learns}
    assert len(networks) == 4


def test_controls_and_square_declare_what_they_ask_for() -> None:
    asked: dict[type[Attack], Access] = {
        FrameNoise: "blind",
        Offset: "blind",
        Square: "scores",
        ChainRule: "white-box",
        Generator: "white-box",
    }
    assert {attack: attack.access for attack in asked} == asked
