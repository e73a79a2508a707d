"""The detector of adversarial input: its network, its training, its metrics, and attacks that evade it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn
from torch.nn import functional

from advser.attacks.gradient_sign import IterativeFGSM
from advser.attacks.reference import AttackReference
from advser.defenses.base import Defense, TrainingBatch
from advser.defenses.detection import Detector, DetectorNetwork
from advser.defenses.undefended import Undefended
from advser.metrics.detection import BINS, Detection, DetectorAUC, DetectorEER
from advser.models.base import EmotionModel, Outputs
from advser.models.terms import Domain
from advser.scoring.bootstrap import bootstrap
from advser.threat.objectives import OBJECTIVES, Loss, cross_entropy, evasion
from advser.threat.target import Target

places = pytest.mark.parametrize(("kind", "domain"), toys.PLACES)
scores = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30)


def detector(epsilon: float = 0.1, **more: Any) -> Detector:
    return Detector(attack=AttackReference(name="fgsm", params={"epsilon": epsilon}), **more)


def train(model: EmotionModel, defense: Defense, batch: TrainingBatch, steps: int) -> None:
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    for step in range(steps):
        optimizer.zero_grad()
        features = model.train().frontend(batch.waveform, batch.lengths)
        defense.loss(model, replace(batch, features=features), step).backward()
        optimizer.step()


class Learned(toys.Spectrum):
    """A spectrogram with a weight and a running mean of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm1d(33)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        return self.normalise(super().forward(waveform, lengths))


class WithLearnedFrontEnd(toys.Convolutional):
    """A model with a trained front end."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.frontend = Learned()


@pytest.mark.parametrize("bands", [1, 33])
def test_the_logit_of_a_spectrogram_does_not_depend_on_the_batch(bands: int) -> None:
    network = DetectorNetwork().eval()
    features, lengths = torch.randn(4, bands, 45), torch.tensor([100, 3, 50, 7])
    together = network(features, lengths)
    assert together.shape == (4,)
    for row in range(4):
        torch.testing.assert_close(network(features[[row]], lengths[[row]])[0], together[row])


@pytest.mark.parametrize("more", [0, 1, 2, 7, 500])
def test_padding_of_sound_does_not_change_the_logit(more: int) -> None:
    network = DetectorNetwork()
    waveform, lengths, _ = toys.sounds()
    network(waveform, lengths)
    network.eval()
    together = network(functional.pad(waveform, (0, more)), lengths)
    alone = [network(sound[None, :length], length[None])[0] for sound, length in zip(waveform, lengths, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone))


def test_the_network_has_the_documented_number_of_parameters() -> None:
    assert sum(weight.numel() for weight in DetectorNetwork().parameters()) == 4_865
    assert "4,865 parameters" in str(DetectorNetwork.__doc__)


@places
def test_a_model_reports_the_detection_in_every_domain(kind: type[EmotionModel], domain: Domain) -> None:
    model = detector(domain=domain).extend(toys.model(kind)).eval()
    waveform, lengths, _ = toys.sounds()
    of_sound = model.outputs(waveform, lengths, "waveform").detection
    of_features = model.outputs(model.frontend(waveform, lengths), lengths, "spectrogram").detection
    assert of_sound is not None
    assert of_sound.shape == (len(waveform),)
    if model.spectrogram:
        assert torch.equal(of_sound, of_features)
    else:
        assert of_features is None
    assert toys.model(kind).outputs(waveform, lengths, "waveform").detection is None


@pytest.mark.parametrize(
    ("kind", "domain"), [*toys.PLACES, (WithLearnedFrontEnd, "spectrogram"), (WithLearnedFrontEnd, "waveform")]
)
def test_the_classifier_equals_that_of_undefended_training(kind: type[EmotionModel], domain: Domain) -> None:
    plain = toys.model(kind)
    batch = toys.training_batch(plain)
    guarded = detector(domain=domain).extend(copy.deepcopy(plain))
    train(plain, Undefended(), batch, 4)
    train(guarded, detector(domain=domain), batch, 4)
    expected = plain.state_dict()
    state = {key: value for key, value in guarded.state_dict().items() if not key.startswith("detector.")}
    assert state.keys() == expected.keys()
    for key, value in state.items():
        assert torch.equal(value, expected[key]), key


@places
def test_the_detector_is_trained_after_the_warm_up_only(kind: type[EmotionModel], domain: Domain) -> None:
    model = detector().extend(toys.model(kind))
    assert model.detector is not None
    batch, before = toys.training_batch(model), copy.deepcopy(model.detector.state_dict())
    train(model, detector(domain=domain, warmup=3), batch, 3)
    assert all(torch.equal(value, before[key]) for key, value in model.detector.state_dict().items())
    train(model, detector(domain=domain, warmup=3), batch, 4)
    changed = [key for key, value in model.detector.state_dict().items() if not torch.equal(value, before[key])]
    assert set(changed) == set(before)
    # A single pass over clean and adversarial clips together.
    assert model.detector.get_buffer("blocks.0.1.num_batches_tracked") == 1


def test_the_loss_adds_the_detector_s_cross_entropy_on_clean_and_adversarial_clips() -> None:
    model = detector().extend(toys.model(toys.Linear))
    assert model.detector is not None
    batch = toys.training_batch(model)
    x = batch.features.clone().requires_grad_()
    logits = model.outputs(x, batch.lengths, "spectrogram").logits
    functional.cross_entropy(logits, logits.argmax(1)).backward()
    assert x.grad is not None
    twin = copy.deepcopy(model.train())
    loss = detector(0.1).loss(model, batch, 0)
    pair = torch.cat([batch.features, batch.features + 0.1 * x.grad.sign()])
    probability = twin.detector(pair, batch.lengths.repeat(2)).sigmoid()  # type: ignore[misc]
    clips = len(batch.labels)
    expected = -(torch.cat([1 - probability[:clips], probability[clips:]])).log().mean()
    torch.testing.assert_close(loss, functional.cross_entropy(logits, batch.labels) + expected)


def detections(model: EmotionModel, batch: TrainingBatch, x: Tensor, domain: Domain) -> Tensor:
    with torch.no_grad():
        detection = model.eval().outputs(x, batch.lengths, domain).detection
    assert detection is not None
    return detection


def attacked(model: EmotionModel, batch: TrainingBatch, domain: Domain, epsilon: float, objective: Loss) -> Tensor:
    x = batch.inputs(domain)
    mask = batch.mask(model, domain)
    with Target(model, batch.lengths, domain, objective=objective, mask=mask) as target:
        return IterativeFGSM(epsilon=epsilon, steps=10).perturb(target, x, batch.labels, batch.generator)


@pytest.mark.parametrize(("kind", "domain"), [(toys.Linear, "spectrogram"), (toys.Waveform, "waveform")])
def test_a_trained_detector_detects_the_attack_and_misses_an_adaptive_attack(
    kind: type[EmotionModel], domain: Domain
) -> None:
    epsilon = 0.1
    defense = detector(epsilon, domain=domain)
    model = defense.extend(toys.model(kind))
    train(model, defense, toys.training_batch(model, clips=32), 80)
    batch = toys.training_batch(model, clips=32, seed=1)
    clean = detections(model, batch, batch.inputs(domain), domain)
    plain, evading = (
        detections(model, batch, attacked(model, batch, domain, epsilon, objective), domain)
        for objective in (cross_entropy, evasion)
    )
    assert roc_auc_score([0] * 32 + [1] * 32, torch.cat([clean, plain])) > 0.9
    assert (plain > 0).float().mean() > 0.7
    assert (evading > 0).float().mean() < 0.2


def test_evasion_is_the_cross_entropy_less_the_detector_s() -> None:
    logits, detection = torch.randn(5, 3), torch.tensor([-40.0, -1.0, 0.0, 1.0, 40.0])
    labels = torch.tensor([0, 1, 2, 0, 1])
    loss = functional.cross_entropy(logits, labels, reduction="none")
    outputs = Outputs(logits, logits, detection)
    clean_loss = functional.binary_cross_entropy_with_logits(detection, torch.zeros(5), reduction="none")
    torch.testing.assert_close(evasion(outputs, labels), loss - clean_loss)
    torch.testing.assert_close(evasion(outputs, labels, weight=3.0), loss - 3 * clean_loss)
    torch.testing.assert_close(evasion(Outputs(logits, logits), labels), loss)
    assert OBJECTIVES["evasion"] is evasion


def examples(*folds: list[tuple[float, float]]) -> pd.DataFrame:
    """Return a table of (detection, clean_detection) by fold, with two speakers per fold."""
    rows = [
        {"fold": str(number), "speaker": f"{number}{clip % 2}", "detection": score, "clean_detection": clean}
        for number, fold in enumerate(folds)
        for clip, (score, clean) in enumerate(fold)
    ]
    return pd.DataFrame(rows)


def figure(metric: Detection, table: pd.DataFrame) -> float:
    return float(metric.combine(metric.statistics(table, 3).sum(axis=0)))


def by_scikit_learn(metric: Detection, fold: list[tuple[float, float]]) -> float:
    truth = [1] * len(fold) + [0] * len(fold)
    scores = [score for score, _ in fold] + [clean for _, clean in fold]
    if isinstance(metric, DetectorAUC):
        return float(roc_auc_score(truth, scores))
    false_positives, true_positives, _ = roc_curve(truth, scores)
    return float(brentq(lambda rate: 1 - rate - interp1d(false_positives, true_positives)(rate), 0, 1))


every_metric = pytest.mark.parametrize("metric", [DetectorAUC(), DetectorEER()], ids=["auc", "eer"])


@every_metric
@given(first=scores, second=scores)
def test_figures_are_those_of_scikit_learn_averaged_over_folds(
    metric: Detection, first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    expected = [by_scikit_learn(metric, fold) for fold in (first, second)]
    assert figure(metric, examples(first, second)) == pytest.approx(
        np.average(expected, weights=[len(first), len(second)]), abs=1e-9
    )


@every_metric
def test_the_scale_of_a_fold_does_not_matter(metric: Detection) -> None:
    rng = np.random.default_rng(0)
    folds = [[(score + 0.7, clean) for score, clean in rng.normal(size=(20, 2))] for _ in range(3)]
    moved = [folds[0], [(9 * a - 50, 9 * b - 50) for a, b in folds[1]], [(a**3 + 8, b**3 + 8) for a, b in folds[2]]]
    assert figure(metric, examples(*moved)) == pytest.approx(figure(metric, examples(*folds)))
    # A single curve over all clips would rate a good detector as poor.
    assert roc_auc_score([1] * 60 + [0] * 60, np.concatenate(moved).T.ravel()) != pytest.approx(
        figure(DetectorAUC(), examples(*moved)), abs=0.05
    )


@every_metric
def test_the_bins_are_fine_enough_for_many_clips(metric: Detection) -> None:
    rng = np.random.default_rng(0)
    fold = [(score + 1, clean) for score, clean in rng.normal(size=(3 * BINS, 2))]
    assert figure(metric, examples(fold)) == pytest.approx(by_scikit_learn(metric, fold), abs=1 / 512)


@pytest.mark.parametrize(
    ("fold", "auc", "eer"),
    [
        ([(1.0, 0.0), (2.0, -1.0)], 1, 0),
        ([(0.0, 1.0), (-1.0, 2.0)], 0, 1),
        ([(3.0, 3.0), (3.0, 3.0)], 0.5, 0.5),
    ],
    ids=["perfect", "inverted", "constant"],
)
def test_extremes(fold: list[tuple[float, float]], auc: float, eer: float) -> None:
    assert figure(DetectorAUC(), examples(fold)) == auc
    assert figure(DetectorEER(), examples(fold)) == eer


@every_metric
@given(first=scores, second=scores)
def test_intervals_are_within_range_even_if_a_draw_lacks_a_fold(
    metric: Detection, first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    table = examples(first, second)
    interval = bootstrap(metric, metric.statistics(table, 3), table["speaker"].to_numpy(), 50, 0)
    assert (interval.n, interval.n_failed) == (len(table), 0)
    assert 0 <= interval.low <= interval.high <= 1
    assert interval.value == figure(metric, table)


@every_metric
def test_failed_clips_do_not_count(metric: Detection) -> None:
    fold = [(1.0, 0.5), (0.2, 0.4), (0.7, 0.1)]
    table = examples([*fold, (float("nan"), 5.0), (9.0, float("nan"))])
    statistics = metric.statistics(table, 3)
    interval = bootstrap(metric, statistics, table["speaker"].to_numpy(), 50, 0)
    assert (interval.n, interval.n_failed) == (3, 2)
    assert interval.value == figure(metric, examples(fold))
    assert np.isnan(metric.combine(np.zeros(statistics.shape[1])))
