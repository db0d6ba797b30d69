"""await_prompt: looks at a prompt, and stays with it when its end may be near."""

from dataclasses import asdict
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.bootstrap import make_await_prompt

logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Tell where the job's prompt stands."""
    awaited = make_await_prompt().await_prompt(event["job_id"])
    logger.info(
        "prompt awaited",
        extra={
            "job_id": awaited.job.job_id,
            "fleet": awaited.job.fleet,
            "status": awaited.status,
            "progress": asdict(awaited.progress) if awaited.progress else None,
            "stall": awaited.stall,
            "moved": awaited.moved,
            "instance_id": awaited.job.instance_id,
            "prompt_id": awaited.job.prompt_id,
        },
    )
    return {"status": awaited.status, "wait_seconds": awaited.wait_seconds}
