"""A renamed module changes no fingerprint: a store that was filled before serves the same suite without a job."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import jobs_done
from package_copy import copied_package

SUITE = """
name: renamed
corpus: demo
protocol: loso
folds: [f1]
models: [tiny]
defenses: [none, {name: vanilla, params: {attack: {name: fgsm, params: {epsilon: 0.06}}}}]
attacks: [{name: pgd, params: {epsilon: 0.001, steps: 1}}]
metrics: [uar, snr]
training: {iterations: 2, batch_size: 8}
audit: false
"""

RENAMED = {
    "threat/budget.py": "threat/bounds.py",
    "stages/harness.py": "stages/referee.py",
    "models/frontends.py": "models/ears.py",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, to be found before the installed one."""
    return copied_package(tmp_path)


def rename(package: Path) -> None:
    for old, new in RENAMED.items():
        (package / old).rename(package / new)
    for file in package.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for old, new in RENAMED.items():
            names = [f"advser.{path.removesuffix('.py').replace('/', '.')}" for path in (old, new)]
            text = re.sub(rf"\b{re.escape(names[0])}\b", names[1], text)
        file.write_text(text, encoding="utf-8")


def run(package: Path) -> tuple[Path, int]:
    """Run the suite; return where the command's modules lie, and the number of jobs done."""
    folder = package.parents[1]
    (folder / "suite.yaml").write_text(SUITE, encoding="utf-8")
    program = "import sys, advser.commands.cli as cli; sys.stderr.write(cli.__file__ + '\\n'); cli.main()"
    command = [sys.executable, "-c", program, "run", "suite.yaml", "--store", "store", "--out", "out", "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stderr.splitlines()[0]), jobs_done(done)


def test_a_renamed_module_retrains_nothing(package: Path) -> None:
    place, before = run(package)
    assert place.is_relative_to(package)
    assert before > 5
    rename(package)
    assert run(package) == (place, 0)
    assert (package / "threat" / "bounds.py").is_file()
