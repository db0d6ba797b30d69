"""Looks at a local mode from outside while it is harmed: its instances, their slots, their runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import requests

from local.aws.clients import AwsClients
from local.aws.loopback_subnet import COMFYUI_PORT
from local.backend import Backend
from local.comfyui.admin_routes import ADMIN_PREFIX
from local.comfyui.run_log import Run
from ml_service.domain.fleets import Fleet, GroupMember

_ANSWER_SECONDS = 2.0
"""A simulator's admin routes answer at once, whatever its fault, or it is not there."""


@dataclass
class StageWatch:
    """What was seen of a stage, kept beyond the life of its instances."""

    backend: Backend
    aws: AwsClients
    fleets: Mapping[str, Fleet]
    present: dict[str, str] = field(default_factory=dict)
    """Addresses of the instances that run, by id, at the last look."""
    seen: dict[str, str] = field(default_factory=dict)
    """Keys of all instances that were ever there, by id."""
    runs: dict[str, list[Run]] = field(default_factory=dict)
    """What each instance has run, by id."""
    overfull: set[str] = field(default_factory=set)
    """Keys of instances that had more jobs than slots."""

    def look(self) -> None:
        """Look at every instance once."""
        answer = self.aws.ec2.describe_instances(
            Filters=[{"Name": "instance-state-name", "Values": ["running"]}]
        )
        members = [
            GroupMember(
                instance["InstanceId"],
                instance["LaunchTime"],
                instance["PrivateIpAddress"],
                in_service=True,
            )
            for reservation in answer["Reservations"]
            for instance in reservation["Instances"]
        ]
        self.present = {member.instance_id: member.address for member in members}
        self.seen |= {member.instance_id: member.key for member in members}
        for instance_id in self.present:
            self.look_at(instance_id)
        for name, fleet in self.fleets.items():
            self.overfull |= {
                instance.key
                for instance in self.backend.fleets.list_instances(name)
                if len(instance.jobs) > fleet.slots_per_instance
            }

    def look_at(self, instance_id: str) -> bool:
        """Read what one instance has run; False if its server is not there."""
        try:
            answer = self.call(instance_id, "GET", f"{ADMIN_PREFIX}/runs")
        except requests.RequestException:
            return False
        self.runs[instance_id] = [Run(**run) for run in answer.json()["runs"]]
        return True

    def call(
        self, instance_id: str, method: str, path: str, body: object = None
    ) -> requests.Response:
        """Call an instance's server; raises RequestException."""
        url = f"http://{self.present[instance_id]}:{COMFYUI_PORT}{path}"
        answer = requests.request(method, url, json=body, timeout=_ANSWER_SECONDS)
        answer.raise_for_status()
        return answer

    def list_step_errors(self, job_id: str, run: int) -> list[str]:
        """What the steps of a job's execution failed with, in order, as "Submit Prompt: OddError".

        Empty if there was no such execution.
        """
        states = self.aws.stepfunctions
        machine = self.backend.ready["state_machine_arn"]
        arn = f"{machine.replace(':stateMachine:', ':execution:')}:{job_id}-{run}"
        errors, step = [], ""
        try:
            for page in states.get_paginator("get_execution_history").paginate(executionArn=arn):
                for event in cast(list[dict[str, Any]], page["events"]):
                    kinds = (key for key in event if key.endswith("Details"))
                    details = event.get(next(kinds, ""), {})
                    if event["type"].endswith("StateEntered"):
                        step = details["name"]
                    elif "error" in details:
                        errors.append(f"{step}: {details['error']}")
        except states.exceptions.ExecutionDoesNotExist:
            return []
        return errors

    def read_slots(self) -> dict[str, frozenset[str]]:
        """Ids of the jobs that have a slot now, by instance key."""
        return {
            instance.key: instance.jobs
            for name in self.fleets
            for instance in self.backend.fleets.list_instances(name)
        }

    def count_prompts(self) -> dict[str, int]:
        """Prompts in the queue of each server that answers, by instance id."""
        counts = {}
        for instance_id in self.present:
            try:
                answer = self.call(instance_id, "GET", "/prompt")
            except requests.RequestException:
                continue  # what does not answer runs nothing that could be counted
            counts[instance_id] = int(answer.json()["exec_info"]["queue_remaining"])
        return counts
