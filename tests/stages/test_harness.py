"""The crafting stage: only output that the contract of the attack allows is stored and judged."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import craft_spec, do, train_spec
from safetensors.torch import load_file, save_file
from torch import Tensor

from advser.attacks.base import Attack
from advser.audio.pcm import PCM_STEP, SAMPLE_RATE
from advser.defenses.undefended import Undefended
from advser.errors import ContractError
from advser.models.frontends import LogMel
from advser.plan.jobs import prepare_job
from advser.plugins.registries import ATTACKS, DEFENSES
from advser.plugins.roles import budget
from advser.stages.craft import COSTS, FEATURES, craft
from advser.stages.judge import LOGITS, examine, predict
from advser.stages.prepare import AUDIO, load_clips, load_prepared, prepare
from advser.stages.probes.probe import FINDINGS, probe
from advser.stages.specs import ExamineSpec, PluginSpec, PredictSpec, ProbeSpec, TrainSpec
from advser.stages.train import load_model, train
from advser.store.artefacts import Artefact, Store
from advser.suite.loading import load


class Returns(Attack):
    """Base of the misbehaving attacks below."""

    epsilon: float = budget(0.001, unit="full-scale", about="budget", ge=0)

    def perturb(self, target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        raise NotImplementedError


class TooLarge(Returns):
    """Goes a thousand times beyond its budget, also in the padding."""

    def perturb(self, target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return x + 1000 * self.epsilon * torch.randn(x.shape, generator=generator).sign()


class NotANumber(Returns):
    """Returns NaN."""

    def perturb(self, target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return x * float("nan")


class WrongShape(Returns):
    """Drops a sample."""

    def perturb(self, target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return x[:, 1:]


class Imaginary(Returns):
    """Returns complex numbers."""

    def perturb(self, target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return x + 0.5j


class NoTensor(Returns):
    """Returns no tensor."""

    def perturb(self, target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return x.numpy()


class GlobalRandom(Returns):
    """Draws from torch's global generator."""

    def perturb(self, target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return x + self.epsilon * torch.randn_like(x).sign()


class NumpyRandom(Returns):
    """Draws from numpy's global generator."""

    def perturb(self, target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return x + self.epsilon * float(np.random.rand())


class OtherType(Returns):
    """Changes the default dtype of torch."""

    def perturb(self, target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        torch.set_default_dtype(torch.float64)
        return x


class NoGradients(Returns):
    """Disables gradients in torch, and fails."""

    def perturb(self, target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        torch.set_grad_enabled(False)
        raise ContractError("it broke")


class Shortens(Returns):
    """Overwrites the lengths."""

    def perturb(self, target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        target.lengths[:] = 10
        return x + self.epsilon


class InPlace(Returns):
    """Overwrites its input."""

    def perturb(self, target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return x.add_(10 * self.epsilon)


class OwnBudget(TooLarge):
    """Overrides the projection that the harness could use."""

    def project(self, perturbed, x, domain):
        return perturbed


class RaisesBudget(TooLarge):
    """Raises its own budget while it runs."""

    def perturb(self, target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        self.__dict__["epsilon"] = 0.5
        return super().perturb(target, x, labels, generator)


CULPRITS = {
    "test-too-large": TooLarge,
    "test-nan": NotANumber,
    "test-shape": WrongShape,
    "test-array": NoTensor,
    "test-imaginary": Imaginary,
    "test-global-random": GlobalRandom,
    "test-numpy-random": NumpyRandom,
    "test-type": OtherType,
    "test-no-gradients": NoGradients,
    "test-shortens": Shortens,
    "test-in-place": InPlace,
    "test-own-budget": OwnBudget,
    "test-raises-budget": RaisesBudget,
}


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """Register the culprits for this module only: other tests run over every registered attack."""
    with pytest.MonkeyPatch.context() as patch:
        for name, culprit in CULPRITS.items():
            patch.setitem(ATTACKS._decorated, name, culprit)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def prepared(store: Store) -> Artefact:
    return do(store, prepare, prepare_job(load("demo"), 0, None).spec)


@pytest.fixture(scope="module")
def trained(store: Store, prepared: Artefact) -> Artefact:
    spec = train_spec("none", iterations=60, batch_size=16, learning_rate=2e-3)
    return do(store, train, spec, prepared=prepared)


def crafted(store: Store, prepared: Artefact, trained: Artefact | None, name: str, **changes) -> Artefact:
    """Craft with one attack; ``changes`` go to the spec, ``params`` to the attack."""
    spec = craft_spec(name, changes.pop("params", {}), changes.pop("domain", "waveform"), **changes)
    inputs = {"prepared": prepared} | ({"source": trained} if trained else {})
    return do(store, craft, spec, **inputs)


def clean_clips(prepared: Artefact):
    loaded = load_prepared(prepared)
    return loaded.clips.select(loaded.folds["fold1"].test)


@pytest.mark.parametrize(
    "name", ["test-too-large", "test-in-place", "test-own-budget", "test-raises-budget", "test-shortens"]
)
def test_a_budget_holds_on_the_stored_sound_whatever_the_attack_returns(name, store, prepared, trained) -> None:
    stored = load_clips(crafted(store, prepared, trained, name).path(AUDIO))
    clean = clean_clips(prepared)
    assert np.array_equal(stored.lengths, clean.lengths)
    change = np.abs(stored.packed().astype(int) - clean.packed().astype(int)).max()
    assert 0 < change <= 0.001 / PCM_STEP


@pytest.mark.parametrize("name", ["test-too-large", "test-own-budget", "test-raises-budget"])
def test_a_budget_holds_on_the_stored_features_too(name, store, prepared, trained) -> None:
    artefact = crafted(store, prepared, trained, name, domain="spectrogram")
    clean = crafted(store, prepared, trained, "none", labels="none", domain="spectrogram")
    change = load_file(artefact.path(FEATURES))["features"] - load_file(clean.path(FEATURES))["features"]
    assert 0 < float(change.abs().max()) <= 0.001 + 1e-5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test-nan", "not finite"),
        ("test-shape", "shape"),
        ("test-array", "returned ndarray"),
        ("test-imaginary", "complex64, expected real numbers"),
        ("test-global-random", "global generator"),
        ("test-numpy-random", "global generator"),
        ("test-type", "changed torch's default dtype"),
        ("test-no-gradients", "it broke"),
    ],
)
def test_a_broken_contract_is_reported_and_leaves_no_artefact(name, message, store, prepared, trained) -> None:
    before = len(list(store.root.glob("*/*")))
    with pytest.raises(ContractError, match=message):
        crafted(store, prepared, trained, name)
    assert len(list(store.root.glob("*/*"))) == before
    assert not list(store.root.glob("unfinished-*"))
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == (torch.float32, True)


def test_a_clean_cell_is_the_clean_sound(store: Store, prepared: Artefact) -> None:
    stored = load_clips(crafted(store, prepared, None, "none", labels="none").path(AUDIO))
    assert np.array_equal(stored.packed(), clean_clips(prepared).packed())


def test_an_unperturbed_spectrogram_sounds_as_before(store: Store, prepared: Artefact, trained: Artefact) -> None:
    artefact = crafted(store, prepared, trained, "none", labels="none", domain="spectrogram")
    difference = load_clips(artefact.path(AUDIO)).packed().astype(int) - clean_clips(prepared).packed().astype(int)
    assert np.abs(difference).max() <= 1


def test_k_steps_cost_k_passes_a_clip(store: Store, prepared: Artefact, trained: Artefact) -> None:
    artefact = crafted(store, prepared, trained, "ifgsm", params={"epsilon": 0.001, "steps": 3})
    costs = load_file(artefact.path(COSTS))
    assert (costs["forwards"] == 3).all()
    assert (costs["backwards"] == 3).all()
    assert (costs["seconds"] > 0).all()


@pytest.mark.parametrize("labels", ["true", "predicted", "soft"])
@pytest.mark.parametrize("domain", ["waveform", "spectrogram"])
def test_the_same_job_gives_the_same_artefact(labels, domain, store, prepared, trained, tmp_path: Path) -> None:
    params = {"epsilon": 0.001 if domain == "waveform" else 0.06, "steps": 2}
    artefacts = [
        crafted(place, prepared, trained, "pgd", params=params, labels=labels, domain=domain)
        for place in (store, Store(tmp_path))
    ]
    name = AUDIO if domain == "waveform" else FEATURES
    assert artefacts[0].path(name).read_bytes() == artefacts[1].path(name).read_bytes()


def test_stored_sound_is_judged_as_the_model_classifies_it(store: Store, prepared: Artefact, trained: Artefact) -> None:
    artefact = crafted(store, prepared, trained, "ifgsm", params={"epsilon": 0.001, "steps": 3})
    spec = PredictSpec(delivery="audio", batch_size=16, fold="fold1")
    judged = do(store, predict, spec, prepared=prepared, crafted=artefact, victim=trained)
    logits = load_file(judged.path(LOGITS))["logits"]
    model = load_model(trained, "cpu")
    clips = load_clips(artefact.path(AUDIO))
    alone = torch.cat([model(*clips.batch([index])) for index in range(len(clips))])
    assert torch.equal(logits.argmax(1), alone.argmax(1))
    torch.testing.assert_close(logits, alone, atol=1e-3, rtol=1e-3)


def test_features_are_judged_as_they_were_crafted(store: Store, prepared: Artefact, trained: Artefact) -> None:
    artefact = crafted(store, prepared, trained, "fgsm", params={"epsilon": 0.06}, domain="spectrogram")
    features = load_file(artefact.path(FEATURES))["features"]
    spec = PredictSpec(delivery="features", batch_size=16, fold="fold1")
    judged = do(store, predict, spec, prepared=prepared, crafted=artefact, victim=trained)
    model = load_model(trained, "cpu")
    clean = clean_clips(prepared)
    waveform, lengths = clean.batch(range(len(clean)))
    logits = model.outputs(features, lengths, "spectrogram").logits
    torch.testing.assert_close(load_file(judged.path(LOGITS))["logits"], logits, atol=1e-3, rtol=1e-3)
    change = (features - model.inputs(waveform, lengths, "spectrogram")).abs().amax()
    assert float(change) == pytest.approx(0.06, abs=1e-4)


def test_training_is_the_same_for_the_same_seed_and_leaves_the_generator_alone(prepared, trained, tmp_path) -> None:
    spec = TrainSpec.model_validate(trained.manifest["job"]["spec"])
    state = torch.get_rng_state()
    again = do(Store(tmp_path), train, spec, prepared=prepared)
    assert torch.equal(state, torch.get_rng_state())
    assert again.path("weights.safetensors").read_bytes() == trained.path("weights.safetensors").read_bytes()
    other = do(Store(tmp_path), train, spec.model_copy(update={"seed": 1}), prepared=prepared)
    assert other.path("weights.safetensors").read_bytes() != trained.path("weights.safetensors").read_bytes()


def test_a_victim_that_draws_at_random_is_attacked_judged_and_certified_the_same_at_every_run(
    prepared, tmp_path
) -> None:
    spec = train_spec("smoothing", {"sigma": 0.01, "draws": 2}, iterations=20, batch_size=8)
    prediction = PredictSpec(delivery="audio", batch_size=16, fold="fold1")
    certify = PluginSpec(name="certified-radius", params={"draws": 5, "selection": 2})
    certification = ExamineSpec(metric=certify, batch_size=16, fold="fold1")
    written = []
    for number in range(2):
        torch.manual_seed(number)
        store = Store(tmp_path / str(number))
        victim = do(store, train, spec, prepared=prepared)
        artefact = crafted(store, prepared, victim, "ifgsm", params={"epsilon": 0.001, "steps": 2}, labels="predicted")
        judged = do(store, predict, prediction, prepared=prepared, crafted=artefact, victim=victim)
        examined = do(store, examine, certification, prepared=prepared, crafted=artefact, victim=victim)
        places = (artefact.path(AUDIO), judged.path(LOGITS), examined.path("values.json"))
        written.append([place.read_bytes() for place in places])
    assert written[0] == written[1]


MOST_SAMPLES = 2 * SAMPLE_RATE


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit batches to two seconds of sound, so that some clips of the embedded corpus are too long."""
    for module in ("advser.audio.clips", "advser.stages.train", "advser.stages.probes.probe"):
        monkeypatch.setattr(f"{module}.MOST_SOUND", MOST_SAMPLES)


def test_a_batch_that_is_too_long_reads_as_any_other(prepared: Artefact, request: pytest.FixtureRequest) -> None:
    clips = load_prepared(prepared).clips
    waveform, lengths = clips.batch(range(8))
    request.getfixturevalue("little_room")
    assert waveform.numel() > MOST_SAMPLES
    again, _ = clips.batch(range(8))
    assert torch.equal(again, waveform)
    assert not again[torch.arange(again.shape[1]) >= lengths[:, None]].any()


def test_clips_too_long_for_a_batch_are_analysed_apart_with_the_same_result(
    prepared: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    spec = train_spec("none", iterations=3, batch_size=8)
    whole = do(Store(tmp_path / "whole"), train, spec, prepared=prepared)
    request.getfixturevalue("little_room")
    analyse, sizes = LogMel.analyse, []

    def watched(self: LogMel, waveform: Tensor, lengths: Tensor) -> Any:
        sizes.append(tuple(waveform.shape))
        return analyse(self, waveform, lengths)

    monkeypatch.setattr(LogMel, "analyse", watched)
    apart = do(Store(tmp_path / "apart"), train, spec, prepared=prepared)
    assert len(sizes) > 3
    assert all(clips == 1 or clips * samples <= MOST_SAMPLES for clips, samples in sizes)
    weights = [load_file(artefact.path("weights.safetensors")) for artefact in (whole, apart)]
    torch.testing.assert_close(*weights)


def test_a_model_is_probed_with_clips_that_are_not_too_long(
    prepared: Artefact, trained: Artefact, tmp_path: Path, little_room: None
) -> None:
    probed = do(Store(tmp_path), probe, ProbeSpec(fold="fold1", fit_on="train"), prepared=prepared, victim=trained)
    assert probed.json(FINDINGS)


def constant(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    bias = torch.arange(len(weights["head.bias"])).float()
    return {**weights, "head.weight": torch.zeros_like(weights["head.weight"]), "head.bias": bias}


def wrong(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**weights, **{name: weights[name].roll(1, 0).contiguous() for name in ("head.weight", "head.bias")}}


@pytest.mark.parametrize(("changed", "probed"), [(constant, False), (wrong, False), (dict, True)])
def test_the_gradient_of_a_model_is_probed_only_if_it_beats_the_majority_class(
    changed: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    probed: bool,
    prepared: Artefact,
    trained: Artefact,
    tmp_path: Path,
) -> None:
    victim = Artefact(tmp_path / "victim")
    shutil.copytree(trained.folder, victim.folder)
    save_file(changed(load_file(victim.path("weights.safetensors"))), victim.path("weights.safetensors"))
    spec = ProbeSpec(fold="fold1", fit_on="train")
    findings = do(Store(tmp_path / "store"), probe, spec, prepared=prepared, victim=victim).json(FINDINGS)
    assert ("standing_huge" in findings) is probed
    assert findings["test_clips"] > 0


class Remembers(Undefended):
    """Requests each batch three times and stores its labels."""

    def showings(self) -> int:
        return 3

    def loss(self, model, batch, step):
        batch.kept[f"{step}"] = batch.labels
        Remembers.kept = batch.kept
        return super().loss(model, batch, step)


def test_a_defense_is_shown_each_batch_as_often_as_it_requests_and_keeps_its_own_data(prepared, tmp_path) -> None:
    spec = train_spec("test-remembers", iterations=7, batch_size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DEFENSES._decorated, "test-remembers", Remembers)
        do(Store(tmp_path), train, spec, prepared=prepared)
    labels = list(Remembers.kept.values())
    assert len(labels) == 7
    same = [torch.equal(before, after) for before, after in itertools.pairwise(labels)]
    assert same == [True, True, False, True, True, False]


@pytest.mark.parametrize(
    "training",
    [
        {"select": "best", "evaluate_every": 2},
        {"schedule": "plateau", "evaluate_every": 2, "patience": 1},
        {"schedule": "cosine", "fit_on": "train+validation"},
        {"optimizer": "rmsprop"},
        {"precision": "bf16"},
    ],
    ids=lambda value: "-".join(map(str, value.values())),
)
def test_every_way_of_training_ends_with_finite_weights(training, prepared, tmp_path) -> None:
    spec = train_spec(
        "vanilla",
        {"attack": {"name": "fgsm", "params": {"epsilon": 0.06}}},
        iterations=4,
        batch_size=8,
        **training,
    )
    artefact = do(Store(tmp_path), train, spec, prepared=prepared)
    assert all(value.isfinite().all() for value in load_file(artefact.path("weights.safetensors")).values())
    held_out = training.get("fit_on") != "train+validation"
    assert all(("validation_uar" in entry) == held_out for entry in artefact.json("history.json"))


def test_normalisation_statistics_come_from_the_training_clips_only(prepared: Artefact, trained: Artefact) -> None:
    loaded = load_prepared(prepared)
    model = load_model(trained, "cpu")
    fold = loaded.folds["fold1"]
    with torch.no_grad():
        features = model.frontend(*loaded.clips.batch(list(fold.train)))
    assert float(features.mean()) == pytest.approx(0, abs=0.1)
    with torch.no_grad():
        everything = model.frontend(*loaded.clips.batch(range(len(loaded.clips))))
    assert float(everything.mean()) != pytest.approx(float(features.mean()), abs=1e-4)
