"""cancel_prompt: asked for whenever a prompt is left behind; it alone reaches the instances."""

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.bootstrap import make_cancel_prompt, make_clock

logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """End the job's abandoned prompts."""
    job = make_cancel_prompt().cancel(event["job_id"], now=make_clock().now())
    logger.info(
        "prompts cancelled",
        extra={
            "job_id": job.job_id,
            "fleet": job.fleet,
            "left": [prompt.prompt_id for prompt in job.abandoned],
        },
    )
