"""The backend's message for a workflow, made from the values of its named inputs."""

import json
from collections.abc import Mapping
from datetime import datetime

from ml_service.domain.errors import MlServiceError
from ml_service.domain.workflows import ChoiceInput, MediaInput, Workflow


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

    Without a job id the SQS message id becomes it.

    Inputs without a value are left out. Nothing is checked but the names (UnknownInputError): the
    service itself says what is wrong with a value.
    """
    unknown = values.keys() - workflow.inputs.keys()
    if unknown:
        raise UnknownInputError(
            f"{workflow.workflow} has no input {', '.join(sorted(unknown))}; "
            f"it has: {', '.join(workflow.inputs) or 'none'}."
        )
    payload: dict[str, object] = {
        "Env": stage,
        "S3Bucket": bucket,
        "GroupId": group_id,
        "PartialName": partial_name,
    }
    for name, value in values.items():
        declared = workflow.inputs[name]
        index = declared.index if isinstance(declared, MediaInput | ChoiceInput) else None
        if index is None:
            payload[declared.member] = value
        else:
            entries = payload.setdefault(declared.member, [])
            if not isinstance(entries, list):
                raise TypeError(f"{declared.member} is used as one value and as a list")
            entries.extend([None] * (index + 1 - len(entries)))
            entries[index] = value
    envelope = {"Subject": workflow.subject, "Payload": json.dumps(payload)}
    if job_id is not None:
        envelope["MessageId"] = job_id
    return json.dumps({**envelope, "Timestamp": at.isoformat()})
