"""observe_instances: in the instances' network, it asks each for its queue length."""

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.bootstrap import make_observe_instances

logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take the readings of the addresses in the event; null where there was no answer."""
    return {"readings": make_observe_instances().observe(event["addresses"])}
