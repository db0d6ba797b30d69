"""A stage that shares its instances with another one leaves that one alone, on the embedded AWS."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from local.aws.embedded_aws import AwsOptions, EmbeddedAws, running_embedded_aws
from local.backend import Backend
from local.local_mode import LocalOptions, deploy_ml_service, deploy_stage
from local.read_decisions import DecisionView, list_decisions
from ml_service.adapters.comfyui import HttpComfyUIConnector
from ml_service.domain.fleets import Instance
from ml_service.domain.jobs import JobState

pytestmark = pytest.mark.timeout(240)  # two stages' functions start within it

SPEED = 10.0
FLEET = "pulid"
FLOOD = 500
TEXT_TO_IMAGE = {"workflow": "text-to-image", "inputs": {"positive_prompt": "a red kite"}}


@dataclass(frozen=True)
class Stages:
    """Two stages whose jobs run on the same instances."""

    prod: Backend
    dev: Backend

    def await_instance(self) -> Instance:
        """The fleet's only instance, once both stages may place jobs there."""
        fleets = [stage.fleets for stage in (self.prod, self.dev)]
        await_true(lambda: all(any(i.is_ready for i in f.list_instances(FLEET)) for f in fleets))
        return fleets[0].list_instances(FLEET)[0]


def await_true(look: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, f"{look.__name__}: not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    folder: Path = tmp_path_factory.mktemp("stages")
    options = LocalOptions(speed=SPEED, prompt_seconds=1.0, boot_seconds=0.0)

    async def deploy(aws: EmbeddedAws) -> Stages:
        prod = await deploy_ml_service(aws, options, folder)
        dev = await deploy_stage(aws, "dev", await aws.create_network())
        fleets = {
            name: {**fleet, "task_queue_url": fleet["task_queue_url"].replace("prod-", "dev-")}
            for name, fleet in prod.fleets.items()
        }
        theirs = replace(
            prod,
            stage="dev",
            input_queue_url=dev.outputs["InputQueueUrl"],
            job_table=dev.outputs["JobTableName"],
            fleet_table=dev.outputs["FleetTableName"],
            fleets=fleets,
        )
        return Stages(Backend(asdict(prod)), Backend(asdict(theirs)))

    with running_embedded_aws(deploy, AwsOptions(speed=SPEED)) as running:
        yield running.deployed


@pytest.mark.long
def test_fault_38_500_jobs_of_dev_move_prods_readings_by_its_one_slot(stages: Stages):
    prod, dev = stages.prod, stages.dev
    instance = stages.await_instance()
    comfyui = HttpComfyUIConnector().connect(instance.address)
    began = list_decisions(prod.fleet_table, FLEET, limit=1)[0].tick
    _flood(dev)
    prompts: list[int] = []

    def look(*, own: int) -> None:
        """See that dev has one slot, and one prompt on the instance beside prod's own."""
        (held,) = (len(i.jobs) for i in dev.fleets.list_instances(FLEET))
        assert held <= 1
        prompts.append(comfyui.count_prompts())
        assert prompts[-1] <= 1 + own

    def list_later() -> list[DecisionView]:
        decisions = list_decisions(prod.fleet_table, FLEET, limit=20)
        return [decision for decision in decisions if decision.tick > began]

    def is_prod_not_moved() -> bool:
        look(own=0)
        is_flooded = dev.job_table.scan(Select="COUNT")["Count"] == FLOOD
        return is_flooded and max(prompts) == 1 and [1] in [d.readings for d in list_later()]

    await_true(is_prod_not_moved)
    message_id = prod.send(json.dumps({**TEXT_TO_IMAGE, "job_id": "prods-own"}))

    def is_prod_served() -> bool:
        look(own=1)
        record = prod.find_record("prods-own", message_id)
        return record is not None and record.state is JobState.SUCCEEDED

    await_true(is_prod_served)
    waiting = dev.count_messages(dev.ready["fleets"][FLEET]["task_queue_url"])
    assert waiting > FLOOD * 0.8, "dev's jobs wait in its own queue"
    assert max(max(d.readings) for d in list_later()) <= 2
    assert {(d.action, d.desired) for d in list_later()} == {("NONE", 1)}


def _flood(stage: Backend) -> None:
    for first in range(0, FLOOD, 10):
        entries = [
            {"Id": str(n), "MessageBody": json.dumps({**TEXT_TO_IMAGE, "job_id": f"flood-{n}"})}
            for n in range(first, first + 10)
        ]
        stage.sqs.send_message_batch(QueueUrl=stage.ready["input_queue_url"], Entries=entries)
