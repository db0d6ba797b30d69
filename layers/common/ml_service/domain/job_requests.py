"""What a message asks for, whatever its form: a workflow, with inputs that fit its manifest."""

from collections.abc import Collection, Container
from dataclasses import dataclass
from datetime import datetime, timedelta

from ml_service.domain.hand_offs import HandOff, read_hand_off
from ml_service.domain.inputs import JobInputs, resolve_inputs, resolve_native_inputs
from ml_service.domain.jobs import RECORD_LIFETIME, Job, JobState, make_fingerprint
from ml_service.domain.manifests import Workflow
from ml_service.domain.messages import Message, NativeMessage, parse_message
from ml_service.domain.workflows import WorkflowCatalog


@dataclass(frozen=True)
class JobRequest:
    """A message that can become a job."""

    job_id: str
    subject: str
    """Empty for a native message."""
    partial_name: str
    """What the reply carries; of a native message the job id."""
    workflow: Workflow
    inputs: JobInputs
    fingerprint: str
    deadline_seconds: int
    hand_off: HandOff | None = None

    def make_job(self, *, now: datetime, seed: int, request_digest: str = "") -> Job:
        """The record that the job begins with; ``seed`` counts if the request gives none."""
        workflow = self.workflow
        return Job(
            job_id=self.job_id,
            state=JobState.QUEUED,
            subject=self.subject,
            partial_name=self.partial_name,
            fingerprint=self.fingerprint,
            request_digest=request_digest,
            received_at=now,
            deadline=now + timedelta(seconds=self.deadline_seconds),
            expires_at=int((now + RECORD_LIFETIME).timestamp()),
            workflow=workflow.workflow,
            fleet=workflow.fleet,
            inputs=self.inputs,
            seed=seed if self.inputs.seed is None else self.inputs.seed,
            conversion=workflow.outputs.convert,
            hand_off=self.hand_off,
            run_seconds=workflow.run_seconds,
            attempt_seconds=workflow.attempt_limit_seconds,
            expected_seconds=workflow.expected_seconds,
        )


def read_job_request(
    body: str,
    *,
    sqs_message_id: str,
    catalog: WorkflowCatalog,
    input_buckets: Container[str],
    hand_off_buckets: Container[str] = (),
    hand_off_queue_arns: Collection[str] = (),
) -> JobRequest:
    """Read the body of a message on the input queue; raises RefusedMessageError."""
    message = parse_message(body, sqs_message_id=sqs_message_id)
    if isinstance(message, NativeMessage):
        workflow = (
            catalog.choose_by_file(message.prompt_file)
            if message.prompt_file
            else catalog.choose(message.workflow)
        )
        inputs = resolve_native_inputs(
            workflow, message.inputs, job_id=message.job_id, input_buckets=input_buckets
        )
        return JobRequest(
            job_id=message.job_id,
            subject="",
            partial_name=message.job_id,
            workflow=workflow,
            inputs=inputs,
            fingerprint=make_fingerprint(workflow.workflow, message.inputs),
            deadline_seconds=message.deadline_seconds or workflow.deadline_seconds,
        )
    workflow = catalog.classify(message.subject, message.payload)
    inputs = resolve_inputs(
        workflow,
        message.payload,
        partial_name=message.partial_name,
        input_buckets=input_buckets,
    )
    return JobRequest(
        job_id=message.job_id,
        subject=message.subject,
        partial_name=message.partial_name,
        workflow=workflow,
        inputs=inputs,
        fingerprint=make_fingerprint(message.subject, message.payload),
        deadline_seconds=workflow.deadline_seconds,
        hand_off=read_hand_off(
            message.payload.get(member),
            label=member,
            buckets=hand_off_buckets,
            queue_arns=hand_off_queue_arns,
        )
        if (member := workflow.outputs.hand_off_member)
        else None,
    )


def is_made_of(job: Job, message: Message | NativeMessage) -> bool:
    """Whether a job is the message's own, and not only under the same id."""
    if isinstance(message, NativeMessage):
        named = message.workflow or job.workflow
        return job.fingerprint == make_fingerprint(named, message.inputs)
    return job.fingerprint == make_fingerprint(message.subject, message.payload)
