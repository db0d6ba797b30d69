"""Whether a sample job's result is media, complete, and made from the job's own input."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from local.backend import Reply
from local.media_check import MediaCheckError, MediaFacts, check_color, check_media
from local.sample_jobs import SampleJob


@dataclass(frozen=True)
class ResultFile:
    """One file of a result."""

    content: bytes
    facts: MediaFacts


def check_result(
    job: SampleJob, reply: Reply, read_result: Callable[[str], bytes]
) -> dict[str, ResultFile]:
    """See that no file is missing, that each opens, and that the main one shows what went in.

    Gives the files by key; raises MediaCheckError.
    """
    expected = max(1, len(job.workflow.outputs.roles))
    if len(reply.keys) < expected:
        raise MediaCheckError(f"expected {expected} files, found {len(reply.keys)}")
    if not reply.data["MainKey"]:
        raise MediaCheckError("no file is the main one: none of several is named so")
    files = {}
    for key in reply.keys:
        if job.partial_name not in key:
            raise MediaCheckError(f"{key} belongs to another job")
        content = read_result(key)
        files[key] = ResultFile(content, check_media(content, kind=job.workflow.outputs.kind))
    main = files[reply.data["MainKey"]]
    if job.color is not None and job.workflow.outputs.kind != "audio":
        check_color(main.facts, job.color)
    if job.text is not None and json.dumps(job.text)[1:-1].encode() not in main.content:
        raise MediaCheckError("the prompt text is not in the picture")
    return files
