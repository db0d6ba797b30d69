"""Deploys a template on the embedded AWS: the stack on moto, and by API what moto's stacks lack."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from local.aws import transform_template as plans
from local.aws.clients import AwsClients
from local.aws.errors import TemplateError
from local.aws.gateway import FUNCTION_URLS_PATH
from local.aws.lambda_runtime import FunctionConfig
from local.aws.transform_template import FunctionFolders, HeldResource, StackPlan


@dataclass(frozen=True)
class StackSpec:
    """A template and how to deploy it here.

    ``environment_overrides`` replaces values of environment variables that a function declares.
    """

    name: str
    template_path: Path
    parameters: Mapping[str, str] = field(default_factory=dict)
    environment_overrides: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EventSourceMapping:
    """A queue that feeds a function; seconds and counts as in CloudFormation."""

    queue_arn: str
    function_name: str
    batch_size: int = 10
    window_seconds: int = 0
    maximum_concurrency: int = 5
    filter_patterns: tuple[str, ...] = ()
    reports_failures: bool = False


@dataclass(frozen=True)
class DeployedStack:
    """What a deployed template became."""

    outputs: Mapping[str, str]
    physical_ids: Mapping[str, str]
    functions: tuple[FunctionConfig, ...]
    event_source_mappings: tuple[EventSourceMapping, ...]
    state_machine_arns: Mapping[str, str]


def deploy_stack(
    spec: StackSpec, clients: AwsClients, known_types: frozenset[str], endpoint: str
) -> DeployedStack:
    """Create everything the template asks for; blocking.

    Queue URLs in environment variables become URLs on ``endpoint``. Raises TemplateError.
    """
    plan = plans.plan_stack(spec.template_path, spec.parameters, clients.region, known_types)
    values = _create_stack(spec, plan, clients)
    held = [
        (resource, plans.resolve_held(resource.properties, values))
        for resource in plan.held
        if resource.condition_key is None or resource.condition_key in values
    ]
    physical_ids = {
        logical_id: values[key]
        for logical_id in plan.template["Resources"]
        if (key := plans.physical_id_key(logical_id)) in values
    }
    for resource, properties in held:
        _create_by_api(clients, resource, properties)
    invoke_configs = {
        properties["FunctionName"]: properties
        for resource, properties in held
        if resource.type == plans.EVENT_INVOKE_CONFIG
    }
    urls = {
        resource.logical_id: (properties["TargetFunctionArn"].rpartition(":")[2], properties)
        for resource, properties in held
        if resource.type == plans.FUNCTION_URL
    }
    url_auths = {name: str(properties["AuthType"]) for name, properties in urls.values()}
    # What the transform leaves of a reference to the resource, and what it refers to here.
    url_outputs = {
        f"{logical_id}.FunctionUrl": f"{endpoint}{FUNCTION_URLS_PATH}{name}/"
        for logical_id, (name, _) in urls.items()
    }
    prefix = _queue_url_prefix(clients.region)
    return DeployedStack(
        outputs={
            key: url_outputs.get(value, value).replace(prefix, f"{endpoint}/")
            for key, value in values.items()
            if key in plan.own_outputs
        },
        physical_ids={
            key: value.replace(prefix, f"{endpoint}/") for key, value in physical_ids.items()
        },
        functions=tuple(
            _read_function(
                clients,
                physical_ids[logical_id],
                folders,
                invoke_config=invoke_configs.get(physical_ids[logical_id], {}),
                spec=spec,
                endpoint=endpoint,
                url_auth=url_auths.get(physical_ids[logical_id], ""),
            )
            for logical_id, folders in plan.functions.items()
        ),
        event_source_mappings=tuple(
            _read_event_source_mapping(properties)
            for resource, properties in held
            if resource.type == plans.EVENT_SOURCE_MAPPING
            and str(properties.get("Enabled", True)).lower() == "true"
        ),
        state_machine_arns={
            resource.logical_id: _create_state_machine(
                clients,
                physical_ids[resource.logical_id],
                plan.definitions[resource.logical_id],
                properties,
            )
            for resource, properties in held
            if resource.type == plans.STATE_MACHINE
        },
    )


def _create_stack(spec: StackSpec, plan: StackPlan, clients: AwsClients) -> dict[str, str]:
    declared = plan.template.get("Parameters", {})
    if unknown := sorted(set(spec.parameters) - set(declared)):
        raise TemplateError(f"{spec.template_path.name} has no parameter {', '.join(unknown)}")
    try:
        clients.cloudformation.create_stack(
            StackName=spec.name,
            TemplateBody=json.dumps(plan.template, separators=(",", ":")),
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value}
                for key, value in spec.parameters.items()
            ],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
        )
    except ClientError as error:
        raise TemplateError(f"{spec.template_path.name} cannot be deployed: {error}") from error
    stack = clients.cloudformation.describe_stacks(StackName=spec.name)["Stacks"][0]
    if stack["StackStatus"] != "CREATE_COMPLETE":
        raise TemplateError(
            f"{spec.template_path.name}: {stack['StackStatus']} "
            f"{stack.get('StackStatusReason', '')}"
        )
    return {
        output["OutputKey"]: output["OutputValue"]
        for output in stack.get("Outputs", [])
        if "OutputValue" in output
    }


def _read_function(
    clients: AwsClients,
    name: str,
    folders: FunctionFolders,
    *,
    invoke_config: Mapping[str, Any],
    spec: StackSpec,
    endpoint: str,
    url_auth: str,
) -> FunctionConfig:
    """Read a function back from moto, where its intrinsics are resolved."""
    answer = clients.functions.get_function(FunctionName=name)
    configuration = answer["Configuration"]
    variables = {
        key: spec.environment_overrides.get(
            key, value.replace(_queue_url_prefix(clients.region), f"{endpoint}/")
        )
        for key, value in configuration.get("Environment", {}).get("Variables", {}).items()
    }
    return FunctionConfig(
        name=name,
        arn=configuration["FunctionArn"],
        handler=configuration["Handler"],
        code_folder=folders.code,
        # A built layer has its packages in python/, a layer's source folder has them at its top.
        layer_folders=tuple(
            built if (built := layer / "python").is_dir() else layer for layer in folders.layers
        ),
        # Who is given a presigned URL knows no other address than the gateway's.
        environment=variables | ({"AWS_ENDPOINT_URL_S3": endpoint} if url_auth else {}),
        timeout_seconds=configuration["Timeout"],
        memory_mb=configuration["MemorySize"],
        reserved_concurrency=answer.get("Concurrency", {}).get("ReservedConcurrentExecutions"),
        retry_attempts=int(invoke_config.get("MaximumRetryAttempts", 2)),
        on_success=_read_destination(invoke_config),
        url_auth=url_auth,
    )


def _read_destination(invoke_config: Mapping[str, Any]) -> str | None:
    """Give the name of the function that is told of successes, None if none is."""
    on_success = invoke_config.get("DestinationConfig", {}).get("OnSuccess")
    if on_success is None:
        return None
    destination = str(on_success["Destination"])
    if ":function:" not in destination:
        raise TemplateError(f"destination {destination} is not a function")
    return destination.rpartition(":")[2]


def _queue_url_prefix(region: str) -> str:
    """Give how the queue URLs begin that moto's CloudFormation makes, on a host that nobody has."""
    return f"https://sqs.{region}.amazonaws.com/"


def _read_event_source_mapping(properties: Mapping[str, Any]) -> EventSourceMapping:
    queue_arn = str(properties["EventSourceArn"])
    if ":sqs:" not in queue_arn:
        raise TemplateError(f"event source {queue_arn} is not an SQS queue")
    concurrency = properties.get("ScalingConfig", {}).get("MaximumConcurrency")
    return EventSourceMapping(
        queue_arn=queue_arn,
        function_name=str(properties["FunctionName"]).rpartition(":")[2],
        batch_size=int(properties.get("BatchSize", 10)),
        window_seconds=int(properties.get("MaximumBatchingWindowInSeconds", 0)),
        maximum_concurrency=int(concurrency or EventSourceMapping.maximum_concurrency),
        filter_patterns=tuple(
            entry["Pattern"] for entry in properties.get("FilterCriteria", {}).get("Filters", [])
        ),
        reports_failures="ReportBatchItemFailures" in properties.get("FunctionResponseTypes", []),
    )


def _create_state_machine(
    clients: AwsClients, arn: str, definition: str, properties: Mapping[str, Any]
) -> str:
    """Create the real state machine in moto's interpreter, under the ARN that the stack gave."""
    try:
        created = clients.stepfunctions.create_state_machine(
            name=arn.rpartition(":")[2],
            definition=plans.fill_definition(definition, properties.get("Substitutions", {})),
            roleArn=properties["RoleArn"],
            type=properties["Type"],
        )
    except ClientError as error:
        raise TemplateError(f"state machine {arn}: {error}") from error
    return created["stateMachineArn"]


def _create_by_api(
    clients: AwsClients, resource: HeldResource, properties: Mapping[str, Any]
) -> None:
    """Create what moto's API has but its CloudFormation has not."""
    match resource.type:
        case plans.WARM_POOL:
            clients.autoscaling.put_warm_pool(**_with_numbers(properties))
        case plans.LIFECYCLE_HOOK:
            clients.autoscaling.put_lifecycle_hook(**_with_numbers(properties))
        case plans.ALARM:
            clients.cloudwatch.put_metric_alarm(**_read_alarm(resource, properties))
        case plans.SUBSCRIPTION:
            names = ("TopicArn", "Protocol", "Endpoint")
            clients.sns.subscribe(
                **{name: properties[name] for name in names},
                Attributes={
                    name: value if isinstance(value, str) else json.dumps(value)
                    for name, value in properties.items()
                    if name not in names
                },
            )


def _read_alarm(resource: HeldResource, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Give an alarm its types: a parameter's number and a condition's choice come as text."""
    enabled = str(properties.get("ActionsEnabled", True)).lower() == "true"
    return {
        "AlarmName": resource.logical_id,
        **properties,
        "Threshold": float(properties["Threshold"]),
        "ActionsEnabled": enabled,
    }


def _with_numbers(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the numbers that a template writes as text into numbers, as boto3 wants them."""
    return {
        key: int(value) if isinstance(value, str) and value.isdigit() else value
        for key, value in properties.items()
    }
