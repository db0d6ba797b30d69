"""What the backend gets: one CloudEvents-shaped envelope with a JSON string in ``data``."""

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from ml_service.domain.manifests import OutputRole

_CONTRACT = "Frever.Client.Shared.AI.ComfyUi.Contract"
_NAMESPACE = uuid.UUID("0b7c1e60-9a54-4d7e-8a34-5f1f7b3f2c55")


def make_success_reply(
    *,
    job_id: str,
    run: int,
    partial_name: str,
    bucket: str,
    roles: Mapping[OutputRole, str],
    at: datetime,
) -> str:
    """The reply of a job that succeeded; a role with no file is an empty string."""
    data = {
        "Bucket": bucket,
        "PartialName": partial_name,
        "MainKey": roles.get(OutputRole.MAIN, ""),
        "CoverKey": roles.get(OutputRole.COVER, ""),
        "ThumbnailKey": roles.get(OutputRole.THUMBNAIL, ""),
        "MaskKey": roles.get(OutputRole.MASK, ""),
    }
    return _make_envelope("ComfyUiResult", job_id, run, data, at)


def make_error_reply(
    *, job_id: str, run: int = 1, partial_name: str, sentence: str, at: datetime
) -> str:
    """The reply of a job that did not succeed; the sentence is for a person."""
    return _make_envelope(
        "ComfyUiError", job_id, run, {"PartialName": partial_name, "Error": sentence}, at
    )


def _make_envelope(
    source: str, job_id: str, run: int, data: Mapping[str, str], at: datetime
) -> str:
    return json.dumps(
        {
            # The same for every repeat of this reply, so that a receiver can tell a repeat; another
            # for the answer of the job's next run, so that it does not take that for one.
            "id": str(uuid.uuid5(_NAMESPACE, f"{job_id}/{run}")),
            "source": source,
            "specversion": "1.0",
            "type": f"{_CONTRACT}.{source}",
            "time": at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "data": json.dumps(data),
        }
    )
