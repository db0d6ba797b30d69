"""Executions of the state machine."""

import json
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from ml_service.domain.errors import ExecutionsThrottledError

if TYPE_CHECKING:
    from types_boto3_stepfunctions import SFNClient

_THROTTLES = frozenset({"ThrottlingException", "ExecutionLimitExceeded"})


class StepFunctionsJobRunner:
    """Starts runs under a name of their own, so that a repeat finds the first one."""

    def __init__(self, client: "SFNClient", state_machine_arn: str) -> None:
        self._client = client
        self._state_machine_arn = state_machine_arn

    def start(self, job_id: str, run: int) -> bool:
        """Start a run of a job, unless it was started before; False if it has ended.

        Raises ExecutionsThrottledError.
        """
        try:
            self._client.start_execution(
                stateMachineArn=self._state_machine_arn,
                name=_make_name(job_id, run),
                input=json.dumps({"job_id": job_id, "run": run}),
            )
        except self._client.exceptions.ExecutionAlreadyExists:
            return False  # while it runs, the same call is simply accepted
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _THROTTLES:
                raise ExecutionsThrottledError(code) from error
            raise
        return True

    def is_running(self, job_id: str, run: int) -> bool:
        """Whether a run's execution was started and has not ended."""
        machine = self._state_machine_arn.replace(":stateMachine:", ":execution:")
        try:
            execution = self._client.describe_execution(
                executionArn=f"{machine}:{_make_name(job_id, run)}"
            )
        except self._client.exceptions.ExecutionDoesNotExist:
            return False
        return execution["status"] == "RUNNING"


def _make_name(job_id: str, run: int) -> str:
    return f"{job_id}-{run}"
