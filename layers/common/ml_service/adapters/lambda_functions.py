"""Calls from one function to another, by physical name."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_service.domain.errors import MlServiceError

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient


class FunctionFailedError(MlServiceError):
    """When a function that was called ended with an error of its own."""


class _Function:
    def __init__(self, client: "LambdaClient", function_name: str) -> None:
        self._client = client
        self._function_name = function_name

    def _call(self, **event: object) -> Any:
        """Wait for the function's answer; raises FunctionFailedError."""
        answer = self._client.invoke(FunctionName=self._function_name, Payload=json.dumps(event))
        result = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            raise FunctionFailedError(f"{self._function_name}: {result.get('errorType')}")
        return result

    def _call_later(self, **event: object) -> None:
        """Have the function called, and do not wait for it."""
        self._client.invoke(
            FunctionName=self._function_name, InvocationType="Event", Payload=json.dumps(event)
        )


class LambdaInstanceProbe(_Function):
    """Asks observe_instances, which alone can reach the instances' private addresses."""

    def count_prompts(self, addresses: Sequence[str]) -> Mapping[str, int | None]:
        """Prompts by address; raises FunctionFailedError."""
        readings: dict[str, int | None] = self._call(addresses=list(addresses))["readings"]
        return readings


class LambdaInstanceWarmer(_Function):
    """Invokes warm_instance, which alone can reach the instances, without waiting for it."""

    def warm_up(self, fleet: str, key: str) -> None:
        """Invoke it for one instance."""
        self._call_later(fleet=fleet, instance=key)


class LambdaAdmission(_Function):
    """Invokes admit_jobs without waiting for it."""

    def kick(self, fleet: str) -> None:
        """Invoke it for one fleet."""
        self._call_later(fleet=fleet)


class LambdaJobStopper(_Function):
    """Lets finish_job, the only way into a final state, close a job."""

    def stop(self, job_id: str, run: int) -> None:
        """Close a job's run as a stopped execution's; raises FunctionFailedError."""
        self._call(job_id=job_id, run=run, error={"Error": "ABORTED"})


class LambdaPromptCanceller(_Function):
    """Invokes cancel_prompt, which alone can reach the instances, without waiting for it."""

    def cancel_abandoned(self, job_id: str) -> None:
        """Invoke it for one job."""
        self._call_later(job_id=job_id)
