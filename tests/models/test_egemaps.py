"""The support vector machines on the functionals of eGeMAPS."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_speech import speech
from safetensors.torch import load_file, save_file
from torch.nn.functional import multi_margin_loss

from advser.audio.pcm import SAMPLE_RATE
from advser.errors import InputError
from advser.models import egemaps
from advser.models.egemaps import EgemapsSVM, functionals
from advser.stages.train import WEIGHTS

TRAINED = "[mf][12]_*_[12].flac"


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    monkeypatch.setitem(sys.modules, request.param, None)
    egemaps._opensmile.cache_clear()
    yield request.param
    egemaps._opensmile.cache_clear()


@pytest.mark.parametrize("absent", ["opensmile"], indirect=True)
def test_an_error_names_the_extra_of_opensmile(absent: str) -> None:
    with pytest.raises(InputError, match=r"opensmile is not installed; .*: pip install '\.\[opensmile\]' "):
        EgemapsSVM(3)


@pytest.mark.parametrize("absent", ["sklearn.svm"], indirect=True)
def test_an_error_names_the_extra_of_scikit_learn(absent: str) -> None:
    with pytest.raises(InputError, match=r"scikit-learn is not installed; .*: pip install '\.\[opensmile\]' "):
        fitted(EgemapsSVM(4), "m1_*_1.flac")


def fitted(model: EgemapsSVM, pattern: str) -> EgemapsSVM:
    waveform, lengths, labels = speech(pattern)
    model.frontend.fit([(waveform, lengths)])
    model.fit([(waveform, lengths, labels)])
    return model.eval()


@pytest.fixture(scope="module")
def machines() -> EgemapsSVM:
    """A model trained on two clips per emotion of each of four voices; no test changes it."""
    return fitted(EgemapsSVM(4), TRAINED)


def test_functionals_equal_those_of_opensmile() -> None:
    from opensmile import FeatureLevel, FeatureSet, Smile

    waveform, lengths, _ = speech("f1_*_1.flac")
    smile = Smile(feature_set=FeatureSet.eGeMAPSv02, feature_level=FeatureLevel.Functionals)
    for row, length in enumerate(lengths):
        expected = smile.process_signal(waveform[row, :length].numpy(), SAMPLE_RATE)
        assert expected.shape == (1, 88)
        values = functionals(waveform[row : row + 1], lengths[row : row + 1])
        np.testing.assert_array_equal(values.numpy(), expected.to_numpy())


def test_functionals_are_standardised_over_the_training_data() -> None:
    model = EgemapsSVM(4)
    waveform, lengths, _ = speech("m1_*_[12].flac")
    model.frontend.fit([(waveform[:3], lengths[:3]), (waveform[3:], lengths[3:])])
    features = model.frontend(waveform, lengths)
    assert features.shape == (8, 88, 1)
    torch.testing.assert_close(features.mean(0), torch.zeros(88, 1), rtol=0, atol=1e-4)
    spread = features.std(0, correction=0)
    varying = spread > 0
    torch.testing.assert_close(spread[varying], torch.ones(int(varying.sum())), rtol=0, atol=1e-3)
    assert varying.sum() > 80


@pytest.mark.filterwarnings("ignore:Segment too short")
def test_missing_functionals_count_as_the_mean() -> None:
    waveform, lengths, labels = speech("m1_*_1.flac")
    short = lengths.clone()
    short[0] = 300
    model, reference = EgemapsSVM(4), EgemapsSVM(4)
    model.frontend.fit([(waveform, short)])
    reference.frontend.fit([(waveform[1:], lengths[1:])])
    assert functionals(waveform[:1], short[:1]).isnan().all()
    torch.testing.assert_close(model.frontend.state_dict(), reference.frontend.state_dict())
    assert not model.frontend(waveform[:1], short[:1]).any()
    model.fit([(waveform, short, labels)])
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.filterwarnings("ignore:Segment too short")
def test_functionals_missing_in_all_training_clips_have_no_weight() -> None:
    model = EgemapsSVM(4)
    waveform, lengths, labels = speech("m1_*_1.flac")
    short = torch.full_like(lengths, 300)
    model.frontend.fit([(waveform, short)])
    model.fit([(waveform, short, labels)])
    assert not model.head.weight.any()
    assert model(waveform, lengths).isfinite().all()


def test_logits_are_the_decision_values_of_a_machine_per_class(machines: EgemapsSVM) -> None:
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    waveform, lengths, labels = speech(TRAINED)
    values = functionals(waveform, lengths).double().numpy()
    scaler = StandardScaler().fit(values)
    machine = LinearSVC(C=0.01, class_weight="balanced", dual=False).fit(scaler.transform(values), labels)
    expected = torch.from_numpy(machine.decision_function(scaler.transform(values))).float()
    torch.testing.assert_close(machines(waveform, lengths), expected, rtol=1e-3, atol=1e-3)


def test_the_machines_generalise_to_new_voices(machines: EgemapsSVM) -> None:
    waveform, lengths, labels = speech("[mf]3_*_[12].flac")
    assert (machines(waveform, lengths).argmax(1) == labels).float().mean() > 0.5


def test_two_classes_have_opposite_machines_and_a_missing_class_is_rejected() -> None:
    model = EgemapsSVM(3)
    waveform, lengths, labels = speech("m1_*_[12].flac")
    model.frontend.fit([(waveform, lengths)])
    model.fit([(waveform, lengths, torch.where(labels == 1, 2, 0))])
    logits = model(waveform, lengths)
    torch.testing.assert_close(logits[:, 0], -logits[:, 2])
    assert torch.equal(logits[:, 1], torch.full((len(labels),), -1.0))
    assert torch.equal(logits.argmax(1), torch.where(labels == 1, 2, 0))


def test_fitting_is_reproducible(machines: EgemapsSVM, tmp_path: Path) -> None:
    save_file(fitted(EgemapsSVM(4), TRAINED).state_dict(), tmp_path / WEIGHTS)
    again = load_file(tmp_path / WEIGHTS)
    assert {name: tuple(value.shape) for name, value in again.items()} == {
        "frontend.mean": (88,), "frontend.std": (88,), "head.weight": (4, 88), "head.bias": (4,)
    }  # fmt: skip
    assert all(torch.equal(again[name], value) for name, value in machines.state_dict().items())


def test_a_larger_c_reduces_the_training_loss() -> None:
    waveform, lengths, labels = speech("m1_*_[12].flac")
    losses = [
        multi_margin_loss(fitted(EgemapsSVM(4, c=c), "m1_*_[12].flac")(waveform, lengths), labels).item()
        for c in (1e-4, 1.0)
    ]
    assert losses[0] > losses[1]


def test_sound_is_rounded_to_16_bits(machines: EgemapsSVM) -> None:
    """Without rounding, a score-based attack could exploit changes that vanish before the evaluation."""
    waveform, lengths, _ = speech("f1_*_1.flac")
    assert torch.equal(machines(waveform + 1e-6, lengths), machines(waveform, lengths))
    assert torch.equal(machines((waveform * 40).clamp(-1, 1), lengths), machines(waveform * 40, lengths))


def test_no_gradient_reaches_the_sound(machines: EgemapsSVM) -> None:
    waveform, lengths, _ = speech("f1_anger_1.flac")
    assert not machines.frontend(waveform.requires_grad_(), lengths).requires_grad
    assert not machines.differentiable
