"""Progress of a run: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from advser.stages.job import Job, Outcome


class Remaining:
    """Estimate of the time left: each waiting job takes the mean time of its stage so far."""

    def __init__(self, waiting: Sequence[Job], workers: int) -> None:
        self._waiting: dict[str, int] = defaultdict(int)
        for job in waiting:
            self._waiting[job.stage] += 1
        self._ended: dict[str, int] = defaultdict(int)
        self._took: dict[str, float] = defaultdict(float)
        self._workers = workers

    def done(self, job: Job, outcome: Outcome) -> None:
        """Count a job as ended."""
        self._waiting[job.stage] -= 1
        if outcome.status == "ok":
            self._ended[job.stage] += 1
            self._took[job.stage] += outcome.seconds

    def seconds(self) -> float | None:
        """Return the estimate in seconds; None before the first job ends."""
        ended = sum(self._ended.values())
        if not ended:
            return None
        mean = sum(self._took.values()) / ended
        per_stage = {
            stage: self._took[stage] / self._ended[stage] if self._ended[stage] else mean for stage in self._waiting
        }
        return float(sum(count * per_stage[stage] for stage, count in self._waiting.items())) / self._workers

    def text(self) -> str:
        """Return the estimate in words; empty before the first job ends."""
        seconds = self.seconds()
        if seconds is None:
            return ""
        return f"about {seconds:.0f} s left" if seconds < 90 else f"about {seconds / 60:.0f} min left"


class LiveProgress:
    """A bar that redraws itself."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=console, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._remaining: Remaining | None = None

    def start(self, waiting: Sequence[Job], cached: int, workers: int) -> None:
        """Show the bar."""
        self._remaining = Remaining(waiting, workers)
        self._task = self._bar.add_task("starting", total=len(waiting) + cached, completed=cached, left="")
        self._bar.start()

    def done(self, job: Job, outcome: Outcome) -> None:
        """Advance the bar; print failures above it."""
        assert self._remaining is not None
        assert self._task is not None
        self._remaining.done(job, outcome)
        if outcome.status == "failed":
            self._bar.print(f"failed: {outcome.reason}", markup=False, highlight=False)
        title = job.title if len(job.title) <= 60 else f"{job.title[:59]}…"
        self._bar.update(self._task, advance=1, description=title, left=self._remaining.text())

    def stop(self) -> None:
        """Remove the bar."""
        self._bar.stop()


class PlainProgress:
    """One line per finished job."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 0
        self._count = 0
        self._started = 0.0
        self._remaining: Remaining | None = None

    def start(self, waiting: Sequence[Job], cached: int, workers: int) -> None:
        """Print the number of jobs."""
        self._started = time.monotonic()
        self._total, self._count = len(waiting) + cached, cached
        self._remaining = Remaining(waiting, workers)
        self._line(f"{len(waiting)} jobs on {workers} workers, {cached} in the store")

    def done(self, job: Job, outcome: Outcome) -> None:
        """Print the line."""
        assert self._remaining is not None
        self._remaining.done(job, outcome)
        self._count += 1
        end = f"{outcome.seconds:.1f} s" if outcome.status == "ok" else f"{outcome.status}: {outcome.reason}"
        self._line(f"[{self._count}/{self._total}] {job.title}: {end} ({self._remaining.text()})")

    def stop(self) -> None:
        """Print the elapsed time."""
        self._line(f"jobs ended after {time.monotonic() - self._started:.0f} s")

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
