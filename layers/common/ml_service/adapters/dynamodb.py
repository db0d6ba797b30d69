"""The job table and the fleet table in DynamoDB."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.conditions import Attr, ConditionBase, Key
from botocore.exceptions import ClientError

from ml_service.domain.errors import JobChangedError, JobNotFoundError
from ml_service.domain.fleets import (
    ADMISSION_LIFETIME,
    QUARANTINE_FAULTS,
    GroupMember,
    Instance,
)
from ml_service.domain.jobs import Job, JobState, JobSummary
from ml_service.domain.scaling import ScalerState, ScalingDecision
from ml_service.domain.stage_counts import OpenJob
from ml_service.domain.warm_ups import WARM_UP_LIFETIME

if TYPE_CHECKING:
    from types_boto3_dynamodb.service_resource import Table

_DECISION_LIFETIME = timedelta(days=30)
_COLUMNS = {
    "job_id",
    "version",
    "state",
    "workflow",
    "fleet",
    "instance_id",
    "received_at",
    "submitted_at",
    "closed_at",
    "expires_at",
}
_OPEN = "open"
"""The one partition of the index of open jobs: an item without it is not in the index."""
_BY_FLEET = "jobs-by-fleet"


class DynamoDBJobStore:
    """Job records, one item each, written only over the version that was read."""

    def __init__(self, table: "Table") -> None:
        self._table = table

    def add(self, job: Job) -> bool:
        """Store a new record; False if its job id is taken."""
        return _succeeds(
            lambda: self._table.put_item(
                Item=_to_job_item(job),
                ConditionExpression=Attr("job_id").not_exists(),
            )
        )

    def get(self, job_id: str) -> Job:
        """The present record; raises JobNotFoundError."""
        item = (
            self._table.get_item(Key={"job_id": job_id}, ConsistentRead=True).get("Item")
            if job_id
            else None
        )
        if item is None:
            raise JobNotFoundError(f"There is no job {job_id!r}.")
        return read_job_item(item)

    def save(self, job: Job) -> None:
        """Replace the version before this one; raises JobChangedError."""
        saved = _succeeds(
            lambda: self._table.put_item(
                Item=_to_job_item(job),
                ConditionExpression=Attr("version").eq(job.version - 1),
            )
        )
        if not saved:
            raise JobChangedError(f"Job {job.job_id} is not at version {job.version - 1} any more.")

    def list_due(self, now: datetime, *, limit: int) -> Sequence[str]:
        """Job ids from the index of open jobs, which DynamoDB brings up to date within a second."""
        page = self._table.query(
            IndexName="open-jobs",
            KeyConditionExpression=Key("open_jobs").eq(_OPEN) & Key("due_at").lte(_to_epoch(now)),
            Limit=limit,
        )
        return [str(item["job_id"]) for item in page["Items"]]

    def list_open(self) -> Sequence[OpenJob]:
        """The whole index of open jobs, which holds what is read of each."""
        items = read_items(
            self._table.query,
            IndexName="open-jobs",
            KeyConditionExpression=Key("open_jobs").eq(_OPEN),
        )
        return [_to_open_job(item) for item in items]

    def list_latest(
        self, fleet: str, state: JobState, *, before: str = "", limit: int
    ) -> Sequence[JobSummary]:
        """Jobs from the index by fleet and state, the latest first."""
        condition: ConditionBase = Key("fleet_state").eq(_to_partition(fleet, state))
        if before:
            condition &= Key("turn").lt(before)
        page = self._table.query(
            IndexName=_BY_FLEET,
            KeyConditionExpression=condition,
            ScanIndexForward=False,
            Limit=limit,
        )
        return [_to_summary(item) for item in page["Items"]]

    def count_earlier(self, job: Job) -> int:
        """Count by the same index; no item is sent."""
        request: dict[str, Any] = {
            "IndexName": _BY_FLEET,
            "KeyConditionExpression": Key("fleet_state").eq(_to_partition(job.fleet, job.state))
            & Key("turn").lt(job.turn),
            "Select": "COUNT",
        }
        count = 0
        while True:
            page = self._table.query(**request)
            count += page["Count"]
            if "LastEvaluatedKey" not in page:
                return count
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


class DynamoDBFleetStore:
    """Instances, the scaler's memory and its decisions, all of a fleet under one key."""

    def __init__(self, table: "Table") -> None:
        self._table = table

    def list_instances(self, fleet: str) -> Sequence[Instance]:
        """Every known instance of a fleet."""
        items = read_items(
            self._table.query,
            KeyConditionExpression=Key("pk").eq(fleet) & Key("sk").begins_with("INSTANCE#"),
            ConsistentRead=True,
        )
        return [_to_instance(item) for item in items]

    def put_instance(
        self, fleet: str, member: GroupMember, *, reading: int | None, at: datetime
    ) -> None:
        """Store what was seen of an instance, unless something newer is; a new one takes jobs."""
        _succeeds(
            lambda: self._table.update_item(
                Key=_instance_key(fleet, member.key),
                UpdateExpression=(
                    "SET instance_id = :instance_id, address = :address, "
                    "in_service = :in_service, reading = :reading, read_at = :read_at, "
                    "takes_jobs = if_not_exists(takes_jobs, :true)"
                ),
                ConditionExpression=Attr("pk").not_exists() | Attr("read_at").lte(_to_epoch(at)),
                ExpressionAttributeValues={
                    ":instance_id": member.instance_id,
                    ":address": member.address,
                    ":in_service": member.in_service,
                    ":reading": reading,
                    ":read_at": _to_epoch(at),
                    ":true": True,
                },
            )
        )

    def remove_instance(self, fleet: str, key: str) -> None:
        """Forget an instance."""
        self._table.delete_item(Key=_instance_key(fleet, key))

    def take_slot(self, fleet: str, key: str, job_id: str, *, slots: int, at: datetime) -> bool:
        """Give a job a slot; True also if it has one there already."""
        # size() of an absent attribute fails, and DynamoDB removes a set that was emptied.
        has_room = Attr("jobs").not_exists() | Attr("jobs").size().lt(slots)
        return _succeeds(
            lambda: self._table.update_item(
                Key=_instance_key(fleet, key),
                UpdateExpression="ADD jobs :job SET placed_at = :at",
                ConditionExpression=Attr("pk").exists()
                & Attr("takes_jobs").eq(True)
                & (has_room | Attr("jobs").contains(job_id)),
                ExpressionAttributeValues={":job": {job_id}, ":at": _to_epoch(at)},
            )
        )

    def release_slot(self, fleet: str, key: str, job_id: str, *, worked: bool = False) -> None:
        """Take a job's slot back, if the instance is still known; forget faults if it worked."""
        _succeeds(
            lambda: self._table.update_item(
                Key=_instance_key(fleet, key),
                UpdateExpression="DELETE jobs :job"
                + (" REMOVE faults, stalled_at" if worked else ""),
                ConditionExpression=Attr("pk").exists(),
                ExpressionAttributeValues={":job": {job_id}},
            )
        )

    def wait_for_slot(self, fleet: str, job_id: str) -> None:
        """Note an admitted job that has lost its place and found no other."""
        self._change_waiting("ADD", fleet, job_id)

    def stop_waiting(self, fleet: str, job_id: str) -> None:
        """Such a job waits no more; no effect if it did not."""
        self._change_waiting("DELETE", fleet, job_id)

    def _change_waiting(self, action: str, fleet: str, job_id: str) -> None:
        self._table.update_item(
            Key={"pk": fleet, "sk": "WAITING"},
            UpdateExpression=f"{action} jobs :job",
            ExpressionAttributeValues={":job": {job_id}},
        )

    def list_waiting(self, fleet: str) -> Set[str]:
        """Ids of the admitted jobs that wait for a slot."""
        page = self._table.query(
            KeyConditionExpression=Key("pk").eq(fleet) & Key("sk").eq("WAITING"),
            ConsistentRead=True,
        )
        items: Sequence[Mapping[str, Any]] = page["Items"]
        return frozenset(job for item in items for job in item.get("jobs", ()))

    def record_fault(self, fleet: str, key: str, at: datetime) -> bool:
        """Count a fault of an instance that is still known; True if it is quarantined for it."""
        faults = 0

        def count() -> None:
            nonlocal faults
            answer = self._table.update_item(
                Key=_instance_key(fleet, key),
                UpdateExpression="ADD faults :one",
                ConditionExpression=Attr("pk").exists(),
                ExpressionAttributeValues={":one": 1},
                ReturnValues="UPDATED_NEW",
            )
            faults = int(str(answer["Attributes"]["faults"]))

        if not _succeeds(count) or faults < QUARANTINE_FAULTS:
            return False
        return _succeeds(
            lambda: self._table.update_item(
                Key=_instance_key(fleet, key),
                UpdateExpression="SET quarantined_at = :at",
                ConditionExpression=Attr("pk").exists() & Attr("quarantined_at").not_exists(),
                ExpressionAttributeValues={":at": _to_epoch(at)},
            )
        )

    def lift_quarantine(self, fleet: str, key: str) -> None:
        """Take an instance that is still known out of quarantine, one fault short of it."""
        _succeeds(
            lambda: self._table.update_item(
                Key=_instance_key(fleet, key),
                UpdateExpression="SET faults = :faults REMOVE quarantined_at",
                ConditionExpression=Attr("pk").exists(),
                ExpressionAttributeValues={":faults": QUARANTINE_FAULTS - 1},
            )
        )

    def record_reading(self, fleet: str, key: str, reading: int | None, at: datetime) -> None:
        """Store a reading, if the instance is still known and has no newer one."""
        _succeeds(
            lambda: self._table.update_item(
                Key=_instance_key(fleet, key),
                UpdateExpression="SET reading = :reading, read_at = :at",
                ConditionExpression=Attr("read_at").lte(_to_epoch(at)),
                ExpressionAttributeValues={":reading": reading, ":at": _to_epoch(at)},
            )
        )

    def begin_admission(self, fleet: str, *, at: datetime) -> bool:
        """Take the fleet's admission, or leave word for who has it."""
        key = {"pk": fleet, "sk": "ADMISSION"}
        while True:
            began = _succeeds(
                lambda: self._table.update_item(
                    Key=key,
                    UpdateExpression="SET ends_at = :ends_at REMOVE look_again",
                    ConditionExpression=Attr("ends_at").not_exists()
                    | Attr("ends_at").lte(_to_epoch(at)),
                    ExpressionAttributeValues={":ends_at": _to_epoch(at + ADMISSION_LIFETIME)},
                )
            )
            if began:
                return True
            told = _succeeds(
                lambda: self._table.update_item(
                    Key=key,
                    UpdateExpression="SET look_again = :true",
                    ConditionExpression=Attr("ends_at").exists(),
                    ExpressionAttributeValues={":true": True},
                )
            )
            if told:
                return False
            # It ended between the two calls, and nobody would look again.

    def end_admission(self, fleet: str) -> bool:
        """Give the fleet's admission back, unless somebody has left word."""
        key = {"pk": fleet, "sk": "ADMISSION"}
        ended = _succeeds(
            lambda: self._table.update_item(
                Key=key,
                UpdateExpression="REMOVE ends_at",
                ConditionExpression=Attr("look_again").not_exists(),
            )
        )
        if not ended:
            self._table.update_item(Key=key, UpdateExpression="REMOVE look_again")
        return ended

    def start_draining(self, fleet: str, key: str) -> bool:
        """Give an instance no more jobs, if it has none."""
        # No attribute is no job: DynamoDB removes a set that was emptied.
        return _succeeds(
            lambda: self._table.update_item(
                Key=_instance_key(fleet, key),
                UpdateExpression="SET takes_jobs = :false",
                ConditionExpression=Attr("takes_jobs").eq(True) & Attr("jobs").not_exists(),
                ExpressionAttributeValues={":false": False},
            )
        )

    def stop_draining(self, fleet: str, key: str) -> None:
        """Let an instance take jobs again, if it is still known."""
        _succeeds(
            lambda: self._table.update_item(
                Key=_instance_key(fleet, key),
                UpdateExpression="SET takes_jobs = :true",
                ConditionExpression=Attr("pk").exists(),
                ExpressionAttributeValues={":true": True},
            )
        )

    def record_stall(self, fleet: str, key: str, at: datetime) -> None:
        """Note that the queue of an instance that is still known has stalled."""
        _succeeds(
            lambda: self._table.update_item(
                Key=_instance_key(fleet, key),
                UpdateExpression="SET stalled_at = :at",
                ConditionExpression=Attr("pk").exists(),
                ExpressionAttributeValues={":at": _to_epoch(at)},
            )
        )

    def begin_warm_up(self, fleet: str, key: str, *, at: datetime) -> bool:
        """Take an instance's warm-up, unless it is warm or somebody has taken it."""
        return _succeeds(
            lambda: self._table.update_item(
                Key=_instance_key(fleet, key),
                UpdateExpression="SET warming_since = :at",
                ConditionExpression=Attr("pk").exists()
                & Attr("warmed_at").not_exists()
                & (
                    Attr("warming_since").not_exists()
                    | Attr("warming_since").lte(_to_epoch(at - WARM_UP_LIFETIME))
                ),
                ExpressionAttributeValues={":at": _to_epoch(at)},
            )
        )

    def end_warm_up(self, fleet: str, key: str, *, at: datetime, fault: str = "") -> None:
        """Let an instance take jobs, if it is still known."""
        _succeeds(
            lambda: self._table.update_item(
                Key=_instance_key(fleet, key),
                UpdateExpression="SET warmed_at = :at, warm_up_fault = :fault REMOVE warming_since",
                ConditionExpression=Attr("pk").exists(),
                ExpressionAttributeValues={":at": _to_epoch(at), ":fault": fault},
            )
        )

    def abandon_warm_up(self, fleet: str, key: str, *, fault: str = "") -> None:
        """Let another try begin, if the instance is still known."""
        _succeeds(
            lambda: self._table.update_item(
                Key=_instance_key(fleet, key),
                UpdateExpression=(
                    "SET warm_up_fault = :fault REMOVE warming_since ADD warm_up_tries :tries"
                ),
                ConditionExpression=Attr("pk").exists(),
                ExpressionAttributeValues={":fault": fault, ":tries": 1 if fault else 0},
            )
        )

    def load_scaler(self, fleet: str) -> ScalerState:
        """What the scaler remembers of a fleet."""
        key = {"pk": fleet, "sk": "SCALER"}
        item = self._table.get_item(Key=key, ConsistentRead=True).get("Item")
        return ScalerState() if item is None else ScalerState.model_validate(item["state"])

    def save_scaler(self, fleet: str, state: ScalerState, *, last_tick: datetime | None) -> bool:
        """Store the scaler's memory; False if another tick was stored last."""
        condition = (
            Attr("pk").not_exists()
            if last_tick is None
            else Attr("state.last_tick").eq(_format_tick(last_tick))
        )
        dumped = state.model_dump(mode="json")
        if state.last_tick is not None:
            dumped["last_tick"] = _format_tick(state.last_tick)
        return _succeeds(
            lambda: self._table.put_item(
                Item={"pk": fleet, "sk": "SCALER", "state": _to_item(dumped)},
                ConditionExpression=condition,
            )
        )

    def add_decision(self, fleet: str, decision: ScalingDecision, *, outcome: str) -> None:
        """Keep a decision for 30 days."""
        tick = decision.observation.tick
        self._table.put_item(
            Item={
                "pk": fleet,
                "sk": f"DECISION#{_format_tick(tick)}",
                "expires_at": int((tick + _DECISION_LIFETIME).timestamp()),
                "outcome": outcome,
                **_to_item(decision.model_dump(mode="json", exclude={"state_if_refused"})),
            }
        )


def _instance_key(fleet: str, key: str) -> dict[str, str]:
    return {"pk": fleet, "sk": f"INSTANCE#{key}"}


def _to_instance(item: Mapping[str, Any]) -> Instance:
    return Instance(
        key=item["sk"].removeprefix("INSTANCE#"),
        instance_id=item["instance_id"],
        address=item["address"],
        in_service=item["in_service"],
        takes_jobs=item["takes_jobs"],
        reading=None if item["reading"] is None else int(item["reading"]),
        read_at=_from_epoch(item["read_at"]),
        jobs=frozenset(item.get("jobs", ())),
        placed_at=_read_moment(item, "placed_at"),
        faults=int(item.get("faults", 0)),
        quarantined_at=_read_moment(item, "quarantined_at"),
        stalled_at=_read_moment(item, "stalled_at"),
        warmed_at=_read_moment(item, "warmed_at"),
        warming_since=_read_moment(item, "warming_since"),
        warm_up_tries=int(item.get("warm_up_tries", 0)),
        warm_up_fault=item.get("warm_up_fault", ""),
    )


def _read_moment(item: Mapping[str, Any], name: str) -> datetime | None:
    return _from_epoch(item[name]) if name in item else None


def read_items(read: Callable[..., Any], **request: Any) -> Iterator[Mapping[str, Any]]:
    """Every item of a table's query or scan, page after page."""
    while True:
        page = read(**request)
        yield from page["Items"]
        if "LastEvaluatedKey" not in page:
            return
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def read_job_item(item: Mapping[str, Any]) -> Job:
    """The job whose item of the job table this is."""
    return Job.model_validate_json(item["record"])


def _to_job_item(job: Job) -> dict[str, Any]:
    # The record travels as one JSON text, as it is read and written as one: its hundred values as
    # attributes cost both sides ten times the work. What conditions, filters and people look at
    # stands beside it.
    columns = job.model_dump(mode="json", include=_COLUMNS, exclude_none=True)
    item = {**columns, "record": job.model_dump_json()}
    if job.due_at is not None:
        item |= {"open_jobs": _OPEN, "due_at": _to_epoch(job.due_at)}
        if job.late_after is not None:
            item["late_after"] = _to_epoch(job.late_after)
    if job.fleet:
        item |= {"fleet_state": _to_partition(job.fleet, job.state), "turn": job.turn}
    return item


def _to_partition(fleet: str, state: JobState) -> str:
    return f"{fleet}#{state}"


def _to_summary(item: Mapping[str, Any]) -> JobSummary:
    closed_at = item.get("closed_at")
    return JobSummary(
        job_id=item["job_id"],
        state=JobState(item["state"]),
        workflow=item["workflow"],
        fleet=item["fleet"],
        received_at=datetime.fromisoformat(item["received_at"]),
        closed_at=None if closed_at is None else datetime.fromisoformat(closed_at),
    )


def _to_open_job(item: Mapping[str, Any]) -> OpenJob:
    late_after = item.get("late_after")
    return OpenJob(
        fleet=item["fleet"],
        workflow=item["workflow"],
        state=JobState(item["state"]),
        late_after=None if late_after is None else _from_epoch(late_after),
    )


def _to_item(value: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's values in DynamoDB's types: it takes Decimal, not float."""
    item: dict[str, Any] = json.loads(json.dumps(value), parse_float=Decimal)
    return item


def _to_epoch(at: datetime) -> Decimal:
    return Decimal(str(round(at.timestamp(), 3)))


def _from_epoch(seconds: Decimal) -> datetime:
    return datetime.fromtimestamp(float(seconds), tz=UTC)


def _format_tick(tick: datetime) -> str:
    return tick.astimezone(UTC).isoformat()


def _succeeds(write: Any) -> bool:
    """Whether a conditional write found its condition true; other errors are raised."""
    try:
        write()
    except ClientError as error:
        if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
            return False
        raise
    return True
