"""Whether a sample job's result is media, complete, and made from the job's own input."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from local.backend import Reply
from local.media_check import MediaCheckError, MediaFacts, check_color, check_media
from local.sample_jobs import SampleJob
from ml_service.domain.manifests import TextInput


@dataclass(frozen=True)
class ResultFile:
    """One file of a result."""

    content: bytes
    facts: MediaFacts


def check_result(
    job: SampleJob, reply: Reply, read_result: Callable[[str], bytes]
) -> dict[str, ResultFile]:
    """See that every role has a file, that each opens, and that the main one shows what went in.

    Gives the files by key; raises MediaCheckError.
    """
    expected = max(1, len(job.workflow.outputs.roles))
    if len(reply.keys) != expected:
        raise MediaCheckError(f"expected {expected} files, found {len(reply.keys)}")
    files = {}
    for key in reply.keys:
        if job.partial_name not in key:
            raise MediaCheckError(f"{key} belongs to another job")
        content = read_result(key)
        files[key] = ResultFile(content, check_media(content, kind=job.workflow.outputs.kind))
    main = files[reply.data["MainKey"]]
    if job.color is not None and job.workflow.outputs.kind != "audio":
        check_color(main.facts, job.color)
    if _shows_text(job) and json.dumps(job.text)[1:-1].encode() not in main.content:
        raise MediaCheckError("the prompt text is not in the picture")
    return files


def _shows_text(job: SampleJob) -> bool:
    """Whether the result is a picture that ComfyUI wrote: it puts the prompt into it."""
    outputs = job.workflow.outputs
    has_text = any(isinstance(declared, TextInput) for declared in job.workflow.inputs.values())
    return has_text and outputs.kind == "image" and outputs.convert is None
