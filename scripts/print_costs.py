"""Prints what jobs and idle months cost, as the tables of docs/deploy.md: `make costs`.

Amounts come from costs/counts.yaml (counted) and costs/assumptions.yaml, prices from
costs/us-east-1.yaml. `python -m scripts.print_costs --write` puts the tables into the document.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
COSTS = ROOT / "costs"
DOCUMENT = ROOT / "docs" / "deploy.md"
BEGIN, END = "<!-- costs: written by make costs -->\n", "<!-- end of costs -->\n"
_JOBS = 1000
_HOURS = 730
_MINUTES = _HOURS * 60
_FREE_MBPS = 125
VOLUME_MBPS = 250
"""Throughput of an instance's disk in fleets/template.yaml."""
AWAIT_GB = 0.25
"""Memory of await_prompt, which holds on to a prompt while it runs."""
INDEXES = 2
"""Of the job table."""


@dataclass(frozen=True)
class Row:
    """One line of a bill."""

    what: str
    amount: str
    dollars: float


class Bill:
    """Turns counted calls into rows: the same for a thousand jobs and for a month at rest."""

    def __init__(self, prices: Mapping[str, Mapping[str, float]]) -> None:
        self._prices = prices

    def price(self, service: str, unit: str, amount: float) -> float:
        """Dollars for an amount."""
        return self._prices[service][unit] * amount

    def list_calls(
        self, amounts: Mapping[str, float], *, times: float, put_units: int
    ) -> list[Row]:
        """What the functions' calls to Lambda, DynamoDB, SQS, SNS and S3 cost.

        ``put_units`` are the write units of a PutItem; other writes take one each.
        """

        def total(*names: str) -> float:
            return times * sum(amounts.get(name, 0) for name in names)

        writes = total("dynamodb UpdateItem", "dynamodb DeleteItem")
        writes += put_units * total("dynamodb PutItem")
        reads = total("dynamodb GetItem", "dynamodb Query")
        requests = total(*(name for name in amounts if name.startswith("sqs ")))
        publications = total("sns POST")
        puts, gets = total("s3 PUT"), total("s3 GET", "s3 HEAD")
        calls, gb_seconds = total("lambda calls"), total("lambda gb_seconds")
        rows = [
            Row(
                "Lambda",
                f"{calls:,.0f} calls, {gb_seconds:,.0f} GB-s",
                self.price("lambda", "request", calls)
                + self.price("lambda", "gb_second", gb_seconds),
            ),
            Row(
                "DynamoDB",
                f"{writes:,.0f} write and {reads:,.0f} read units",
                self.price("dynamodb", "write_unit", writes)
                + self.price("dynamodb", "read_unit", reads),
            ),
            Row("SQS", f"{requests:,.0f} requests", self.price("sqs", "request", requests)),
        ]
        if publications:
            rows.append(
                Row(
                    "SNS",
                    f"{publications:,.0f} replies",
                    self.price("sns", "publish", publications),
                )
            )
        if puts or gets:
            rows.append(
                Row(
                    "S3",
                    f"{puts:,.0f} writes, {gets:,.0f} reads",
                    self.price("s3", "put", puts) + self.price("s3", "get", gets),
                )
            )
        return rows


def estimate_jobs(
    counts: Mapping[str, Any], assumed: Mapping[str, Any], prices: Mapping[str, Any]
) -> list[Row]:
    """The bill for a thousand jobs, without what the service costs at rest."""
    bill, per_job = Bill(prices), dict(counts["per_job"])
    per_job["lambda gb_seconds"] += assumed["prompt_seconds"] * AWAIT_GB
    per_job["sqs of the mapping"] = assumed["mapping_requests_per_job"]
    hours = _JOBS * assumed["prompt_seconds"] / 3600
    logs = _JOBS * assumed["log_kilobytes_per_job"] / 1e6
    transitions = _JOBS * per_job["transitions"]
    kind = assumed["instance_type"]
    return [
        # A record costs a unit per KB, and one for each of the job table's indexes.
        *bill.list_calls(
            per_job,
            times=_JOBS,
            put_units=math.ceil(per_job["job record kilobytes"]) + INDEXES,
        ),
        Row(
            "Step Functions",
            f"{transitions:,.0f} transitions",
            bill.price("step_functions", "transition", transitions),
        ),
        Row("Logs", f"{logs:.2f} GB", bill.price("cloudwatch", "log_gb", logs)),
        Row(
            "Instances beyond those at rest",
            f"{hours:.1f} h of {kind}, {assumed['prompt_seconds']} s for each job",
            bill.price("ec2", f"{kind}_hour", hours),
        ),
    ]


def estimate_rest(
    counts: Mapping[str, Any], assumed: Mapping[str, Any], prices: Mapping[str, Any]
) -> list[Row]:
    """The bill for a month without jobs, each fleet at its minimum of one instance."""
    bill, per_minute = Bill(prices), dict(counts["per_idle_minute"])
    per_minute["sqs of the mapping"] = assumed["mapping_polls_per_minute"]
    logs = _MINUTES * assumed["log_kilobytes_per_idle_minute"] / 1e6
    fleets, kind = assumed["fleets"], assumed["instance_type"]
    disks = fleets * assumed["prepared_instances"]
    gib = assumed["volume_gib"]
    return [
        # Of the items that a tick writes none is a job's, and each is small.
        *bill.list_calls(per_minute, times=_MINUTES, put_units=1),
        Row(
            "CloudWatch",
            f"{assumed['metrics']} metrics, {counts['alarms']} alarms on "
            f"{counts['alarm_metrics']} metrics, {counts['dashboards']} dashboard, "
            f"{logs:.2f} GB of logs",
            bill.price("cloudwatch", "metric_month", assumed["metrics"])
            + bill.price("cloudwatch", "alarm_metric_month", counts["alarm_metrics"])
            + bill.price("cloudwatch", "dashboard_month", counts["dashboards"])
            + bill.price("cloudwatch", "log_gb", logs),
        ),
        Row(
            "Instances",
            f"{fleets} of {kind}, all the time",
            bill.price("ec2", f"{kind}_hour", fleets * _HOURS),
        ),
        Row(
            "Disks",
            f"{disks} of {gib} GiB, most of them in warm pools",
            disks
            * (
                bill.price("ebs", "gb_month", gib)
                + bill.price("ebs", "mbps_month_above_125", VOLUME_MBPS - _FREE_MBPS)
            ),
        ),
    ]


def format_table(head: str, rows: Sequence[Row]) -> str:
    """A table in Markdown with its sum."""
    lines = [f"| {head} | counted or assumed | USD |", "|---|---|---:|"]
    lines += [f"| {row.what} | {row.amount} | {row.dollars:,.2f} |" for row in rows]
    lines.append(f"| **sum** | | **{sum(row.dollars for row in rows):,.2f}** |")
    return "\n".join(lines) + "\n"


def format_costs() -> str:
    """Both tables, and what they rest on."""
    counts, assumed, priced = (
        yaml.safe_load((COSTS / name).read_text(encoding="utf-8"))
        for name in ("counts.yaml", "assumptions.yaml", "us-east-1.yaml")
    )
    prices = priced["prices"]
    bill = Bill(prices)
    nat = bill.price("vpc", "nat_gateway_hour", _HOURS)
    endpoints = bill.price(
        "vpc", "interface_endpoint_hour", _HOURS * assumed["endpoints"] * assumed["subnets"]
    )
    return (
        f"{format_table('1,000 jobs', estimate_jobs(counts, assumed, prices))}\n"
        f"{format_table('a month at rest', estimate_rest(counts, assumed, prices))}\n"
        f"The instances' way to AWS comes on top: a NAT gateway {nat:,.2f} USD a month, or "
        f"{assumed['endpoints']} interface endpoints in\n{assumed['subnets']} subnets "
        f"{endpoints:,.2f} USD. Counted on {counts['date']}; list prices of {priced['region']} "
        f"as of {priced['date']}.\n"
    )


def main(arguments: Sequence[str]) -> int:
    """Print the tables, or put them between the marks of docs/deploy.md."""
    costs = format_costs()
    if "--write" not in arguments:
        print(costs, end="")
        return 0
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{costs}\n{END}{after}", encoding="utf-8")
    print(f"Wrote the tables of {DOCUMENT.relative_to(ROOT)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
