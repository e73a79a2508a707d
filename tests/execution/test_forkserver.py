"""The fork server: workers inherit its libraries and variables, and it ends with the command."""

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

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only"),
]

PROGRAM = """
import os, signal, sys
from advser.execution import forkserver as forking


def worker_state():
    loaded = {name for name in forking.IMPORTED if name in sys.modules}
    environment = os.environ.get("ROUND"), os.environ["OMP_NUM_THREADS"], "MALLOC_MMAP_THRESHOLD_" in os.environ
    return loaded == {*forking.IMPORTED}, hash("a"), signal.getsignal(signal.SIGINT) is signal.SIG_IGN, *environment


if __name__ == "__main__":
    from advser.execution.cluster import Workers, _client
    assert forking.method() == "spawn"
    forking.begin()
    assert forking.method() == "forkserver"
    assert "OMP_NUM_THREADS" not in os.environ and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for round in ("first", "second"):
        os.environ["ROUND"] = round
        with _client(Workers(1), 1) as (client, count):
            assert count() == 1
            print(*client.submit(worker_state, pure=False).result())
"""


def test_workers_have_all_libraries_one_thread_no_interrupts_and_the_same_order_of_sets(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    # A file of the current folder must not shadow a library.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "soundfile.py").write_text("raise SystemExit(7)\n")
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "PYTHONHASHSEED")
    }
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-P", tmp_path / "program.py"], cwd=tmp_path / "elsewhere", env=environment,
            capture_output=True, text=True, check=False,
            # Tests that a script started in the background ignore Ctrl-C, which a child would inherit.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        outputs.append([line.split() for line in done.stdout.splitlines()])
    for lines in outputs:
        assert [[ready, *others] for ready, _, *others in lines] == [
            ["True", "True", "first", "1", "True"],
            ["True", "True", "second", "1", "True"],
        ]
    assert len({line[1] for lines in outputs for line in lines}) == 1


@pytest.mark.parametrize("wrong", [("--plugin", "none.py"), ("--only", "colour=red")])
def test_a_refused_command_leaves_no_process(wrong: tuple[str, str], tmp_path: Path) -> None:
    command = [ADVSER, "run", "demo", *wrong, "--store", "store"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    deadline = time.monotonic() + 5
    while (left := processes_in(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def processes_in(folder: Path) -> list[str]:
    """Return the ids of processes with this current folder."""
    processes = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                inside = (process / "cwd").resolve() == folder.resolve()
            except OSError:
                continue
            if inside:
                processes.append(process.name)
    return processes


def test_the_script_is_hidden_from_processes_and_restored_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    spec = ModuleSpec("somebodys.script", None)
    monkeypatch.setattr(main, "__spec__", spec)
    monkeypatch.setattr(main, "__file__", "script.py", raising=False)

    def spec_and_file() -> tuple[object, object]:
        return main.__spec__, getattr(main, "__file__", None)

    first, second = forking.without_main(), forking.without_main()
    with pytest.raises(KeyboardInterrupt), first:
        with second:
            assert spec_and_file() == (None, None)
            assert not {"init_main_from_name", "init_main_from_path"} & {*get_preparation_data("worker")}
        assert spec_and_file() == (None, None)
        raise KeyboardInterrupt
    assert spec_and_file() == (spec, "script.py")
