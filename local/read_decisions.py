"""The scaler's decisions as the fleet table keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.conditions import Key

from ml_service.adapters.dynamodb import read_items

if TYPE_CHECKING:
    from types_boto3_dynamodb.service_resource import Table


@dataclass(frozen=True)
class DecisionView:
    """One decision of the scaler."""

    tick: datetime
    action: str
    desired: int
    reason: str
    outcome: str
    readings: Sequence[int | None]
    backlog: int | None
    """None where it does not count."""


def list_decisions(table: "Table", fleet: str, *, limit: int) -> list[DecisionView]:
    """The last decisions of a fleet, the latest first."""
    items = read_items(
        table.query,
        KeyConditionExpression=Key("pk").eq(fleet) & Key("sk").begins_with("DECISION#"),
        ScanIndexForward=False,
        Limit=limit,
    )
    return [_to_decision(item) for item in islice(items, limit)]


def _to_decision(item: Mapping[str, Any]) -> DecisionView:
    seen = item["observation"]
    backlog = seen.get("backlog")
    return DecisionView(
        tick=datetime.fromisoformat(item["sk"].removeprefix("DECISION#")),
        action=item["action"],
        desired=int(item["desired"]),
        reason=item["reason"],
        outcome=item["outcome"],
        readings=[None if reading is None else int(reading) for reading in seen["readings"]],
        backlog=None if backlog is None else int(backlog),
    )
