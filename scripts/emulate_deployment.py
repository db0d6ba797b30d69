"""Deploys both templates with `sam deploy` on ministack, an AWS emulator of others: `make emulate`.

What local mode and the tests know of CloudFormation is our own reading of it. This one is not: it
has its own transform, resolves every reference itself, and fails on what it does not understand.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import requests

from local.aws.read_template import read_template
from local.backend import choose_client_options
from scripts.build_application import ROOT, SAM, TEMPLATE, BuildError, build_application
from scripts.transform_template import transform_template

MINISTACK = ROOT / ".venv-ministack" / "bin" / "ministack"
FLEETS_TEMPLATE = ROOT / "fleets" / "template.yaml"
BUILT_TEMPLATE = ROOT / ".aws-sam" / "build" / "template.yaml"
REGION = "us-east-1"
UNKNOWN_TYPES = {
    "AWS::AutoScaling::WarmPool",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::Logs::QueryDefinition",
}
"""Types that ministack 1.5.33 refuses: they are taken out of what it gets, and named."""
_START_SECONDS = 30
# SAM ends the name of a layer with a hash of its content, which is another one before the build.
_HASH = re.compile(r"(?<=Layer)[0-9a-f]{10}$")


def is_known(resource: Mapping[str, Any]) -> bool:
    """Whether ministack makes such a resource; of alarms, it makes none with metric math."""
    has_math = resource["Type"] == "AWS::CloudWatch::Alarm" and "Metrics" in resource["Properties"]
    return resource["Type"] not in UNKNOWN_TYPES and not has_math


def list_expected(template: Mapping[str, Any]) -> dict[str, str]:
    """Type by logical id of everything that a plain template makes with all its options on."""
    return {
        _HASH.sub("", name): resource["Type"]
        for name, resource in template["Resources"].items()
        if is_known(resource)
    }


def find_faults(expected: Mapping[str, str], found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each resource that is missing, unexpected, of another type or not complete."""
    made = {_HASH.sub("", resource["LogicalResourceId"]): resource for resource in found}
    for name in sorted(expected.keys() - made.keys()):
        yield f"{name} ({expected[name]}) was not made"
    for name in sorted(made.keys() - expected.keys()):
        yield f"{name} was made and is not in the template"
    for name in sorted(expected.keys() & made.keys()):
        status, kind = made[name]["ResourceStatus"], made[name]["ResourceType"]
        if (status, kind) != ("CREATE_COMPLETE", expected[name]):
            yield f"{name} is a {kind} and {status}, not a complete {expected[name]}"
        elif not made[name].get("PhysicalResourceId"):
            yield f"{name} has no physical id"


def write_known(template: Mapping[str, Any], path: Path) -> None:
    """Write a template without the types that ministack does not know."""
    known = {
        name: resource for name, resource in template["Resources"].items() if is_known(resource)
    }
    path.write_text(json.dumps({**template, "Resources": known}), encoding="utf-8")


@contextmanager
def running_ministack(folder: Path) -> Iterator[Mapping[str, str]]:
    """An empty ministack on a free port; gives the environment in which AWS's tools use it.

    It listens on every address of this machine, as long as it runs.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = {
        **own,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": REGION,
        "SAM_CLI_TELEMETRY": "0",
    }
    with (folder / "ministack.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [MINISTACK],
            env={**own, "GATEWAY_PORT": str(port), "MINISTACK_HOST": "127.0.0.1"},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _await_answer(endpoint, process)
            yield environment
        finally:
            process.terminate()
            process.wait(timeout=_START_SECONDS)


def _await_answer(endpoint: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            requests.get(f"{endpoint}/_ministack/health", timeout=1).raise_for_status()
        except requests.RequestException:
            time.sleep(0.2)
        else:
            return
    raise BuildError("ministack does not come up")


class Emulation:
    """Deployments on one ministack."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._options = choose_client_options(environment["AWS_ENDPOINT_URL"], REGION)

    def make_network(self) -> tuple[str, str]:
        """Ids of a VPC and, separated by a comma, of the two subnets that a load balancer needs."""
        ec2 = boto3.client("ec2", **self._options)
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(
                VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{REGION}{zone}"
            )["Subnet"]["SubnetId"]
            for number, zone in enumerate("ab")
        ]
        return vpc, ",".join(subnets)

    def deploy(self, config_env: str, template: Path, parameters: Mapping[str, str]) -> None:
        """`sam deploy` as samconfig.toml has it, with values for what stands in brackets there."""
        command: list[str | Path] = [
            SAM,
            "deploy",
            *("--config-file", ROOT / "samconfig.toml", "--config-env", config_env),
            *("--template-file", template, "--region", REGION, "--no-confirm-changeset"),
            "--parameter-overrides",
            *(f"{name}={value}" for name, value in parameters.items()),
        ]
        result = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise BuildError(f"sam deploy --config-env {config_env}:\n{result.stdout}")

    def compare(self, stack: str, expected: Mapping[str, str]) -> Mapping[str, str]:
        """The stack's outputs; raises BuildError unless every resource is there and complete."""
        cloudformation = boto3.client("cloudformation", **self._options)
        pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
        found = [resource for page in pages for resource in page["StackResourceSummaries"]]
        if faults := list(find_faults(expected, found)):
            raise BuildError(f"{stack}:\n" + "\n".join(faults))
        (described,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
        print(f"{stack}: {described['StackStatus']}, {len(found)} resources", flush=True)
        return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}


def emulate_deployment(emulation: Emulation, folder: Path) -> None:
    """Deploy prod and the fleets with every option switched on; raises BuildError."""
    vpc, subnets = emulation.make_network()
    application = BUILT_TEMPLATE.with_name("known-to-ministack.json")
    write_known(read_template(BUILT_TEMPLATE), application)
    emulation.deploy(
        "prod",
        application,
        {
            "Stage": "prod",
            "VpcId": vpc,
            "PrivateSubnetIds": subnets,
            "SenderAccountIds": "111111111111",
            "SubscriberAccountIds": "222222222222",
            "InputBuckets": "some-inputs",
            "MediaConvertBuckets": "some-videos",
            "MediaConvertQueueArns": f"arn:aws:sqs:{REGION}:111111111111:convert",
            "AlarmEmail": "someone@example.org",
            "LambdaUrlAuthType": "NONE",
            "ResultApiCidr": "10.0.0.0/16",
            "ResultBucketName": "some-results",
        },
    )
    outputs = emulation.compare("prod-ml-service", list_expected(transform_template(TEMPLATE)))
    source = read_template(FLEETS_TEMPLATE)
    fleets = folder / "fleets.json"
    write_known(source, fleets)
    security_group = outputs["FunctionsSecurityGroupId"]
    emulation.deploy(
        "fleets",
        fleets,
        {
            "VpcId": vpc,
            "SubnetIds": subnets,
            "FunctionsSecurityGroupId": security_group,
            "DevFunctionsSecurityGroupId": security_group,
            "MakeEndpoints": "true",
            "ModelBucketName": "some-models",
            "NotificationEmail": "someone@example.org",
            "BusyHoursStart": '"0 7 * * MON-FRI"',
            **{f"{prefix}ImageId": "ami-0abc" for prefix in ("LipSync", "Pulid", "Makeup")},
        },
    )
    emulation.compare("ml-service-fleets", list_expected(source))
    left_out = ", ".join([*sorted(UNKNOWN_TYPES), "alarms with metric math"])
    print(f"Left out, since ministack does not know them: {left_out}.")


def main() -> int:
    """Build, deploy on a fresh ministack, compare; 1 with the reason if anything is missing."""
    with tempfile.TemporaryDirectory(prefix="ml-service-emulation-") as name:
        folder = Path(name)
        try:
            build_application()
            with running_ministack(folder) as environment:
                emulate_deployment(Emulation(environment), folder)
        except BuildError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
