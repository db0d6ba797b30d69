"""What the pages show: fleets and jobs as queues, groups and tables know them; all calls block."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING

from pydantic import BaseModel

from local.aws.clients import AwsClients
from local.local_deployment import LocalDeployment
from local.read_decisions import DecisionView, list_decisions
from ml_service.adapters.dynamodb import DynamoDBFleetStore, DynamoDBJobStore, read_items
from ml_service.domain.errors import JobNotFoundError
from ml_service.domain.fleets import Fleet, Instance
from ml_service.domain.jobs import Job, JobState, make_refused_id
from ml_service.domain.scaling import ScalerState
from ml_service.domain.scaling_policy import ScalingPolicy

if TYPE_CHECKING:
    from types_boto3_dynamodb.service_resource import Table

_DECISIONS = 5
# "state" is a reserved word of DynamoDB's.
_SUMMARY_NAMES = {"#state": "state"}
_SUMMARY_FIELDS = (
    "job_id, #state, workflow, fleet, instance_id, received_at, submitted_at, closed_at"
)


@dataclass(frozen=True)
class FleetView:
    """A fleet at this moment."""

    name: str
    settings: Fleet
    waiting: int
    """Messages in the task queue that nobody has received."""
    in_flight: int
    """Messages that admission has received and not yet deleted."""
    desired: int
    minimum: int
    maximum: int
    instances: Sequence[Instance]
    scaler: ScalerState
    decisions: Sequence[DecisionView]

    @property
    def policy(self) -> ScalingPolicy:
        """The scaler's rule for this fleet."""
        return self.settings.make_policy()


class JobSummary(BaseModel):
    """A line in the list of jobs."""

    job_id: str
    state: JobState
    workflow: str
    fleet: str
    instance_id: str
    received_at: datetime
    submitted_at: datetime | None = None
    closed_at: datetime | None = None


class StageReader:
    """Reads a running stage. Make one for each request: its tables serve one thread."""

    def __init__(self, deployment: LocalDeployment, clients: AwsClients) -> None:
        """Take the stage's names and the clients of its account."""
        self._deployment = deployment
        self._clients = clients

    def list_fleets(self) -> list[FleetView]:
        """Every fleet, in the order of the stage's settings."""
        table = self._clients.table(self._deployment.fleet_table)
        return [
            self._read_fleet(table, name, Fleet.model_validate(settings))
            for name, settings in self._deployment.fleets.items()
        ]

    def list_jobs(self) -> list[JobSummary]:
        """Every job, the latest first."""
        table = self._clients.table(self._deployment.job_table)
        items = read_items(
            table.scan,
            ProjectionExpression=_SUMMARY_FIELDS,
            ExpressionAttributeNames=_SUMMARY_NAMES,
        )
        jobs = (JobSummary.model_validate(item) for item in items)
        return sorted(jobs, key=attrgetter("received_at"), reverse=True)

    def get_job(self, job_id: str) -> Job:
        """One job's record, or that of its refusal; raises JobNotFoundError."""
        store = DynamoDBJobStore(self._clients.table(self._deployment.job_table))
        try:
            return store.get(job_id)
        except JobNotFoundError:
            return store.get(make_refused_id(job_id))

    def _read_fleet(self, table: "Table", name: str, settings: Fleet) -> FleetView:
        queue = self._clients.sqs.get_queue_attributes(
            QueueUrl=settings.task_queue_url,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )["Attributes"]
        group = self._clients.autoscaling.describe_auto_scaling_groups(
            AutoScalingGroupNames=[settings.group_name]
        )["AutoScalingGroups"][0]
        store = DynamoDBFleetStore(table)
        return FleetView(
            name=name,
            settings=settings,
            waiting=int(queue["ApproximateNumberOfMessages"]),
            in_flight=int(queue["ApproximateNumberOfMessagesNotVisible"]),
            desired=group["DesiredCapacity"],
            minimum=group["MinSize"],
            maximum=group["MaxSize"],
            instances=store.list_instances(name),
            scaler=store.load_scaler(name),
            decisions=list_decisions(table, name, limit=_DECISIONS),
        )
