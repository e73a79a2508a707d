"""The README: its plugins run, its board command works, its links lead to files."""

from __future__ import annotations

import re
import shlex

import pytest
import torch
from commandline import advser_here
from places import ROOT
from shown import blocks, commands
from toys import Convolutional, model, sounds, training_batch

from advser.models.terms import Domain
from advser.plugins.parameters import build
from advser.plugins.registries import ATTACKS, DEFENSES
from advser.plugins.registry import load_plugin_file
from advser.threat.target import Target

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Load the README's plugins from files with the names that their blocks give; return these names."""
    folder = tmp_path_factory.mktemp("readme")
    names = set()
    for block in blocks(README, "python"):
        # A block without a file name is no plugin; test_pages.py runs it.
        if not (name := re.match(r"# (\w+\.py)", block)):
            continue
        (folder / name[1]).write_text(block, encoding="utf-8")
        load_plugin_file(folder / name[1])
        names.add(name[1])
    return names


@pytest.mark.parametrize("domain", ["waveform", "spectrogram"])
def test_the_readmes_attack_raises_the_loss_in_both_domains(plugins: set[str], domain: Domain) -> None:
    assert "my_attack.py" in plugins
    attack = build(ATTACKS.get("momentum"), {"epsilon": 0.01}, "README")
    victim = model(Convolutional)
    waveform, lengths, labels = sounds()
    victim.eval()
    x = victim.inputs(waveform, lengths, domain).detach()
    with Target(victim, lengths, domain) as target:
        perturbed = attack.perturb(target, x, labels, torch.Generator())
        assert float((perturbed - x).abs().max()) <= 0.01 + 1e-6
        assert (target.loss(perturbed, labels) > target.loss(x, labels)).all()


def test_the_readmes_defense_trains(plugins: set[str]) -> None:
    assert "my_defense.py" in plugins
    defense = build(DEFENSES.get("label-smoothing"), {}, "README")
    trained = model(Convolutional)
    optimizer = torch.optim.SGD(trained.parameters(), 0.05)
    losses = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for step in range(20):
            loss = defense.loss(trained, training_batch(trained), step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_every_local_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_readmes_board_works_on_published_results() -> None:
    (line,) = [line for line in commands(README) if "--pivot" in line]
    words = shlex.split(line.replace("results/demo", str(ROOT / "leaderboards" / "published" / "emodb")))
    completed = advser_here(*words[1:])
    assert completed.returncode == 0, completed.stderr
    assert "White-box attacks on the sound" in completed.stdout
