"""Ten steps of iterative FGSM: AdvSER, a bare loop of gradients, a loop with steps, and three libraries."""

from __future__ import annotations

from functools import partial

import pytest
from attackers import FROZEN, PEERS, ours, precision, theirs
from contest import as_script, as_workers, contest
from measuring import Figure, Table

from advser.models.terms import Domain, WantedPrecision


@pytest.mark.parametrize("batch", [1, 8, 32])
@pytest.mark.parametrize("domain", ["waveform", "spectrogram"])
@pytest.mark.parametrize(("name", "goal"), [("cnn4", 1.05), ("linear", 1.3)])
def test_attack_loop(name: str, goal: float, domain: Domain, batch: int, table: Table) -> None:
    """Measure in the precision that the harness chooses on this machine."""
    rounds = 3 if (name, batch) == ("cnn4", 32) else 5 if name == "cnn4" else 9
    compare(name, goal, domain, batch, "auto", rounds, table)


@pytest.mark.parametrize("domain", ["waveform", "spectrogram"])
@pytest.mark.parametrize("name", ["cnn4"])
def test_attack_loop_in_float32(name: str, domain: Domain, table: Table) -> None:
    """Measure in the libraries' precision, if the harness chooses another."""
    if precision(name) != "fp32":
        compare(name, 1.05, domain, 8, "fp32", 5, table)


def compare(
    name: str, goal: float, domain: Domain, batch: int, wanted: WantedPrecision, rounds: int, table: Table
) -> None:
    """Add a line for each loop and library: milliseconds per batch, with all cores in use.

    For cnn4 in float32 and batches of 8, the libraries also run on a model whose weights take no gradient.
    """
    teams = [as_workers(ours, name, domain, batch, wanted), as_script(theirs, name, domain, batch)]
    goals = {"bare loop": goal, "its steps written out": 1.05, **dict.fromkeys(PEERS, 0.5)}
    if (name, batch, precision(name, wanted)) == ("cnn4", 8, "fp32"):
        teams.append(as_script(partial(theirs, frozen=True), name, domain, batch))
        goals |= {f"{peer}{FROZEN}": 0.5 for peer in PEERS}
    taken = contest(teams, rounds)
    what = f"{name}, {domain}, batch {batch}, {precision(name, wanted)}"
    for against, ratio in goals.items():
        table.add(Figure("attack loop", what, taken["ours"] * 1e3, taken[against] * 1e3, against, "ms", ratio))
