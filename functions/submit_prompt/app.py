"""submit_prompt: uploads a job's inputs and posts its prompt."""

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.bootstrap import make_submit_prompt

logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Submit the prompt of the job's present attempt."""
    job = make_submit_prompt().submit(event["job_id"])
    logger.info(
        "prompt submitted",
        extra={
            "job_id": job.job_id,
            "fleet": job.fleet,
            "workflow": job.workflow,
            "instance_id": job.instance_id,
            "prompt_id": job.prompt_id,
        },
    )
    return {"status": "SUBMITTED"}
