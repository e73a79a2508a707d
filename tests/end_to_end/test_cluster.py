"""Several processes on one store: workers of a Dask scheduler, and two runs at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
import pytest
from commandline import ADVSER, advser_here, jobs_done
from distributed import Client, LocalCluster

from advser.errors import InputError
from advser.execution.cluster import Workers, run_jobs
from advser.execution.jobs.lost_workers import WorkerCounter
from advser.plan.jobs import prepare_job
from advser.results.folder import Results
from advser.stages.job import Job, Outcome
from advser.store.artefacts import Store
from advser.suite.schema import Suite

pytestmark = pytest.mark.processes

CUT = [
    "--set",
    "training.iterations=8",
    "--set",
    "folds=[f1]",
    "--set",
    "protocol=loso",
    "--set",
    "defenses=[none]",
    "--set",
    "metrics=[uar, loss]",
    "--set",
    "classes=[anger, sadness]",
    "--set",
    "audit=false",
]
DASK = Path(sys.executable).parent / "dask"
MUTE = '''
import advser
from advser.models.frontends import LogMel
from advser.models.tiny import Tiny


class Mute(LogMel):
    """Features without re-synthesis."""

    resynthesises = False


@advser.model("mute")
class MuteTiny(Tiny):
    """The tiny model, with features that cannot be turned into sound."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.frontend = Mute(self.frontend.frames)
'''


@contextmanager
def background(*command: str | Path) -> Iterator[None]:
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def alone(place: Path) -> pd.DataFrame:
    """The table of the cut suite from a local run on its own store."""
    done = advser_here("run", *CUT, "--store", "alone", "--out", "alone-results", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    return table(place / "alone-results")


def table(folder: Path) -> pd.DataFrame:
    """Return the table of the results, without times."""
    rows = Results.load(folder).table
    return rows[rows["metric"] != "seconds"].reset_index(drop=True)


def scheduler_address(file: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if file.is_file() and (text := file.read_text()):
            return str(json.loads(text)["address"])
        time.sleep(0.1)
    raise TimeoutError(f"no scheduler wrote {file}")


@contextmanager
def running_scheduler(file: Path) -> Iterator[str]:
    """Run a Dask scheduler that writes ``file``; yield its address."""
    with background(DASK, "scheduler", "--port", "0", "--dashboard-address", "localhost:0", "--scheduler-file", file):
        yield scheduler_address(file)


@pytest.fixture(scope="module")
def scheduler(place: Path) -> Iterator[tuple[str, Path]]:
    """A scheduler's address, and its file."""
    file = place / "scheduler.json"
    with running_scheduler(file) as address:
        yield address, file


def worker(file: Path, threads: int) -> list[str | Path]:
    return [DASK, "worker", "--scheduler-file", file, "--nthreads", str(threads), "--dashboard-address", "localhost:0"]


def wait_for_threads(address: str, threads: list[int]) -> None:
    """Wait until the scheduler's workers have these numbers of threads."""
    deadline = time.monotonic() + 60
    with Client(address) as client:
        while time.monotonic() < deadline:
            workers = client.scheduler_info()["workers"].values()
            if [worker["nthreads"] for worker in workers] == threads:
                return
            time.sleep(0.1)
    raise TimeoutError(f"{address}: got other workers than those with {threads} threads")


def run_on(address: str, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return advser_here(
        "run", *CUT, "--store", "shared", "--out", "remote", "--scheduler", address, *arguments, cwd=place
    )


def test_an_unreachable_scheduler_and_workers_with_threads_are_refused_at_once(
    scheduler, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, file = scheduler
    with background(*worker(file, 2)):
        wait_for_threads(address, [2])
        refused = run_on(address, place)
    assert refused.returncode == 2
    assert "got workers with 2 threads, expected workers with one" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    monkeypatch.setattr("advser.execution.cluster.CONNECTING", 1.0)
    unreachable = run_on("tcp://127.0.0.1:1", place)
    assert unreachable.returncode == 2
    assert "cannot be reached" in unreachable.stderr


def test_workers_of_a_scheduler_have_the_results_of_a_local_run(scheduler, alone: pd.DataFrame, place: Path) -> None:
    address, file = scheduler
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(background(*worker(file, 1)))
        # The scheduler may still list the worker of the previous test, or not yet these.
        wait_for_threads(address, [1, 1])
        done = run_on(address, place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert jobs_done(done) > 0
    pd.testing.assert_frame_equal(table(place / "remote"), alone)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("lost", "the connection was lost; finished jobs are in the store, the same command continues from there"),
        ("joined", "got workers with 2 threads, expected workers with one (dask worker --nthreads 1)"),
    ],
    ids=["lost", "joined"],
)
def test_a_lost_scheduler_or_a_new_worker_with_threads_ends_the_run_in_one_line(
    event: str, message: str, place: Path
) -> None:
    file = place / f"{event}.json"
    with ExitStack() as workers, ExitStack() as schedulers:
        address = schedulers.enter_context(running_scheduler(file))
        workers.enter_context(background(*worker(file, 1)))
        with Client(address) as client:
            client.wait_for_workers(1, timeout=60)
        settings = ["--set", "training.iterations=300", "--set", "metrics=[uar]"]
        run = subprocess.Popen(
            [ADVSER, "run", *settings, "--store", event, "--out", f"{event}-results", "--scheduler", address],
            cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert run.stderr is not None
        for line in run.stderr:
            if line.startswith("[1/"):
                break
        if event == "lost":
            schedulers.close()
        else:
            workers.enter_context(background(*worker(file, 2)))
        _, errors = run.communicate(timeout=120)
    assert run.returncode == 2, errors
    assert errors.splitlines()[-1] == f"advser: --scheduler {address}: {message}"
    assert "Traceback" not in errors
    assert not (place / f"{event}-results").exists()


def test_two_runs_at_once_on_one_store_have_the_same_results(alone: pd.DataFrame, place: Path) -> None:
    runs = [
        subprocess.Popen(
            [ADVSER, "run", *CUT, "--store", "both", "--out", out, "--workers", "1"],
            cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for out in ("one", "other")
    ]  # fmt: skip
    for run, out in zip(runs, ("one", "other"), strict=True):
        output, _ = run.communicate(timeout=300)
        assert run.returncode == 0, output
        pd.testing.assert_frame_equal(table(place / out), alone)


def test_a_job_that_is_not_applicable_is_reported_and_not_repeated(place: Path) -> None:
    (place / "mute.py").write_text(MUTE)
    command = ["run", *CUT, "--store", "mute", "--only", "model=mute"]
    first = advser_here(*command, "--plugin", "mute.py", "--out", "mute-first", cwd=place)
    assert first.returncode == 0, first.stdout + first.stderr
    rows = Results.load(place / "mute-first").table
    audible = rows[(rows["domain"] == "spectrogram") & (rows["delivery"] == "audio") & (rows["metric"] == "uar")]
    assert len(audible) > 0
    assert set(audible["status"]) == {"not-applicable"}
    assert audible["reason"].str.contains("cannot be turned back into sound").all()
    # A process loads a plugin file once.
    (place / "mute_again.py").write_text(MUTE)
    again = advser_here(*command, "--plugin", "mute_again.py", "--out", "mute-again", cwd=place)
    assert jobs_done(again) == 0
    pd.testing.assert_frame_equal(Results.load(place / "mute-again").table, rows)


class Quiet:
    """Progress that shows nothing."""

    def start(self, waiting: Sequence[Job], cached: int, workers: int) -> None: ...

    def done(self, job: Job, outcome: Outcome) -> None: ...

    def stop(self) -> None: ...


def test_two_runs_on_one_scheduler_each_do_the_same_job_in_their_own_store(tmp_path: Path) -> None:
    suite = {
        "name": "two",
        "corpus": "demo",
        "protocol": "3pair",
        "models": ["tiny"],
        "defenses": ["none"],
        "metrics": ["uar"],
    }
    job = prepare_job(Suite.model_validate(suite), 0, None)
    stores = [Store(tmp_path / name) for name in ("one", "other")]
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="localhost:0") as cluster:
        workers = Workers(scheduler=cluster.scheduler_address)
        with ThreadPoolExecutor() as pool:
            runs = [pool.submit(run_jobs, [job], 0, store, workers, Quiet()) for store in stores]
        assert [[outcome.status for outcome in run.result()] for run in runs] == [["ok"], ["ok"]]
    assert all(job.key in store for store in stores)


def test_a_scheduler_may_be_without_workers_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = [1]
    counter = WorkerCounter("tcp://host:1", lambda: threads)
    assert counter.count() == 1
    threads.clear()
    assert counter.count() == 0
    monkeypatch.setattr("advser.execution.jobs.lost_workers.GRACE", -1.0)
    with pytest.raises(InputError, match=r"--scheduler tcp://host:1: got no worker for .* s; finished jobs are"):
        counter.count()


KILLER = '''
import os
import sys

import advser
from advser.plugins import budget


@advser.attack("killer", domains=("waveform",))
def killer(target, x, labels, generator, *, epsilon: float = budget()):
    """Ends the process that it runs in."""
    WAY(1)
'''


ENDLESS = KILLER.replace("WAY(1)", "while True: pass").replace("killer", "endless")


def test_a_job_that_takes_too_long_fails_and_the_others_are_done(place: Path) -> None:
    (place / "endless.py").write_text(ENDLESS)
    command = ["run", *CUT, "--store", "endless", "--out", "endless-results", "--plugin", "endless.py"]
    done = advser_here(*command, "--only", "attack=endless|noise", "--timeout", "15", cwd=place)
    assert done.returncode == 3, done.stdout + done.stderr
    failed = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert failed
    assert all("takes longer than 15 s, the timeout of a job" in line for line in failed)
    statuses = Results.load(place / "endless-results").table.groupby("attack")["status"].agg(set).to_dict()
    assert statuses == {"none": {"ok"}, "noise": {"ok"}, "endless": {"failed"}}


@pytest.mark.parametrize(
    ("way", "message"),
    [("os._exit", "ended before the job (exit code 1)"), ("sys.exit", "SystemExit: 1 (killer.py:12)")],
)
def test_a_job_that_ends_its_process_fails_by_name_and_the_others_are_done(way: str, message: str, place: Path) -> None:
    (place / way).mkdir()
    (place / way / "killer.py").write_text(KILLER.replace("WAY", way))
    command = ["run", *CUT, "--store", "killed", "--out", f"{way}-results", "--plugin", f"{way}/killer.py"]
    done = advser_here(*command, "--only", "attack=killer|noise", cwd=place)
    assert done.returncode == 3, done.stdout + done.stderr
    failed = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert failed
    assert all(line.startswith("failed: craft killer") and message in line for line in failed), failed
    statuses = Results.load(place / f"{way}-results").table.groupby("attack")["status"].agg(set).to_dict()
    assert statuses == {"none": {"ok"}, "noise": {"ok"}, "killer": {"failed"}}
