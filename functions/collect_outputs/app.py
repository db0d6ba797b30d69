"""collect_outputs: streams a succeeded prompt's files into the result bucket."""

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.bootstrap import make_collect_outputs

logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Collect the job's output files."""
    job = make_collect_outputs().collect(event["job_id"])
    logger.info(
        "outputs collected",
        extra={"job_id": job.job_id, "fleet": job.fleet, "files": len(job.result_keys)},
    )
    return {"status": "COLLECTED"}
