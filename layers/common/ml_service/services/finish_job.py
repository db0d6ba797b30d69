"""finish_job: the only way into a final state, and the one final answer that goes with it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ml_service.domain.errors import JOB_ERRORS, DeadlineExceededError
from ml_service.domain.jobs import Failure, Job, JobState
from ml_service.domain.manifests import OutputRole
from ml_service.domain.replies import make_error_reply, make_success_reply
from ml_service.domain.results import assign_roles
from ml_service.domain.workflows import WorkflowCatalog
from ml_service.ports import Admission, FleetStore, JobStore, PromptCanceller, ReplyTopic
from ml_service.services.hand_off_video import HandOffVideo
from ml_service.services.publish_reply import publish_reply
from ml_service.services.update_job import update_job


@dataclass(frozen=True)
class StepError:
    """The error of a step as Step Functions passes it on."""

    name: str
    cause: str = ""
    """JSON text of the function's error, with errorMessage in it, where a function raised it."""


@dataclass(frozen=True)
class FinishJob:
    """Closes a job, publishes its reply, gives its slot back, wakes admission."""

    catalog: WorkflowCatalog
    jobs: JobStore
    store: FleetStore
    topic: ReplyTopic
    admission: Admission
    canceller: PromptCanceller
    hand_off: HandOffVideo
    result_bucket: str

    def finish(self, job_id: str, *, run: int, error: StepError | None, now: datetime) -> Job:
        """Finish a job's run; on one that is closed already only what was left undone is done.

        Nothing is done to a job whose next run an operator has begun meanwhile.
        """

        def close(job: Job) -> Job:
            if job.run != run or job.state.is_final:
                return job
            return self._close(job, error, now)

        job = update_job(self.jobs, job_id, close)
        if job.run != run:
            return job
        if job.instance:
            self.store.release_slot(
                job.fleet, job.instance, job_id, worked=job.state is JobState.SUCCEEDED
            )
        job = publish_reply(job, jobs=self.jobs, topic=self.topic, now=now)
        if job.abandoned:
            self.canceller.cancel_abandoned(job_id)
        if job.fleet:
            self.admission.kick(job.fleet)
        # Last: whatever becomes of it, the backend has its result and the fleet its slot.
        if job.needs_hand_off:
            main_key = self._assign_roles(job).get(OutputRole.MAIN)
            job = self.hand_off.hand_off(job, main_key=main_key)
        return job

    def _close(self, job: Job, error: StepError | None, now: datetime) -> Job:
        # What lies in the bucket is a success, even if the execution broke after it.
        if job.result_keys:
            reply = make_success_reply(
                job_id=job.job_id,
                run=job.run,
                partial_name=job.partial_name,
                bucket=self.result_bucket,
                roles=self._assign_roles(job),
                at=now,
            )
            return job.close(JobState.SUCCEEDED, reply=reply, at=now)
        state, failure = explain_error(error)
        reply = make_error_reply(
            job_id=job.job_id,
            run=job.run,
            partial_name=job.partial_name,
            sentence=failure.sentence,
            at=now,
        )
        return job.close(state, reply=reply, at=now, failure=failure)

    def _assign_roles(self, job: Job) -> Mapping[OutputRole, str]:
        return assign_roles(
            job.result_keys,
            self.catalog.workflow(job.workflow).outputs.role_patterns,
            output_prefix=job.inputs.output_prefix if job.inputs else "",
        )


def explain_error(error: StepError | None) -> tuple[JobState, Failure]:
    """The final state and the failure that a step's or an execution's error stands for."""
    if error is not None and error.name in JOB_ERRORS:
        state = (
            JobState.EXPIRED if error.name == DeadlineExceededError.__name__ else JobState.FAILED
        )
        failure = Failure(code=JOB_ERRORS[error.name].code, sentence=_read_sentence(error.cause))
        return state, failure
    if error is not None and error.name == "TIMED_OUT":
        return JobState.EXPIRED, Failure(
            code="EXECUTION_TIMED_OUT", sentence="The job did not end in time."
        )
    if error is not None and error.name == "ABORTED":
        return JobState.CANCELLED, Failure(
            code="EXECUTION_ABORTED", sentence="The job was stopped by an operator."
        )
    if error is not None and error.name == "EXECUTION_LOST":
        return JobState.FAILED, Failure(
            code="EXECUTION_LOST", sentence="The job's execution ended without an answer."
        )
    # The cause may hold anything, so nothing of it goes to the backend.
    return JobState.FAILED, Failure(
        code="INTERNAL_ERROR", sentence="The job failed through a fault of the service."
    )


def _read_sentence(cause: str) -> str:
    try:
        sentence = json.loads(cause)["errorMessage"]
    except (ValueError, TypeError, KeyError):
        return "The job failed."
    return str(sentence)
