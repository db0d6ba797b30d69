"""Runs a stage on this machine for a while, and draws its dashboard with what came of it."""

import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from local.aws.alarm_watch import AlarmWatch
from local.aws.embedded_aws import AwsOptions, EmbeddedAws, RunningAws, running_embedded_aws
from local.aws.metric_store import MINUTE
from local.backend import Backend
from local.comfyui.faults import parse_fault
from local.dashboard.draw_dashboard import DashboardData, draw_dashboard
from local.dashboard.read_widgets import Span
from local.list_alarms import list_alarms
from local.local_deployment import LocalDeployment
from local.local_mode import FLEETS, LocalOptions, deploy_ml_service
from local.project import WORKFLOWS
from local.sample_jobs import make_color, prepare_sample_job
from ml_service.adapters.workflow_files import load_catalog

SPEED: Final = 6.0
_BURST: Final = 30
"""Jobs for pulid at once, more than its slots: what does not fit waits."""
_PAUSE_SECONDS: Final = 8.0
_QUIET_MINUTES: Final = 6
"""At the end nothing more comes, and the stage gets through with what waits."""
_COLORS: Final = 997


def show_run(path: Path, *, minutes: float) -> None:
    """Run for so many minutes of virtual time, with a burst and a fault, and write a PNG file."""
    options = LocalOptions(
        speed=SPEED,
        prompt_seconds=8.0,
        faults={"makeup": (parse_fault("exception:probability=0.15,seed=4"),)},
    )
    watches: list[AlarmWatch] = []
    folder = Path(tempfile.mkdtemp(prefix="dashboard-"))

    async def deploy(aws: EmbeddedAws) -> LocalDeployment:
        watches.append(aws.alarms)
        return await deploy_ml_service(aws, options, folder)

    with running_embedded_aws(deploy, AwsOptions(speed=SPEED)) as running:
        start = running.clock.now()
        _send_jobs(running, until=start + minutes * MINUTE)
        end = running.clock.now()
        data = DashboardData(
            store=watches[0].store,
            span=Span(start - start % MINUTE, end - end % MINUTE),
            alarms=list_alarms(running.clients.cloudwatch, running.deployed.stage),
            decisions=list(_list_decisions(running)),
        )
        name = f"{running.deployed.stage}-ml-service"
        body = running.clients.cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"]
    shutil.rmtree(folder)
    draw_dashboard(json.loads(body), data, path)


def _send_jobs(running: RunningAws[LocalDeployment], *, until: float) -> None:
    backend = Backend(asdict(running.deployed))
    dice = random.Random(7)
    workflows = [load_catalog(WORKFLOWS).workflow(name) for name in ("flux-prompt", "music-gen")]
    for _ in range(_BURST):
        _send(backend, workflows[0], dice)
    backend.send("a message that nobody can read")
    while (now := running.clock.now()) < until:
        if until - now > _QUIET_MINUTES * MINUTE:
            _send(backend, dice.choice(workflows), dice)
        time.sleep(_PAUSE_SECONDS)


def _send(backend: Backend, workflow: Any, dice: random.Random) -> None:
    job = prepare_sample_job(backend, workflow, make_color(dice.randrange(_COLORS), _COLORS))
    backend.send(job.body)


def _list_decisions(running: RunningAws[LocalDeployment]) -> Iterator[Sequence[str]]:
    """Give the rows of the dashboard's query, the newest first."""
    log = running.run_folder / f"{running.deployed.stage}-ml-service-scale-fleets.log"
    lines = [line for line in log.read_text().splitlines() if '"fleet scaled"' in line]
    for line in reversed(lines):
        told = json.loads(line)
        decision = told.get("decision")
        if decision is None or told["fleet"] not in FLEETS:
            continue
        if decision["action"] == "NONE" and "maximum" not in decision["reason"]:
            continue
        yield (
            datetime.fromisoformat(decision["observation"]["tick"]).strftime("%H:%M"),
            told["fleet"],
            decision["action"],
            str(decision["desired"]),
            told["outcome"],
            decision["reason"],
        )
