"""What a chaos run must leave behind, held against what it left: figures, and what is broken."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta

from ml_service.domain.jobs import Job


@dataclass(frozen=True)
class GpuRun:
    """One execution of one of a job's prompts."""

    instance_id: str
    was_lost: bool
    """Whether the server was restarted after the run began, or its instance is gone."""
    end: str | None
    """success, error or interrupted; None if nobody saw an end."""


@dataclass(frozen=True)
class JobEvidence:
    """What is known of one job in the end."""

    job_id: str
    answers: Sequence[str]
    """Its replies as they came, without what differs between two deliveries of the same."""
    record: Job | None
    """None: the job was never accepted."""
    runs: Sequence[GpuRun] = ()
    step_errors: Sequence[str] = ()
    """What its last execution's steps failed with, in order, as "Submit Prompt: OddError"."""


@dataclass(frozen=True)
class ChaosEvidence:
    """What is known of a whole run in the end."""

    jobs: Sequence[JobEvidence]
    slots: Mapping[str, Set[str]]
    """Ids of the jobs that still have a slot, by instance key."""
    overfull: Set[str] = frozenset()
    """Keys of instances that were seen with more jobs than slots."""
    prompts_left: Mapping[str, int] | None = None
    """Prompts still in the queues, by instance id."""
    stray_runs: int = 0
    """Runs of prompts that no job's record accounts for."""
    faulted: Set[str] = frozenset()
    """Ids of the instances that were harmed or went away."""


@dataclass(frozen=True)
class ChaosFigures:
    """What a chaos run comes to."""

    accepted: int
    answered: int
    repeated_answers: int
    """Answers beyond each job's first, all the same as it."""
    failures: Mapping[str, int]
    gpu_runs: int
    repeated_runs: int
    """Runs beyond each job's first."""
    losses: int
    """Placements that jobs gave up because an instance lost or broke their prompt."""
    broken: Sequence[str]
    """Each invariant that does not hold, as a sentence; empty if all do."""


def judge_run(evidence: ChaosEvidence) -> ChaosFigures:
    """Count what happened, and find what must not have."""
    failures = Counter(
        job.record.failure.code for job in evidence.jobs if job.record and job.record.failure
    )
    return ChaosFigures(
        accepted=sum(job.record is not None for job in evidence.jobs),
        answered=sum(bool(job.answers) for job in evidence.jobs),
        repeated_answers=sum(max(0, len(job.answers) - 1) for job in evidence.jobs),
        failures=dict(failures.most_common()),
        gpu_runs=sum(len(job.runs) for job in evidence.jobs),
        repeated_runs=sum(max(0, len(job.runs) - 1) for job in evidence.jobs),
        losses=sum(len(job.record.lost_on) for job in evidence.jobs if job.record),
        broken=[*_find_broken_jobs(evidence), *_find_broken_fleets(evidence)],
    )


def _find_broken_jobs(evidence: ChaosEvidence) -> Iterator[str]:
    for job in evidence.jobs:
        record = job.record
        if record is None:
            yield f"Job {job.job_id} was never accepted."
        elif not record.state.is_final:
            yield f"Job {job.job_id} is still {record.state}."
        elif record.due_at is not None:
            yield f"Job {job.job_id} is {record.state}, but something is left to be done for it."
        if not job.answers:
            yield f"Job {job.job_id} is lost: it has no answer."
        elif len(set(job.answers)) > 1:
            yield f"Job {job.job_id} has {len(set(job.answers))} different answers."
        if record is not None:
            yield from _find_unexplained(job, record, evidence.faulted)


def _find_unexplained(job: JobEvidence, record: Job, faulted: Set[str]) -> Iterator[str]:
    lost_on = {key.partition("#")[0] for key in record.lost_on}
    for instance_id in sorted(lost_on - faulted):
        yield f"Job {job.job_id} gave up instance {instance_id}, with which nothing was wrong."
    # The last run needs no explanation, whichever it was.
    unexplained = [run for run in job.runs if not run.was_lost and run.instance_id not in lost_on]
    if len(unexplained) > 1:
        yield (
            f"Job {job.job_id} ran {len(job.runs)} times, and the loss of an instance explains "
            f"only {len(job.runs) - len(unexplained)} of them."
        )
    if record.failure is not None:
        explains = _EXPLANATIONS.get(record.failure.code)
        if explains is None or not explains(job, record):
            steps = f" ({'; '.join(job.step_errors)})" if job.step_errors else ""
            yield (
                f"Job {job.job_id} failed with {record.failure.code}, which nothing explains"
                f"{steps}."
            )


def _find_broken_fleets(evidence: ChaosEvidence) -> Iterator[str]:
    for key, job_ids in evidence.slots.items():
        if job_ids:
            yield f"Instance {key} still has slots taken: {', '.join(sorted(job_ids))}."
    for key in sorted(evidence.overfull):
        yield f"Instance {key} had more jobs than slots."
    for instance_id, count in (evidence.prompts_left or {}).items():
        if count:
            yield f"Instance {instance_id} still has {count} prompts."
    if evidence.stray_runs:
        yield f"{evidence.stray_runs} runs belong to no attempt of any job."


def _lost_an_instance(_: JobEvidence, record: Job) -> bool:
    return bool(record.lost_on)


def _ran_into_an_error(job: JobEvidence, _: Job) -> bool:
    return any(run.end == "error" for run in job.runs)


def _was_late(_: JobEvidence, record: Job) -> bool:
    if record.closed_at is None:
        return False
    began = record.admitted_at
    ran_out = began and record.closed_at - began >= timedelta(seconds=record.run_seconds)
    waited_out = record.deadline and record.closed_at >= record.deadline
    return bool(ran_out or waited_out)


_EXPLANATIONS: Mapping[str, Callable[[JobEvidence, Job], bool]] = {
    "ATTEMPTS_EXHAUSTED": _lost_an_instance,
    "PROMPT_FAILED": _ran_into_an_error,
    "DEADLINE_EXCEEDED": _was_late,
    "EXECUTION_TIMED_OUT": _was_late,
}
"""What must be true of a job that failed with a code; any other code is a fault of the service."""
