"""Every metric that the functions emit: their own output, read as CloudWatch reads it."""

import importlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from ml_service.domain.hand_offs import HandOffState
from ml_service.domain.jobs import JobState
from ml_service.domain.scaling import (
    FleetObservation,
    ScalerState,
    ScalingAction,
    ScalingDecision,
)
from ml_service.services.admit_jobs import AdmissionReport, AdmissionStatus
from ml_service.services.choose_instance import Choice, PlacementStatus
from ml_service.services.count_jobs import CountJobs
from ml_service.services.dispatch_jobs import DispatchOutcome, DispatchReport, DispatchStatus
from ml_service.services.scale_fleets import FleetTick, UnhealthyInstance
from ml_service.services.sweep_jobs import SweepAction, SweepReport
from ml_service.services.warm_instance import WarmUpReport, WarmUpStatus
from tests.fakes import NOON, FakeClock, InMemoryFleetStore, InMemoryJobStore
from tests.makers import FLEETS, make_hand_off, make_instance, make_job

NAMESPACE = "test-ml-service"


@dataclass(frozen=True)
class Metric:
    """A metric by which CloudWatch keeps values: all of its dimensions belong to its name."""

    name: str
    dimensions: frozenset[str]


class Context:
    function_name = memory_limit_in_mb = invoked_function_arn = aws_request_id = "x"


def read_metrics(output: str) -> Iterator[tuple[Metric, Mapping[str, str], Any]]:
    """Each metric in a function's output, once per set of dimensions, with their values."""
    for line in output.splitlines():
        blob = json.loads(line)
        for directive in blob.get("_aws", {}).get("CloudWatchMetrics", ()):
            assert directive["Namespace"] == NAMESPACE
            for dimensions in directive["Dimensions"]:
                values = {name: blob[name] for name in dimensions}
                for metric in directive["Metrics"]:
                    name = metric["Name"]
                    yield Metric(name, frozenset(dimensions)), values, blob[name]


def run_handler(function: str, event: Mapping[str, Any], **makers: Any) -> str:
    """What a handler writes; ``makers`` stand in for those of its composition root."""
    app = importlib.import_module(f"functions.{function}.app")
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output):
        patch.setenv("POWERTOOLS_METRICS_NAMESPACE", NAMESPACE)
        patch.setenv("POWERTOOLS_SERVICE_NAME", "ml-service")
        if hasattr(app, "make_clock"):
            patch.setattr(app, "make_clock", FakeClock)
        for name, service in makers.items():
            patch.setattr(app, f"make_{name}", lambda service=service: service)
        app.handler(event, Context())
    # The logger holds the stream that it got when it was made, so that only metrics are here.
    return output.getvalue()


class Answering:
    """A service whose every method gives the same answer."""

    def __init__(self, answer: Any, **attributes: Any) -> None:
        self._answer = answer
        vars(self).update(attributes)

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self._answer


def list_emitted_metrics() -> Iterator[tuple[Metric, Mapping[str, str], Any]]:
    """Run each handler that measures through everything that it measures."""
    yield from read_metrics(_run_dispatch())
    yield from read_metrics(_run_admission())
    yield from read_metrics(_run_choice())
    for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED):
        yield from read_metrics(_run_finish(state))
    yield from read_metrics(_run_sweep())
    yield from read_metrics(_run_scaler())
    for status in WarmUpStatus:
        yield from read_metrics(_run_warm_up(status))


def _run_dispatch() -> str:
    outcomes = [DispatchOutcome("m", s, hand_off_refused=True) for s in DispatchStatus]
    report = DispatchReport(outcomes, {})
    return run_handler("dispatch_jobs", {"Records": []}, dispatch_jobs=Answering(report))


def _run_admission() -> str:
    report = AdmissionReport("pulid", was_first=True, counts=Counter(AdmissionStatus))
    return run_handler("admit_jobs", {}, admit_jobs=Answering(report, fleets=["pulid"]))


def _run_choice() -> str:
    choice = Choice(PlacementStatus.NO_SLOT, make_job(), quarantined="i-a#1")
    return run_handler("choose_instance", {"job_id": "j"}, choose_instance=Answering(choice))


def make_answered_job(state: JobState, **changes: Any) -> Any:
    """A job that waited a minute, ran two, and was answered at once."""
    job = make_job(received_at=NOON - timedelta(minutes=3), **changes)
    job = job.admit(
        instance="i", instance_id="i", address="a", at=NOON - timedelta(minutes=2)
    ).submit(prompt_id="p", at=NOON)
    return job.close(state, reply="r", at=NOON).mark_published(NOON)


def _run_finish(state: JobState) -> str:
    hand_off = make_hand_off().model_copy(update={"state": HandOffState.FAILED})
    job = make_answered_job(state, hand_off=hand_off)
    return run_handler("finish_job", {"job_id": "j", "run": 1}, finish_job=Answering(job))


def _run_sweep() -> str:
    report = SweepReport(Counter(SweepAction), answered=[make_answered_job(JobState.EXPIRED)])
    jobs = InMemoryJobStore(make_job())
    store = InMemoryFleetStore("pulid", replace(make_instance(), quarantined_at=NOON))
    counter = CountJobs(list(FLEETS), jobs, store)
    return run_handler("sweep_jobs", {}, sweep_jobs=Answering(report), count_jobs=counter)


def _run_scaler() -> str:
    observation = FleetObservation(
        tick=NOON, desired=1, minimum=1, maximum=3, readings=(2, None), backlog=4
    )
    state = ScalerState()
    ticks = [
        FleetTick(
            fleet,
            ScalingDecision(
                action=action,
                desired=2,
                reason="Because.",
                observation=observation,
                state=state,
                state_if_refused=state,
            ),
            outcome,
            unhealthy=UnhealthyInstance("i-a", "It has not answered."),
        )
        for fleet in FLEETS
        for action in ScalingAction
        for outcome in ("DONE", "NOT_ALLOWED", "POSTPONED", "REFUSED")
    ]
    event = {"time": "2026-11-21T12:00:00Z"}
    return run_handler("scale_fleets", event, scale_fleets=Answering(ticks))


def _run_warm_up(status: WarmUpStatus) -> str:
    event = {"fleet": "pulid", "instance": "i-a#1"}
    return run_handler("warm_instance", event, warm_instance=Answering(WarmUpReport(status)))
