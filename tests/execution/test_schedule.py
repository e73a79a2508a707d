"""Which job of a run is next."""

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
    return Job(SPECS[stage](number=number), {str(n): one.key for n, one in enumerate(inputs)}, {}, f"job {number}")


@st.composite
def plans(draw: st.DrawFn) -> list[Job]:
    """Draw jobs of which each reads from some of those before it, and one that is done already."""
    there = job(-1, "prepare")
    jobs: list[Job] = []
    for number in range(draw(st.integers(0, 12))):
        stage = draw(st.sampled_from([*LONG, "craft", "predict"]))
        before = st.lists(st.sampled_from([there, *jobs]), max_size=3)
        jobs.append(job(number, stage, draw(before)))
    return jobs


@given(plans(), st.integers(1, 4), st.data())
def test_all_jobs_are_done_once_after_their_inputs_and_nobody_waits_for_nothing(
    jobs: list[Job], workers: int, data: st.DataObject
) -> None:
    agenda, at_work, ended = Agenda(jobs), [], []
    keys = {one.key for one in jobs}

    def possible() -> list[Job]:
        done = {one.key for one in ended}
        free = [one for one in jobs if one not in at_work and one not in ended]
        return [one for one in free if all(key in done or key not in keys for key in one.inputs.values())]

    while len(ended) < len(jobs):
        while len(at_work) < workers and (taken := agenda.take()) is not None:
            assert taken in possible()
            at_work.append(taken)
        assert len(at_work) == workers or not possible()
        ending = data.draw(st.sampled_from(at_work))
        at_work.remove(ending)
        assert [one for one, _ in agenda.done(Outcome(ending.key, "ok"))] == [ending]
        ended.append(ending)
    assert agenda.take() is None


@given(plans(), st.data())
def test_what_reads_from_a_failed_job_fails_for_its_reason_and_is_not_handed_out(
    jobs: list[Job], data: st.DataObject
) -> None:
    agenda = Agenda(jobs)
    told: dict[str, Outcome] = {}
    while (taken := agenda.take()) is not None:
        status = data.draw(st.sampled_from(["ok", "failed", "not-applicable"]))
        for one, outcome in agenda.done(Outcome(taken.key, status, taken.title)):
            assert one.key == outcome.key
            assert one.key not in told
            told[one.key] = outcome
    assert len(told) == len(jobs)
    for one in jobs:
        failed = [told[key].reason for key in one.inputs.values() if key in told and told[key].status == "failed"]
        if failed:
            assert told[one.key].status == "failed"
            assert told[one.key].reason in failed
        else:
            assert told[one.key].reason == one.title


def test_long_jobs_come_first_while_one_worker_does_the_others_in_their_order() -> None:
    jobs = [job(0), job(1, "train"), job(2), job(3, "learn"), job(4), job(5, "train")]
    agenda = Agenda(jobs)
    assert [agenda.take() for _ in range(4)] == [jobs[0], jobs[1], jobs[3], jobs[5]]
    agenda.done(Outcome(jobs[1].key, "ok"))
    # The others are at work at a long one each, or at the first of the others.
    assert [agenda.take() for _ in range(3)] == [jobs[2], jobs[4], None]


def test_a_worker_alone_does_what_it_can_judge_before_it_trains_on() -> None:
    first = job(0, "train")
    jobs = [first, job(1, inputs=[first]), job(2, "train")]
    agenda = Agenda(jobs)
    for expected in jobs:
        assert agenda.take() == expected
        agenda.done(Outcome(expected.key, "ok"))


def test_long_stages_are_stages() -> None:
    assert {*LONG} <= {*STAGES}
