"""The command line: output, refusals, exit codes."""

from __future__ import annotations

import csv
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commandline import ADVSER, advser, advser_here

from advser.plugins.registries import REGISTRIES

PARTS = """
name: parts
corpus: demo
protocol: 3pair
folds: [fold1]
seeds: [0, 1]
models: [tiny]
defenses: [none]
transcriber: none
noise: false
audit: false
metrics: [uar]
parts:
  one:
    attacks: [{name: ifgsm, params: {epsilon: 0.001, steps: [10]}}]
  two:
    attacks: [{name: ifgsm, label: margin, objective: margin, params: {epsilon: 0.001}}]
  three: {}
"""

SUITE = """
name: small
corpus: {corpus}
protocol: 3pair
training: {{iterations: 2, batch_size: 4}}
models: [tiny]
defenses: [none]
attacks: [{{name: fgsm, params: {{epsilon: 0.001}}}}]
metrics: [uar]
transcriber: none
noise: false
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SUITE.format(corpus="demo"))
    return path


def assert_refused(done, *words: str) -> None:
    """Assert exit code 2, and a single line on standard error that has the words."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def test_the_version_is_printed() -> None:
    done = advser("--version")
    assert (done.returncode, done.stdout) == (0, f"advser {version('advser')}\n")


def test_the_module_runs_as_the_command() -> None:
    module = [sys.executable, "-m", "advser"]
    done = subprocess.run([*module, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"advser {version('advser')}\n")
    refused = subprocess.run([*module, "show", "attack", "fgms"], capture_output=True, text=True, check=False)
    assert_refused(refused, "did you mean 'fgsm'")


def test_help_and_lists_import_no_torch() -> None:
    script = (
        "import sys; from advser.commands.cli import app; "
        "from typer.testing import CliRunner; "
        "runs = [CliRunner().invoke(app, a) for a in (['--help'], ['list', 'attacks'], ['list', 'models'])]; "
        "assert all(run.exit_code == 0 and run.output for run in runs); "
        "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_help_imports_no_library_but_typer() -> None:
    # Modules that the interpreter imports at start do not count; an editable installation needs some of them.
    script = (
        "import sys; before = {*sys.modules}; from advser.commands.cli import app; "
        "app(['--help'], standalone_mode=False); "
        "imported = {name.partition('.')[0] for name in {*sys.modules} - before}; "
        "sys.stderr.write(str(sorted(imported & {'rich', 'pydantic', 'numpy', 'yaml', 'platformdirs', 'torch'})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[]"


def test_the_fingerprint_of_the_boards_imports_no_matplotlib() -> None:
    script = (
        "import sys; from advser.leaderboards.write import fingerprint; assert len(fingerprint()) == 64; "
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("kind", [*REGISTRIES, "suites"])
def test_list_names_every_plugin_with_a_summary(kind: str) -> None:
    done = advser_here("list", kind)
    assert done.returncode == 0
    names = {line.split()[0] for line in done.stdout.splitlines()}
    if kind in REGISTRIES:
        assert names == set(REGISTRIES[kind])
    assert all(len(line.split()) > 2 for line in done.stdout.splitlines())


def test_show_gives_origin_parameters_units_and_source() -> None:
    done = advser_here("show", "attack", "ifgsm")
    assert done.returncode == 0
    for text in ("gradient_sign.py:", "epsilon", "full-scale or z", "Kurakin", "steps"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("kind", "name", "facts"),
    [
        ("metric", "pesq", ["Unit: MOS-LQO", "Better for the defender: higher", "Packages: pesq"]),
        ("metric", "gradient-mass", ["Better for the defender: neither"]),
        ("corpus", "emodb", ["Licence: ", "Available from: http", "Layout: names such as 03a01Fa.wav"]),
        ("model", "egemaps-svm", ["Packages: opensmile (extra 'opensmile')"]),
        ("attack", "square", ["Access: scores", "Domains: waveform, spectrogram"]),
    ],
)
def test_show_prints_the_facts_of_a_plugin(kind: str, name: str, facts: list[str]) -> None:
    done = advser_here("show", kind, name)
    assert [text for text in facts if text not in done.stdout] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "no-such-suite"], ["no-such-suite", "demo"]),
        (["run", "emodb"], ["emodb", "--data emodb=DIR"]),
        (["run", "emodb", "--data", "emodb=missing"], ["missing", "got no such directory"]),
        (["run", "emodb", "--data", "emodb"], ["--data emodb", "CORPUS=DIR"]),
        (["list", "attack"], ["list attack", "did you mean 'attacks'?"]),
        (["run", "demo", "--plugin", "missing.py"], ["missing.py", "got no such file"]),
        (["run", "demo", "--set", "models=[tinny]"], ["unknown model 'tinny'", "did you mean 'tiny'"]),
        (["run", "demo", "--set", "attacks.fgsm.params.epsilon=0.06 dB"], ["epsilon", "0.06 dB"]),
        (["run", "demo", "--set", "attacks.fgsm.params.strength=1"], ["unknown key 'strength'", "epsilon"]),
        (["run", "demo", "--set", "defenses.vanilla.params.alpha=2"], ["alpha", "2"]),
        (["run", "demo", "--set", "models.tiny.params={depth: 9}"], ["unknown key 'depth'"]),
        (["run", "demo", "--set", "protocol=7pair"], ["7pair"]),
        (["run", "demo", "--set", "classes=[anger, joy]"], ["joy"]),
        (["run", "demo", "--set", "folds=[fold9]"], ["fold9", "fold1"]),
        (["run", "demo", "--only", "colour=red"], ["colour", "attack"]),
        (["run", "demo", "--only", "modle=tiny"], ["did you mean 'model'"]),
        (["run", "demoo"], ["neither a file", "did you mean 'demo'"]),
        (["run", "demo", "--only", "model=cnn9"], ["no cell"]),
        (["list", "colours"], ["colours", "attacks"]),
        (["check", "attack", "pgd", "--param", "epsilon=big"], ["epsilon: got a budget", "chooses it"]),
        (["run", "demo", "--set", "folds=[03]"], ["--set folds=[03]: folds.0: got 3, expected text, in quotes"]),
        (
            ["run", "demo", "--set", "seeds=[1]", "--set", "training.iterations=x", "--set", "noise=false"],
            ["--set training.iterations=x: training.iterations: got 'x', expected a whole number"],
        ),
        (["show", "attack", "fgms"], ["did you mean 'fgsm'"]),
        (["board", "missing"], ["missing"]),
        (["board", "missing", "--by", "colour"], ["results missing", "no such folder"]),
    ],
    ids=lambda value: (
        " ".join(value) if isinstance(value, list) and value[0] in ("run", "list", "show", "board") else ""
    ),
)
def test_bad_input_is_reported_in_one_line_with_code_2(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A corpus that can be fetched must be neither cached nor reachable.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert_refused(advser_here(*arguments, cwd=tmp_path), *words)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["wrong.yaml"], "advser: suite wrong.yaml: corpus: got nothing, expected a value"),
        (
            ["demo", "--only", "colour=red"],
            "advser: --only colour: got 'colour', expected part, seed, fold, model, defense, attack, domain, "
            "delivery, labels, access, source_model, source_defense",
        ),
    ],
)
def test_the_installed_command_reports_a_bad_suite_before_it_imports_torch(
    arguments: list[str], line: str, tmp_path: Path
) -> None:
    (tmp_path / "wrong.yaml").write_text("name: wrong\n")
    command = [sys.executable, "-X", "importtime", ADVSER, "run", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    imported = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert [line for line in imported if line.split()[-1] == "advser.execution.request"]
    assert not [line for line in imported if line.split()[-1] in ("torch", "pandas", "distributed")]
    printed = [line for line in done.stderr.splitlines() if line not in imported]
    assert (done.returncode, printed) == (2, [line])


def test_an_unknown_option_is_refused_with_code_2(tmp_path: Path) -> None:
    done = advser("run", "--colour", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder corpus of six speakers and two labels, in the ``folder`` layout."""
    directory = tmp_path / "corpus"
    directory.mkdir()
    noise = np.random.default_rng(0)
    with (directory / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label", "speaker", "text", "gender"])
        for speaker in range(6):
            for label in ("calm", "loud"):
                name = f"{speaker}-{label}.wav"
                level = 0.02 if label == "calm" else 0.3
                soundfile.write(directory / name, level * noise.standard_normal(16_000), 16_000)
                rows.writerow([name, label, f"s{speaker}", "", "fm"[speaker % 2]])
    return directory


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: soundfile.write(file, np.zeros(16_000), 16_000), ["silent"]),
        (lambda file: soundfile.write(file, np.zeros(0), 16_000), ["empty"]),
        (lambda file: soundfile.write(file, np.ones(100) / 2, 16_000), ["too short"]),
        (lambda file: file.write_bytes(b"RIFF not a sound"), ["unreadable"]),
        (lambda file: file.unlink(), []),
    ],
    ids=["silent", "empty", "short", "corrupt", "missing"],
)
def test_an_unusable_file_is_named(spoil, words: list[str], folder: Path, tmp_path: Path) -> None:
    spoil(folder / "3-loud.wav")
    suite = tmp_path / "folder.yaml"
    suite.write_text(SUITE.format(corpus="folder"))
    done = advser_here("run", suite, "--data", f"folder={folder}", "--store", tmp_path / "store", cwd=tmp_path)
    assert_refused(done, "3-loud.wav", *words)


def test_a_label_outside_the_list_is_named(folder: Path, tmp_path: Path) -> None:
    suite = tmp_path / "folder.yaml"
    suite.write_text(SUITE.format(corpus="{name: folder, params: {labels: [calm]}}"))
    done = advser_here("run", suite, "--data", f"folder={folder}", "--store", tmp_path / "store", cwd=tmp_path)
    assert_refused(done, "loud", "calm")


def test_stereo_at_44100_hz_runs_and_a_dry_run_does_no_job(folder: Path, tmp_path: Path) -> None:
    soundfile.write(folder / "3-loud.wav", 0.3 * np.random.default_rng(1).standard_normal((44_100, 2)), 44_100)
    suite = tmp_path / "folder.yaml"
    suite.write_text(SUITE.format(corpus="folder"))
    arguments = ["run", suite, "--data", f"folder={folder}", "--store", tmp_path / "store"]
    done = advser_here(*arguments, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "to do" in done.stdout
    assert not (tmp_path / "results").exists()
    again = advser_here(*arguments, "--dry-run", cwd=tmp_path)
    assert again.stdout == done.stdout


def test_a_dry_run_lists_each_job_once_by_part_with_the_settings_of_the_suite(tmp_path: Path) -> None:
    suite = tmp_path / "parts.yaml"
    suite.write_text(PARTS)
    listed = advser_here("run", suite, "--dry-run", "--store", tmp_path / "store", cwd=tmp_path).stdout.splitlines()
    assert [line for line in listed if line.startswith("part")] == [
        "part one", "part two", "part three: only jobs that are listed above",
    ]  # fmt: skip
    titles = [line.split(maxsplit=3)[3] for line in listed if line.startswith("to do")]
    assert len({*titles}) == len(titles)
    assert "craft ifgsm ε=0.001 steps=10 waveform true labels on tiny / none, fold fold1, seed 1" in titles
    assert "craft margin ε=0.001 objective=margin waveform true labels on tiny / none, fold fold1, seed 0" in titles
    assert listed[-1].endswith(f"{len(titles)} to do (5 craft, 2 train, 6 judge)")


def test_a_broken_plugin_file_is_named(tmp_path: Path) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text("import nothing_of_this_name\n")
    assert_refused(advser_here("run", "demo", "--plugin", plugin, cwd=tmp_path), "broken.py", "nothing_of_this_name")


def test_a_plugin_cannot_take_a_shipped_name(tmp_path: Path) -> None:
    plugin = tmp_path / "taken.py"
    plugin.write_text(
        "import advser\nfrom advser.attacks.controls import Noise\n\n"
        "@advser.attack('fgsm')\nclass Mine(Noise):\n    'Mine.'\n"
    )
    assert_refused(advser_here("run", "demo", "--plugin", plugin, cwd=tmp_path), "fgsm", "taken")
