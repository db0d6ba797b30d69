"""What local mode has deployed, by the names under which it is used."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LocalDeployment:
    """What a sender, a receiver and an operator need to know; the ready file's members."""

    endpoint: str
    region: str
    stage: str
    input_queue_url: str
    reply_queue_url: str
    input_bucket: str
    result_bucket: str
    job_table: str
    fleet_table: str
    state_machine_arn: str
    jobs_api_url: str
    result_api_url: str
    fleets: Mapping[str, Mapping[str, Any]]
    """The settings of each fleet: task queue, group, threshold T, slots K."""
