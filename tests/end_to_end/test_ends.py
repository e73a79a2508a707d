"""Plugins that end the process: no command ends well without a verdict, wherever and however the plugin does it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from commandline import advser, advser_here

from advser.errors import ContractError, NotApplicableError
from advser.execution.jobs.isolation import reason_of

WAYS = {
    "exit": "import sys; sys.exit(0)",
    "system-exit": "raise SystemExit",
    "generator": "raise GeneratorExit",
    "generator-throw": "next(i for i in ())",
    "own": "raise type('Own', (BaseException,), {})",
    "typer": "import typer; raise typer.Exit(0)",
    "abort": "import typer; raise typer.Abort",
    "advser": "from advser.errors import InputError; raise InputError('')",
}
AT_ONCE = "import os; os._exit(0)"
PLACES = ("import", "validator", "attack")
PLUGIN = '''
import advser
from advser.plugins import Attack, budget
from pydantic import field_validator

def end(place):
    if place == "{place}":
        {way}

end("import")

@advser.attack("ends")
class Ends(Attack):
    """Ends the process."""

    citation = "none"
    epsilon: float = budget(about="budget", unit="full-scale or z")

    @field_validator("epsilon")
    @classmethod
    def checked(cls, value):
        end("validator")
        return value

    def perturb(self, target, x, labels, generator):
        end("attack")
        return x
'''


def plugin(folder: Path, place: str, way: str) -> str:
    """Write a plugin that ends the process at a place in a way."""
    (folder / "ends.py").write_text(PLUGIN.format(place=place, way=way))
    return "ends.py"


@pytest.mark.parametrize(("place", "way"), [*itertools.product(PLACES, WAYS)])
def test_a_plugin_that_ends_the_process_is_no_verdict(place: str, way: str, tmp_path: Path) -> None:
    file = plugin(tmp_path, place, WAYS[way])
    done = advser_here("check", "attack", "ends", "--plugin", file, "--store", "store", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    if place == "attack":
        assert done.returncode == 1, done.stderr
        assert "FAIL   contract: " in done.stdout
        assert "FAIL   contract: \n" not in done.stdout
    else:
        assert done.returncode == 2, done.stdout
        assert len(done.stderr.splitlines()) == 1
        assert len(done.stderr) > len("advser: \n")


@pytest.mark.parametrize("place", PLACES)
def test_nor_is_the_end_at_once(place: str, tmp_path: Path) -> None:
    command = ("list", "attacks") if place == "import" else ("check", "attack", "ends", "--store", "store")
    done = advser(*command, "--plugin", plugin(tmp_path, place, AT_ONCE), cwd=tmp_path)
    assert done.returncode == (1 if place == "attack" else 2), done.stdout
    assert "SystemExit: 0" in done.stderr + done.stdout


@pytest.mark.parametrize("error", [ContractError(""), NotApplicableError(" "), SystemExit(), GeneratorExit()])
def test_a_failed_job_has_a_reason(error: BaseException) -> None:
    assert reason_of(error).startswith(type(error).__name__)
