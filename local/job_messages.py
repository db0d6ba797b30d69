"""The message for a workflow, made from the values of its named inputs."""

import json
from collections.abc import Mapping
from datetime import datetime

from ml_service.domain.errors import MlServiceError
from ml_service.domain.manifests import MediaInput, Workflow


class UnknownInputError(MlServiceError):
    """When a value is given for an input that the workflow does not have."""


def make_message(
    workflow: Workflow,
    values: Mapping[str, object],
    *,
    job_id: str | None,
    partial_name: str,
    bucket: str,
    stage: str,
    at: datetime,
    group_id: int = 42,
) -> str:
    """The body for the input queue; the value of a file is its key in ``bucket``.

    It is the backend's message, or a native one for a workflow that has no subject. Without a job
    id the SQS message id becomes it.

    Inputs without a value are left out. Nothing is checked but the names (UnknownInputError): the
    service itself says what is wrong with a value.
    """
    unknown = values.keys() - workflow.inputs.keys()
    if unknown:
        raise UnknownInputError(
            f"{workflow.workflow} has no input {', '.join(sorted(unknown))}; "
            f"it has: {', '.join(workflow.inputs) or 'none'}."
        )
    if not workflow.subjects:
        return _make_native_message(workflow, values, job_id=job_id, bucket=bucket)
    payload: dict[str, object] = {
        "Env": stage,
        "S3Bucket": bucket,
        "GroupId": group_id,
        "PartialName": partial_name,
    }
    for name, value in values.items():
        declared = workflow.inputs[name]
        member, index = declared.member_of(name), declared.index
        if index is None:
            payload[member] = value
        else:
            entries = payload.setdefault(member, [])
            if not isinstance(entries, list):
                raise TypeError(f"{member} is used as one value and as a list")
            entries.extend([None] * (index + 1 - len(entries)))
            entries[index] = value
    envelope = {"Subject": workflow.subjects[0], "Payload": json.dumps(payload)}
    if job_id is not None:
        envelope["MessageId"] = job_id
    return json.dumps({**envelope, "Timestamp": at.isoformat()})


def _make_native_message(
    workflow: Workflow, values: Mapping[str, object], *, job_id: str | None, bucket: str
) -> str:
    inputs = {
        name: {"bucket": bucket, "key": value}
        if isinstance(workflow.inputs[name], MediaInput)
        else value
        for name, value in values.items()
    }
    message: dict[str, object] = {"workflow": workflow.workflow, "inputs": inputs}
    if job_id is not None:
        message["job_id"] = job_id
    return json.dumps(message)
