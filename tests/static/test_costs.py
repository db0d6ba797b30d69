"""What is counted, and what a bill makes of it."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from local.aws.count_calls import CALLS_PATH, CallCounter, describe_call
from scripts.count_calls import Usage, count_metrics
from scripts.print_costs import (
    AWAIT_GB,
    COSTS,
    INDEXES,
    VOLUME_MBPS,
    Bill,
    Row,
    estimate_jobs,
    estimate_rest,
    format_table,
)

_SIGNED = "AWS4-HMAC-SHA256 Credential=local/20261121/us-east-1/{}/aws4_request, Signature=x"


def make_environment(service: str, **changes: str) -> dict[str, Any]:
    return {
        "PATH_INFO": "/",
        "REQUEST_METHOD": "POST",
        "HTTP_AUTHORIZATION": _SIGNED.format(service),
        "HTTP_USER_AGENT": "Boto3/1.43 exec-env/AWS_Lambda_python3.13",
        **changes,
    }


@pytest.mark.parametrize(
    ("environment", "described"),
    [
        (
            make_environment("dynamodb", HTTP_X_AMZ_TARGET="DynamoDB_20120810.UpdateItem"),
            "dynamodb UpdateItem",
        ),
        (make_environment("s3", REQUEST_METHOD="PUT"), "s3 PUT"),
        (make_environment("sns"), "sns POST"),
    ],
)
def test_a_call_is_known_by_service_and_operation(
    environment: dict[str, Any], described: str
) -> None:
    assert describe_call(environment) == described


def test_only_functions_calls_are_counted() -> None:
    """Local mode's own clients, pollers and the console cost nobody anything."""
    counter = CallCounter(lambda environment, start_response: [b"answer"])

    def request(environment: dict[str, Any]) -> bytes:
        return b"".join(counter(environment, lambda status, headers: None))

    assert request(make_environment("sns")) == b"answer"
    assert request(make_environment("sns", HTTP_USER_AGENT="Boto3/1.43")) == b"answer"
    assert yaml.safe_load(request({"PATH_INFO": CALLS_PATH})) == {"sns POST": 1}


def test_what_idle_minutes_would_have_used_is_not_the_jobs() -> None:
    rest = Usage(10, {"dynamodb GetItem": 50})
    load = Usage(12, {"dynamodb GetItem": 70, "sns POST": 3}).since(
        Usage(10, {"dynamodb GetItem": 10})
    )

    assert load.without_rest(rest) == {"dynamodb GetItem": 50, "sns POST": 3}


@pytest.fixture
def bill() -> Bill:
    return Bill(
        {
            "lambda": {"request": 1, "gb_second": 10},
            "dynamodb": {"write_unit": 1, "read_unit": 10},
            "sqs": {"request": 1},
            "sns": {"publish": 1},
            "s3": {"put": 1, "get": 10},
        }
    )


@pytest.mark.parametrize(
    ("amounts", "what", "dollars"),
    [
        pytest.param({"lambda calls": 2, "lambda gb_seconds": 3}, "Lambda", 64, id="lambda"),
        pytest.param({"dynamodb PutItem": 1}, "DynamoDB", 8, id="large-item"),
        pytest.param(
            {"dynamodb UpdateItem": 1, "dynamodb Query": 1}, "DynamoDB", 22, id="small-item"
        ),
        pytest.param({"sqs SendMessageBatch": 1, "sqs of the mapping": 4}, "SQS", 10, id="sqs"),
        pytest.param({"s3 PUT": 1, "s3 HEAD": 1}, "S3", 22, id="s3"),
        pytest.param({"ec2 POST": 5}, "SNS", None, id="free-calls"),
    ],
)
def test_calls_become_dollars(
    bill: Bill, amounts: dict[str, float], what: str, dollars: float | None
) -> None:
    rows = bill.list_calls(amounts, times=2, put_units=4)
    assert {row.what: row.dollars for row in rows}.get(what) == dollars


def test_a_table_ends_with_its_sum() -> None:
    rows = [Row("a", "1 call", 0.125), Row("b", "2 calls", 1000)]
    assert format_table("things", rows).splitlines()[-2:] == [
        "| b | 2 calls | 1,000.00 |",
        "| **sum** | | **1,000.12** |",
    ]


def test_an_alarm_is_paid_for_by_the_metrics_that_it_looks_at() -> None:
    waiting, ready = ({"Id": name, "MetricStat": {}} for name in ("waiting", "ready"))
    math = {"Id": "result", "Expression": "waiting > 0 AND ready < 1"}
    assert count_metrics({"Properties": {"MetricName": "Age"}}) == 1
    assert count_metrics({"Properties": {"Metrics": [math, waiting, ready]}}) == 2


def test_instances_are_most_of_what_it_costs() -> None:
    """The order of magnitude: at most a few dollars a month for the service itself."""
    counts, assumed, priced = (
        yaml.safe_load((COSTS / name).read_text())
        for name in ("counts.yaml", "assumptions.yaml", "us-east-1.yaml")
    )
    for rows in (
        estimate_jobs(counts, assumed, priced["prices"]),
        estimate_rest(counts, assumed, priced["prices"]),
    ):
        hardware = sum(row.dollars for row in rows if row.what.startswith(("Inst", "Disks")))
        assert 0 < sum(row.dollars for row in rows) - hardware < hardware / 10


def test_assumptions_are_what_the_templates_have(
    template: Mapping[str, Any],
    functions: Mapping[str, Any],
    fleets_template: Mapping[str, Any],
) -> None:
    assumed = yaml.safe_load((COSTS / "assumptions.yaml").read_text())
    parameters, resources = fleets_template["Parameters"], fleets_template["Resources"]
    kinds = [resource["Type"] for resource in resources.values()]
    groups = [r for r in resources.values() if r["Type"] == "AWS::AutoScaling::AutoScalingGroup"]
    disk = resources["PulidLaunchTemplate"]["Properties"]["LaunchTemplateData"][
        "BlockDeviceMappings"
    ][0]["Ebs"]

    assert assumed["endpoints"] == kinds.count("AWS::EC2::VPCEndpoint")
    assert assumed["fleets"] == len(groups)
    assert {str(assumed["prepared_instances"])} == {g["Properties"]["MaxSize"] for g in groups}
    assert assumed["volume_gib"] == parameters["VolumeGiB"]["Default"]
    assert assumed["instance_type"] == parameters["PulidInstanceType"]["Default"]
    assert disk["Throughput"] == VOLUME_MBPS
    megabytes = functions["await_prompt"].get(
        "MemorySize", template["Globals"]["Function"]["MemorySize"]
    )
    assert megabytes == AWAIT_GB * 1024
    table = template["Resources"]["JobTable"]["Properties"]
    assert len(table["GlobalSecondaryIndexes"]) == INDEXES


def test_every_price_has_a_page_to_check_it_against() -> None:
    lines = (COSTS / "us-east-1.yaml").read_text().splitlines()
    sections = [line for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert len(sections) > 5
    assert [line for line in sections if "aws.amazon.com/" not in line] == []
