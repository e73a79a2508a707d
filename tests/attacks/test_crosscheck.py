"""AdvSER's attacks are at least as strong as those of Foolbox and ART on the same model, with equal budget and steps.

The ordinary tests use a toy model; the mark ``crosscheck`` adds a CNN-4 trained on EmoDB, and logs the table.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from pathlib import Path

import foolbox
import numpy as np
import pytest
import torch
import toys
from jobs import do
from torch import Tensor, nn

from advser.attacks.auto_pgd import APGD
from advser.attacks.base import Attack
from advser.attacks.gradient_sign import FGSM, PGD, IterativeFGSM
from advser.attacks.square import Square
from advser.models.base import EmotionModel
from advser.plan.jobs import prepare_job
from advser.stages.prepare import load_prepared, prepare
from advser.stages.specs import PluginSpec, TrainSpec
from advser.stages.train import load_model, train
from advser.store.artefacts import Store
from advser.suite.schema import Suite
from advser.suite.training import Training
from advser.threat.model import Norm
from advser.threat.target import Target


@dataclass(frozen=True)
class Contest:
    """Features (B, bands, frames) of clips, and a model that does not depend on the clips' lengths.

    ``epsilon`` is, by norm, a budget that misleads the model on some clips but not on all.
    """

    model: EmotionModel
    x: Tensor
    labels: Tensor
    epsilon: dict[Norm, float]

    @property
    def bounds(self) -> tuple[float, float]:
        """The other libraries' range of values, wide enough that their clipping changes nothing."""
        return float(self.x.min()) - 1, float(self.x.max()) + 1

    def scaled(self, size: float) -> float:
        """Return a distance for values scaled so that `bounds` are 0 and 1."""
        low, high = self.bounds
        return size / (high - low)

    def lengths(self, clips: int) -> Tensor:
        return torch.full((clips,), toys.SAMPLES)

    def logits(self, x: Tensor) -> Tensor:
        return self.model.outputs(x, self.lengths(len(x)), "spectrogram").logits

    @property
    def scaled_model(self) -> nn.Module:
        """The logits of images (B, 1, bands, frames) between 0 and 1."""

        class Scaled(nn.Module):
            def forward(_, images: Tensor) -> Tensor:  # noqa: N805
                return self.logits(self.features(images.to(self.x)))

        return Scaled().eval()

    @property
    def images(self) -> Tensor:
        low, high = self.bounds
        return (self.x - low).div(high - low)[:, None]

    def features(self, images: Tensor) -> Tensor:
        low, high = self.bounds
        return low + images.squeeze(1) * (high - low)

    @torch.no_grad()
    def correct(self, x: Tensor) -> int:
        return int((self.logits(x).argmax(1) == self.labels).sum())

    def ours(self, attack: Attack) -> Tensor:
        with Target(self.model, self.lengths(len(self.x)), "spectrogram", attack.access) as target:
            return attack.perturb(target, self.x, self.labels, torch.Generator().manual_seed(0))

    def of_foolbox(self, attack: foolbox.attacks.base.Attack, epsilon: float) -> Tensor:
        torch.manual_seed(0)
        model = foolbox.PyTorchModel(self.scaled_model, bounds=(0, 1), device="cpu")
        criterion = foolbox.criteria.Misclassification(self.labels)
        return self.features(attack(model, self.images, criterion, epsilons=self.scaled(epsilon))[0])

    def of_art(self, name: str, epsilon: float, **arguments: object) -> Tensor:
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        images = self.images
        number = self.logits(self.x[:1]).shape[1]
        classifier = PyTorchClassifier(
            self.scaled_model, nn.CrossEntropyLoss(), tuple(images.shape[1:]), number, clip_values=(0, 1)
        )
        np.random.seed(0)
        random.seed(0)
        attack = getattr(evasion, name)(classifier, eps=self.scaled(epsilon), verbose=False, **arguments)
        generated = attack.generate(images.numpy().astype(np.float32), y=np.eye(number)[self.labels])
        return self.features(torch.from_numpy(generated).to(self.x))


def trained_on_emodb(directory: Path, into: Path) -> tuple[EmotionModel, Tensor, Tensor]:
    """Return a CNN-4 trained on eight speakers, and features and labels of a third of the other two speakers' clips."""
    suite = Suite.model_validate(
        {
            "name": "crosscheck",
            "title": "crosscheck",
            "corpus": "emodb",
            "protocol": "5pair",
            "models": ["cnn4"],
            "defenses": ["none"],
            "metrics": ["uar"],
        }
    )
    store = Store(into)

    prepared = do(store, prepare, prepare_job(suite, 0, directory).spec, {"directory": directory})
    spec = TrainSpec(
        model=PluginSpec(name="cnn4", params={"width": 0.25, "frames": 160}),
        defense=PluginSpec(name="none", params={}),
        training=Training(iterations=300, learning_rate=1e-3, schedule="cosine", precision="fp32"),
        fold="fold1",
        seed=0,
    )
    trained = do(store, train, spec, prepared=prepared)
    corpus, model = load_prepared(prepared), load_model(trained, "cpu")
    test = list(corpus.folds["fold1"].test)[::3]
    with torch.no_grad():
        x = model.inputs(*corpus.clips.select(test).batch(range(len(test))), "spectrogram")
    return model, x, torch.from_numpy(corpus.targets[test])


@pytest.fixture(scope="module", params=["toy", pytest.param("emodb", marks=[pytest.mark.crosscheck, pytest.mark.data])])
def contest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Contest:
    if request.param == "emodb":
        directory = request.getfixturevalue("emodb_directory")
        model, x, labels = trained_on_emodb(directory, tmp_path_factory.mktemp("store"))
        return Contest(model, x, labels, {"linf": 0.01, "l2": 0.5})
    model = toys.model(toys.Convolutional, classes=4).double().eval()
    waveform, lengths, _ = toys.sounds(64, seed=5)
    x = model.inputs(waveform.double(), lengths, "spectrogram").detach()
    return Contest(model, x, model.outputs(x, lengths, "spectrogram").logits.argmax(1), {"linf": 0.03, "l2": 0.5})


def compare(contest: Contest, what: str, ours: Tensor, theirs: Tensor) -> None:
    """Assert that ours leaves at most one more clip correct than theirs, and that theirs misleads some but not all."""
    correct = {"ours": contest.correct(ours), "theirs": contest.correct(theirs), "clean": contest.correct(contest.x)}
    logging.getLogger(__name__).info("%s: of %d clips correct %s", what, len(contest.x), correct)
    assert correct["ours"] <= correct["theirs"] + 1
    assert 0 < correct["theirs"] < correct["clean"]


def is_toy(contest: Contest) -> bool:
    return contest.x.dtype == torch.float64


@pytest.mark.parametrize("steps", [1, 10])
def test_gradient_sign_steps_equal_foolboxs(contest: Contest, steps: int) -> None:
    epsilon = contest.epsilon["linf"]
    alpha = epsilon / 4
    if steps == 1:
        ours, theirs = FGSM(epsilon=epsilon), foolbox.attacks.LinfFastGradientAttack()
    else:
        ours = IterativeFGSM(epsilon=epsilon, alpha=alpha, steps=steps)
        theirs = foolbox.attacks.LinfBasicIterativeAttack(
            abs_stepsize=contest.scaled(alpha), steps=steps, random_start=False
        )
    perturbed, expected = contest.ours(ours), contest.of_foolbox(theirs, epsilon)
    compare(contest, f"{steps} gradient sign steps, Foolbox", perturbed, expected)
    if is_toy(contest):
        torch.testing.assert_close(perturbed, expected, rtol=0, atol=1e-9)


def test_gradient_steps_in_l2_equal_foolboxs(contest: Contest) -> None:
    epsilon, steps = contest.epsilon["l2"], 10
    ours = contest.ours(IterativeFGSM(epsilon=epsilon, norm="l2", alpha=epsilon / 4, steps=steps))
    theirs = contest.of_foolbox(
        foolbox.attacks.L2BasicIterativeAttack(
            abs_stepsize=contest.scaled(epsilon / 4), steps=steps, random_start=False
        ),
        epsilon,
    )
    compare(contest, "10 gradient steps in L2, Foolbox", ours, theirs)
    if is_toy(contest):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_is_at_least_as_strong_as_foolboxs(contest: Contest, norm: Norm) -> None:
    epsilon, steps = contest.epsilon[norm], 20
    kind = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    ours = contest.ours(PGD(epsilon=epsilon, norm=norm, alpha=epsilon / 10, steps=steps))
    theirs = contest.of_foolbox(kind(abs_stepsize=contest.scaled(epsilon / 10), steps=steps), epsilon)
    compare(contest, f"PGD {norm}, Foolbox", ours, theirs)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_auto_pgd_is_at_least_as_strong_as_the_toolboxs(contest: Contest, norm: Norm) -> None:
    epsilon, steps, restarts = contest.epsilon[norm], 20, 2
    ours = contest.ours(APGD(epsilon=epsilon, norm=norm, steps=steps, restarts=restarts))
    theirs = contest.of_art(
        "AutoProjectedGradientDescent",
        epsilon,
        norm=np.inf if norm == "linf" else 2,
        eps_step=2 * contest.scaled(epsilon),
        max_iter=steps,
        nb_random_init=restarts,
    )
    compare(contest, f"APGD {norm}, ART", ours, theirs)


def test_square_is_at_least_as_strong_as_the_toolboxs(contest: Contest) -> None:
    # Squares at most as high as the spectrogram, because the toolbox fails on larger squares.
    epsilon, iterations, share = 5 * contest.epsilon["linf"], 100, 0.3
    ours = contest.ours(Square(epsilon=epsilon, queries=iterations + 2, share=share))
    theirs = contest.of_art("SquareAttack", epsilon, max_iter=iterations, p_init=share)
    compare(contest, "Square, ART", ours, theirs)
