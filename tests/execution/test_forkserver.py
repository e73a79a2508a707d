"""The process that workers are forked from: what it hands on to them, and that it ends with the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from multiprocessing.spawn import get_preparation_data
from pathlib import Path

import pytest
from commandline import ADVSER

from advser.execution import forkserver as forking

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")

PROGRAM = """
import os, signal, sys
from advser.execution import forkserver as forking


def told():
    loaded = {name for name in forking.IMPORTED if name in sys.modules}
    environment = os.environ.get("ASKED"), os.environ["OMP_NUM_THREADS"], "MALLOC_MMAP_THRESHOLD_" in os.environ
    return loaded == {*forking.IMPORTED}, hash("a"), signal.getsignal(signal.SIGINT) is signal.SIG_IGN, *environment


if __name__ == "__main__":
    from advser.execution.cluster import Workers, _client
    assert forking.method() == "spawn"
    forking.begin()
    assert forking.method() == "forkserver"
    assert "OMP_NUM_THREADS" not in os.environ and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for asked in ("once", "again"):
        os.environ["ASKED"] = asked
        with _client(Workers(1), 1) as (client, count):
            assert count() == 1
            print(*client.submit(told, pure=False).result())
"""


def test_workers_have_all_imported_one_thread_no_interrupts_and_the_same_order_of_sets(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    # A file of the current folder must not take the place of a library's module.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "soundfile.py").write_text("raise SystemExit(7)\n")
    given = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "PYTHONHASHSEED")}
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-P", tmp_path / "program.py"], cwd=tmp_path / "elsewhere", env=given,
            capture_output=True, text=True, check=False,
            # A test run that a script started in the background ignores Ctrl-C, which a child would inherit.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append([line.split() for line in done.stdout.splitlines()])
    for lines in found:
        assert [[ready, *others] for ready, _, *others in lines] == [
            ["True", "True", "once", "1", "True"],
            ["True", "True", "again", "1", "True"],
        ]
    assert len({line[1] for lines in found for line in lines}) == 1


@pytest.mark.parametrize("wrong", [("--plugin", "none.py"), ("--only", "colour=red")])
def test_a_command_that_is_refused_leaves_no_process_behind(wrong: tuple[str, str], tmp_path: Path) -> None:
    command = [ADVSER, "run", "demo", *wrong, "--store", "store"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    deadline = time.monotonic() + 5
    while (left := started_in(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def started_in(folder: Path) -> list[str]:
    """Return the processes whose current folder it is."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                here = (process / "cwd").resolve() == folder.resolve()
            except OSError:
                continue
            if here:
                found.append(process.name)
    return found


def test_the_script_is_hidden_from_processes_and_is_there_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    spec = ModuleSpec("somebodys.script", None)
    monkeypatch.setattr(main, "__spec__", spec)
    monkeypatch.setattr(main, "__file__", "script.py", raising=False)

    def told() -> tuple[object, object]:
        return main.__spec__, getattr(main, "__file__", None)

    first, second = forking.without_main(), forking.without_main()
    with pytest.raises(KeyboardInterrupt), first:
        with second:
            assert told() == (None, None)
            assert not {"init_main_from_name", "init_main_from_path"} & {*get_preparation_data("worker")}
        assert told() == (None, None)
        raise KeyboardInterrupt
    assert told() == (spec, "script.py")
