"""The order of jobs: each after its inputs, and the long ones early."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Final

from advser.stages.job import Job, Outcome

LONG: Final = ("train", "learn")
"""Stages whose jobs take minutes and have many dependants."""


class Agenda:
    """Hands out the jobs of a run, each once.

    Long jobs first: if the last of them started late, all workers but one would idle. Meanwhile one worker does the
    short jobs in the order of the plan, so that a failing plugin is reported early.

    Args:
        jobs: the jobs in the order of the plan, each after its inputs, without duplicate keys. Inputs that are not
            among them are in the store.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._places = {job.key: place for place, job in enumerate(jobs)}
        self._missing = [{self._places[key] for key in job.inputs.values() if key in self._places} for job in jobs]
        self._readers: dict[int, list[int]] = defaultdict(list)
        self._ready: dict[bool, list[int]] = {True: [], False: []}
        self._others_at_work = 0
        self._hopeless: set[int] = set()
        for place, missing in enumerate(self._missing):
            for source in missing:
                self._readers[source].append(place)
            if not missing:
                self._make_ready(place)

    def take(self) -> Job | None:
        """Return a job to do now; None if no job is left, or all of them wait for others."""
        long, others = self._ready[True], self._ready[False]
        if others and (not long or not self._others_at_work):
            self._others_at_work += 1
            return self._jobs[heappop(others)]
        return self._jobs[heappop(long)] if long else None

    def done(self, outcome: Outcome) -> list[tuple[Job, Outcome]]:
        """Record the outcome of a job that was handed out; return it, and the jobs that fail because it failed."""
        place = self._places[outcome.key]
        self._others_at_work -= not self._is_long(place)
        return list(self._ended(place, outcome))

    def _ended(self, place: int, outcome: Outcome) -> Iterator[tuple[Job, Outcome]]:
        yield self._jobs[place], outcome
        for reader in self._readers[place]:
            if outcome.status != "failed":
                self._missing[reader].discard(place)
                if not self._missing[reader]:
                    self._make_ready(reader)
            elif reader not in self._hopeless:
                self._hopeless.add(reader)
                yield from self._ended(reader, Outcome(self._jobs[reader].key, "failed", outcome.reason))

    def _make_ready(self, place: int) -> None:
        heappush(self._ready[self._is_long(place)], place)

    def _is_long(self, place: int) -> bool:
        return self._jobs[place].stage in LONG
