"""The order of a run's jobs."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from advser.execution.schedule import LONG, Agenda
from advser.stages import STAGES
from advser.stages.job import Job, Outcome
from advser.stages.specs import Spec


class Numbered(Spec):
    number: int


SPECS = {stage: type(f"{stage}-spec", (Numbered,), {"stage": stage}) for stage in STAGES}


def job(number: int, stage: str = "craft", inputs: Sequence[Job] = ()) -> Job:
    return Job(SPECS[stage](number=number), {str(n): read.key for n, read in enumerate(inputs)}, {}, f"job {number}")


@st.composite
def plans(draw: st.DrawFn) -> list[Job]:
    """Draw jobs that read from earlier jobs, and from a job that is in the store."""
    stored = job(-1, "prepare")
    jobs: list[Job] = []
    for number in range(draw(st.integers(0, 12))):
        stage = draw(st.sampled_from([*LONG, "craft", "predict"]))
        before = st.lists(st.sampled_from([stored, *jobs]), max_size=3)
        jobs.append(job(number, stage, draw(before)))
    return jobs


@given(plans(), st.integers(1, 4), st.data())
def test_all_jobs_are_done_once_after_their_inputs_and_no_worker_idles(
    jobs: list[Job], workers: int, data: st.DataObject
) -> None:
    agenda, running, ended = Agenda(jobs), [], []
    keys = {job.key for job in jobs}

    def possible() -> list[Job]:
        done = {job.key for job in ended}
        free = [job for job in jobs if job not in running and job not in ended]
        return [job for job in free if all(key in done or key not in keys for key in job.inputs.values())]

    while len(ended) < len(jobs):
        while len(running) < workers and (taken := agenda.take()) is not None:
            assert taken in possible()
            running.append(taken)
        assert len(running) == workers or not possible()
        ending = data.draw(st.sampled_from(running))
        running.remove(ending)
        assert [job for job, _ in agenda.done(Outcome(ending.key, "ok"))] == [ending]
        ended.append(ending)
    assert agenda.take() is None


@given(plans(), st.data())
def test_a_job_with_a_failed_input_fails_for_the_same_reason_and_is_not_handed_out(
    jobs: list[Job], data: st.DataObject
) -> None:
    agenda = Agenda(jobs)
    outcomes: dict[str, Outcome] = {}
    while (taken := agenda.take()) is not None:
        status = data.draw(st.sampled_from(["ok", "failed", "not-applicable"]))
        for ended, outcome in agenda.done(Outcome(taken.key, status, taken.title)):
            assert ended.key == outcome.key
            assert ended.key not in outcomes
            outcomes[ended.key] = outcome
    assert len(outcomes) == len(jobs)
    for reader in jobs:
        inputs = [outcomes[key] for key in reader.inputs.values() if key in outcomes]
        failed = [outcome.reason for outcome in inputs if outcome.status == "failed"]
        if failed:
            assert outcomes[reader.key].status == "failed"
            assert outcomes[reader.key].reason in failed
        else:
            assert outcomes[reader.key].reason == reader.title


def test_long_jobs_come_first_while_one_worker_does_the_others_in_order() -> None:
    jobs = [job(0), job(1, "train"), job(2), job(3, "learn"), job(4), job(5, "train")]
    agenda = Agenda(jobs)
    assert [agenda.take() for _ in range(4)] == [jobs[0], jobs[1], jobs[3], jobs[5]]
    agenda.done(Outcome(jobs[1].key, "ok"))
    # Every other worker has a long job, or the first short one.
    assert [agenda.take() for _ in range(3)] == [jobs[2], jobs[4], None]


def test_a_single_worker_does_short_jobs_before_the_next_training() -> None:
    first = job(0, "train")
    jobs = [first, job(1, inputs=[first]), job(2, "train")]
    agenda = Agenda(jobs)
    for expected in jobs:
        assert agenda.take() == expected
        agenda.done(Outcome(expected.key, "ok"))


def test_long_stages_are_stages() -> None:
    assert {*LONG} <= {*STAGES}
