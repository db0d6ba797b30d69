"""sweep_jobs: every minute, whatever was left undone by a crash, a lost event or a lost message."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ml_service.domain.errors import DeadlineExceededError, JobNotFoundError
from ml_service.domain.fleets import Fleet
from ml_service.domain.hand_offs import HandOffState
from ml_service.domain.jobs import Job, JobState
from ml_service.ports import FleetStore, JobRunner, JobStore, PromptCanceller
from ml_service.services.finish_job import FinishJob, StepError

_LIMIT = 200
"""Jobs looked at in one sweep, the longest due first; the next is a minute away."""


class SweepAction(StrEnum):
    """What a sweep did for a job."""

    PUBLISHED = "PUBLISHED"
    """Its reply had been stored and not sent."""
    HANDED_OFF = "HANDED_OFF"
    """Its video had not been handed on."""
    HAND_OFF_FAILED = "HAND_OFF_FAILED"
    """The same, and it never will be: the bucket or the queue refuses it."""
    CLOSED = "CLOSED"
    """It was past its deadline, or its execution had ended without closing it."""
    RESTARTED = "RESTARTED"
    """It was admitted, and its execution was never started."""
    CANCELLED = "CANCELLED"
    """It is closed, and a prompt of it may still run: its end was asked for once more."""
    SLOT_RETURNED = "SLOT_RETURNED"
    """It had a slot on an instance where it does not run, or one reserved, and waits no more."""


@dataclass
class SweepReport:
    """What one sweep did."""

    counts: Counter[SweepAction] = field(default_factory=Counter)
    job_ids: list[str] = field(default_factory=list)
    answered: list[Job] = field(default_factory=list)
    """Those of the jobs whose answer has gone out in this sweep."""
    errors: list[Exception] = field(default_factory=list)
    """Of jobs that could not be mended; each is due again in the next sweep."""


@dataclass(frozen=True)
class SweepJobs:
    """Looks at every job whose due time has come, and at every slot."""

    fleets: Mapping[str, Fleet]
    jobs: JobStore
    store: FleetStore
    runner: JobRunner
    finish: FinishJob
    canceller: PromptCanceller

    def sweep(self, now: datetime) -> SweepReport:
        """Mend what is due; one job that cannot be mended does not keep the others waiting."""
        report = SweepReport()
        for job_id in self.jobs.list_due(now, limit=_LIMIT):
            try:
                action = self._mend(job_id, now, report)
            except Exception as error:  # noqa: BLE001  (kept in the report, which the handler raises)
                report.errors.append(error)
                continue
            if action is not None:
                report.counts[action] += 1
                report.job_ids.append(job_id)
        for fleet in self.fleets:
            try:
                self._return_slots(fleet, report)
            except Exception as error:  # noqa: BLE001
                report.errors.append(error)
        return report

    def _mend(self, job_id: str, now: datetime, report: SweepReport) -> SweepAction | None:
        job = self.jobs.get(job_id)
        if job.due_at is None or job.due_at > now:
            return None  # the index lags behind the records
        if job.state.is_final:
            if job.published_at is None or job.needs_hand_off:
                finished = self._finish(job, None, now, report)
                return _tell_finished(job, finished)
            self.canceller.cancel_abandoned(job_id)
            return SweepAction.CANCELLED
        if job.state is JobState.ADMITTED:
            return self._restart(job, now, report)
        self._finish(job, _expired(job), now, report)
        return SweepAction.CLOSED

    def _restart(self, job: Job, now: datetime, report: SweepReport) -> SweepAction | None:
        if self.runner.is_running(job.job_id, job.run):
            return None  # it waits for a slot
        if self.runner.start(job.job_id, job.run):
            return SweepAction.RESTARTED
        self._finish(job, StepError("EXECUTION_LOST"), now, report)
        return SweepAction.CLOSED

    def _finish(self, job: Job, error: StepError | None, now: datetime, report: SweepReport) -> Job:
        finished = self.finish.finish(job.job_id, run=job.run, error=error, now=now)
        if finished.published_at == now:
            report.answered.append(finished)
        return finished

    def _return_slots(self, fleet: str, report: SweepReport) -> None:
        for instance in self.store.list_instances(fleet):
            for job_id in sorted(instance.jobs):
                if self._needs_slot(job_id, instance.key):
                    continue
                # Taken a moment ago, before the record says so? Then choose_instance finds it gone
                # and takes another: a slot too few for a moment, but never one too many for ever.
                self.store.release_slot(fleet, instance.key, job_id)
                report.counts[SweepAction.SLOT_RETURNED] += 1
                report.job_ids.append(job_id)
        for job_id in sorted(self.store.list_waiting(fleet)):
            if self._waits(job_id):
                continue
            # It was closed while it waited, or a crash came just after it was placed.
            self.store.stop_waiting(fleet, job_id)
            report.counts[SweepAction.SLOT_RETURNED] += 1
            report.job_ids.append(job_id)

    def _needs_slot(self, job_id: str, key: str) -> bool:
        job = self._find(job_id)
        return job is not None and job.instance == key and not job.state.is_final

    def _waits(self, job_id: str) -> bool:
        job = self._find(job_id)
        return job is not None and job.state is JobState.ADMITTED and not job.instance

    def _find(self, job_id: str) -> Job | None:
        try:
            return self.jobs.get(job_id)
        except JobNotFoundError:
            return None


def _tell_finished(before: Job, after: Job) -> SweepAction:
    if before.published_at is None:
        return SweepAction.PUBLISHED
    failed = after.hand_off is not None and after.hand_off.state is HandOffState.FAILED
    return SweepAction.HAND_OFF_FAILED if failed else SweepAction.HANDED_OFF


def _expired(job: Job) -> StepError:
    what = "start" if job.state is JobState.QUEUED else "end"
    return StepError(
        DeadlineExceededError.__name__,
        json.dumps({"errorMessage": f"The job did not {what} in time."}),
    )
