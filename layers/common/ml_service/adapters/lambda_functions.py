"""Calls from one function to another, by physical name."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ml_service.domain.errors import MlServiceError

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient


class FunctionFailedError(MlServiceError):
    """When a function that was called ended with an error of its own."""


class LambdaInstanceProbe:
    """Asks observe_instances, which alone can reach the instances' private addresses."""

    def __init__(self, client: "LambdaClient", function_name: str) -> None:
        self._client = client
        self._function_name = function_name

    def count_prompts(self, addresses: Sequence[str]) -> Mapping[str, int | None]:
        """Prompts by address; raises FunctionFailedError."""
        answer = self._client.invoke(
            FunctionName=self._function_name,
            Payload=json.dumps({"addresses": list(addresses)}),
        )
        result = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            raise FunctionFailedError(f"{self._function_name}: {result.get('errorType')}")
        readings: dict[str, int | None] = result["readings"]
        return readings


class LambdaAdmission:
    """Invokes admit_jobs without waiting for it."""

    def __init__(self, client: "LambdaClient", function_name: str) -> None:
        self._client = client
        self._function_name = function_name

    def kick(self, fleet: str) -> None:
        """Invoke it for one fleet."""
        self._client.invoke(
            FunctionName=self._function_name,
            InvocationType="Event",
            Payload=json.dumps({"fleet": fleet}),
        )


class LambdaJobStopper:
    """Lets finish_job, the only way into a final state, close a job."""

    def __init__(self, client: "LambdaClient", function_name: str) -> None:
        self._client = client
        self._function_name = function_name

    def stop(self, job_id: str, run: int) -> None:
        """Close a job's run as a stopped execution's; raises FunctionFailedError."""
        answer = self._client.invoke(
            FunctionName=self._function_name,
            Payload=json.dumps({"job_id": job_id, "run": run, "error": {"Error": "ABORTED"}}),
        )
        if "FunctionError" in answer:
            result = json.loads(answer["Payload"].read())
            raise FunctionFailedError(f"{self._function_name}: {result.get('errorType')}")


class LambdaPromptCanceller:
    """Invokes cancel_prompt, which alone can reach the instances, without waiting for it."""

    def __init__(self, client: "LambdaClient", function_name: str) -> None:
        self._client = client
        self._function_name = function_name

    def cancel_abandoned(self, job_id: str) -> None:
        """Invoke it for one job."""
        self._client.invoke(
            FunctionName=self._function_name,
            InvocationType="Event",
            Payload=json.dumps({"job_id": job_id}),
        )
