"""AdvSER in Python: runs, boards as tables, comparisons, attacks that are functions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import pytest
import torch
import toys
from places import PUBLISHED
from torch import Tensor

import advser
from advser.attacks.function import Declaration, attack_from
from advser.errors import InputError
from advser.plugins.parameters import build
from advser.plugins.registries import ATTACKS
from advser.plugins.registry import load_plugin_file
from advser.threat.target import Target


def test_a_board_is_a_table_with_numbers() -> None:
    loaded = advser.load(PUBLISHED / "emodb")
    board = loaded.board("attacks", where={"domain": "waveform"}, metrics=["uar", "snr"])
    assert board["uar"].dtype == float
    assert {"attack", "uar", "snr"} <= set(board)
    assert board.attrs["title"] == "Every model and defense under every attack"
    assert len(board) < len(loaded.board("attacks"))
    table = loaded.table
    assert board["uar"].max() == table.loc[table["metric"] == "uar", "value"][table["domain"] == "waveform"].max()
    assert loaded._repr_html_().startswith('<section id="attacks"')
    with pytest.raises(
        InputError, match=r"--by attack: got no such board, expected leaderboard.*did you mean 'attacks'"
    ):
        loaded.board("attack")
    with pytest.raises(InputError, match=r"--metrics usr: got no such metric, expected .*did you mean 'uar'"):
        loaded.board("attacks", metrics=["usr"])
    with pytest.raises(InputError, match=r"metrics: got the text 'uar', expected a list"):
        loaded.board("attacks", metrics="uar")
    with pytest.raises(InputError, match=r"--by attacks: got transferred examples only, expected --by transfer"):
        loaded.board("attacks", where={"access": "transfer"})
    with pytest.raises(InputError, match=r"metric 'uarr': got no such metric, expected .*did you mean 'uar'"):
        loaded.figure("uarr", defense="none")
    with pytest.raises(InputError, match=r"where: got the text 'defense=none', expected a mapping"):
        loaded.plot("uar-against-epsilon", where="defense=none")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "/x"}, "data: got the text '/x', expected a mapping"),
        ({"only": "attack=fgsm"}, "only: got the text 'attack=fgsm', expected a mapping"),
        ({"changes": "seed=1"}, "changes: got the text 'seed=1', expected a mapping"),
        ({"external": Path("sound")}, "external: got the text 'sound', expected a list"),
        ({"plugins": "mine.py"}, r"plugins: got the text 'mine\.py', expected a list"),
    ],
)
def test_a_text_in_place_of_a_collection_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        advser.run("demo", **arguments)


def test_dir_lists_the_public_names() -> None:
    assert dir(advser) == sorted(advser.__all__)
    assert all(getattr(advser, name) for name in dir(advser))


def test_a_run_is_summarised_in_a_few_lines() -> None:
    loaded = advser.load(PUBLISHED / "demo")
    first, *lines = repr(loaded).splitlines()
    assert first == f"Run of suite 'demo' in {PUBLISHED / 'demo'}"
    assert [line.split(":")[0].strip() for line in lines] == ["models", "defenses", "attacks", "failures", "flags"]
    assert "  models: tiny" in lines
    assert "  defenses: none, vanilla, similarity" in lines
    assert "  attacks: noise, fgsm, ifgsm" in lines
    assert "  failures: 0" in lines
    flags = {flag["check"] for flag in loaded.results.run["audit"]["flags"]}
    assert all(check in lines[-1] for check in flags)


def test_a_run_compares_itself_with_another() -> None:
    loaded = advser.load(PUBLISHED / "emodb")
    worse = loaded.table.assign(value=loaded.table["value"].where(loaded.table["metric"] != "uar", 0.0))
    worse = worse.assign(ci_low=worse["value"], ci_high=worse["value"])
    comparison = advser.compare(loaded, advser.Run(loaded.directory, _with(loaded, worse)), {"uar": -0.02})
    assert {move.metric for move in comparison.failures} == {"uar"}
    assert not loaded.compare(loaded, {"uar": -0.02}).failures


def _with(loaded: advser.Run, table: pd.DataFrame) -> Any:
    from dataclasses import replace

    return replace(loaded.results, table=table)


FILE = '''
"""An attack that is a function."""

import advser
from advser.plugins import budget


@advser.attack("nudge")
def nudge(target, x, labels, generator, *, epsilon: float = budget(), share: float = 1.0):
    """Move a share of ε along the sign of the gradient.

    Lists show the first line.
    """
    return x + share * epsilon * target.gradient(x, labels).sign()
'''


@pytest.fixture
def nudge(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "nudge.py").write_text(FILE)
    load_plugin_file(tmp_path / "nudge.py")
    yield ATTACKS.get("nudge")
    ATTACKS.withdraw("nudge")


def test_a_function_is_an_attack_like_any_other(nudge: Any) -> None:
    assert (nudge.access, nudge.domains) == ("white-box", ("waveform", "spectrogram"))
    assert ATTACKS.origin("nudge").summary == "Move a share of ε along the sign of the gradient."
    assert ATTACKS.origin("nudge").line == 9
    attack = build(nudge, {"epsilon": 0.01, "share": 0.5}, "nudge")
    model = toys.model(toys.Convolutional).eval()
    waveform, lengths, labels = toys.sounds(4)
    with Target(model, lengths, "waveform") as target:
        perturbed = attack.perturb(target, waveform, labels, torch.Generator())
        assert float((perturbed - waveform).abs().max()) == pytest.approx(0.005)
        assert (target.loss(perturbed, labels) > target.loss(waveform, labels)).all()
    with pytest.raises(InputError, match="epsilon"):
        build(nudge, {}, "nudge")
    with pytest.raises(InputError, match="share"):
        build(nudge, {"epsilon": 0.1, "share": "much"}, "nudge")


def backwards(x: Tensor, target: Any, labels: Tensor, generator: Any) -> Tensor:
    return x


def bare(target: Any, x: Tensor, labels: Tensor, generator: Any, epsilon=0.1) -> Tensor:  # type: ignore[no-untyped-def]
    return x


def many(target: Any, x: Tensor, labels: Tensor, generator: Any, **more: float) -> Tensor:
    return x


def shadowing(target: Any, x: Tensor, labels: Tensor, generator: Any, *, access: float = 1.0) -> Tensor:
    return x


def undefined(target: Any, x: Tensor, labels: Tensor, generator: Any, *, epsilon: Nowhere) -> Tensor:  # type: ignore[name-defined]  # noqa: F821
    return x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (backwards, r"'backwards': got the arguments \(x, target, labels, generator\), expected \(target, x, labels"),
        (bare, "'bare': got the argument 'epsilon=0.1', expected a name with an annotation"),
        (many, r"'many': got the argument '\*\*more"),
        (shadowing, "'shadowing': got the argument 'access', expected a name that no attack has already"),
        (undefined, "'undefined': got an annotation that is not defined: name 'Nowhere'"),
    ],
)
def test_a_function_with_another_signature_is_refused(function: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        attack_from(function, Declaration())


def test_a_function_may_be_a_single_step() -> None:
    attacks = [attack_from(unchanged, Declaration("blind", single_step=single)) for single in (False, True)]
    assert [attack.single_step for attack in attacks] == [False, True]


def test_a_wrong_name_access_or_domain_is_refused() -> None:
    with pytest.raises(InputError, match=r"attack '\.\./mine': name: got '\.\./mine', expected lower-case letters"):
        advser.attack("../mine")(many)
    with pytest.raises(InputError, match="access: got 'all', expected white-box"):
        attack_from(unchanged, Declaration("all"))
    with pytest.raises(InputError, match="domains: got 'sound', expected waveform, spectrogram"):
        attack_from(unchanged, Declaration("blind", ("sound",)))


def unchanged(target: Any, x: Tensor, labels: Tensor, generator: Any) -> Tensor:
    return x


def test_a_run_returns_a_single_figure() -> None:
    loaded = advser.load(PUBLISHED / "demo")
    place = {"defense": "none", "attack": "fgsm", "epsilon": 0.06, "labels": "true"}
    assert 0 <= loaded.figure("uar", **place) < loaded.figure("uar", defense="none", attack="none")
    with pytest.raises(ValueError, match=r"uar of .*: got \d+ rows, expected one figure"):
        loaded.figure("uar", attack="fgsm")


SCRIPT = '''
import advser
from advser.plugins import budget
from torch import sign as signs

SCALE = 0.5


def scaled(gradient):
    return SCALE * signs(gradient)


@advser.attack
def half_step(target, x, labels, generator, *, epsilon: float = budget()):
    """Nothing yet."""
    return x


@advser.attack
def half_step(target, x, labels, generator, *, epsilon: float = budget()):
    """Half of ε along the gradient's sign."""
    return x + epsilon * scaled(target.gradient(x, labels))


result = advser.run(
    "demo", out="out", store="store",
    changes={"training.iterations": 20, "metrics": ["uar", "snr"], "samples": 0, "audit": False,
             "classes": ["anger", "sadness"], "protocol": "loso", "folds": ["f1"]},
    only={"defense": "none", "domain": "waveform", "access": "white-box"},
)
assert not result.failures
board = result.board("attacks")
print(board[board["attack"] == "half-step"][["uar", "snr"]].to_json(orient="records"))
print(result.results.run["plugins"])
'''


def run_script(folder: Path, file: str = "script.py", standard_input: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script with a cache of its own, but for Matplotlib's list of fonts, which takes seconds to make."""
    caches = {"XDG_CACHE_HOME": str(folder / "cache"), "MPLCONFIGDIR": matplotlib.get_cachedir()}
    return subprocess.run(
        [sys.executable, file], input=standard_input, cwd=folder, capture_output=True, text=True, check=False,
        env={**caches, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


def test_an_attack_of_a_script_joins_its_run_with_its_dependencies(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = run_script(tmp_path)
    assert done.returncode == 0, done.stderr
    row, plugins = done.stdout.splitlines()[-2:]
    (figures,) = json.loads(row)
    # Half of ε = 0.001 at every sample of speech: an SNR between those of ε and ε / 10.
    assert 20 < figures["snr"] < 60
    assert "half-step-" in plugins


def test_a_script_from_standard_input_runs_and_is_not_run_again_by_the_workers(tmp_path: Path) -> None:
    script = """
import sys, advser
print("begun")
result = advser.run(
    "demo", out="out", store="store",
    changes={"training.iterations": 2, "metrics": ["uar"], "samples": 0, "audit": False,
             "classes": ["anger", "sadness"], "protocol": "loso", "folds": ["f1"]},
    only={"defense": "none", "attack": "fgsm", "labels": "true", "domain": "spectrogram"}, workers=1,
)
print(len(result.failures), sys.modules["__main__"].__spec__)
"""
    done = run_script(tmp_path, "-", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["begun", "0 None"]


def test_a_process_of_a_script_loads_the_attack_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("""
import multiprocessing
import advser
from advser.attacks.notebook import notebook_files
from advser.plugins.registries import ATTACKS
from advser.plugins.registry import load_plugin_file


@advser.attack
def unmoved(target, x, labels, generator):
    \"""Nothing.\"""
    return x


def loaded(files):
    for file in files:
        load_plugin_file(file)
    return ATTACKS.get("unmoved").__module__


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(loaded, (notebook_files(),)) == ATTACKS.get("unmoved").__module__)
""")
    done = run_script(tmp_path)
    assert done.stdout.splitlines() == ["True"], done.stderr


def test_an_attack_that_uses_an_object_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    script = SCRIPT.replace("SCALE = 0.5", "SCALE = object()")
    (tmp_path / "script.py").write_text(script)
    done = run_script(tmp_path)
    assert done.returncode == 1
    assert "'half_step' uses 'SCALE': got object, expected modules, functions, classes" in done.stderr
