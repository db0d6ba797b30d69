"""The stage's metrics, as lines in CloudWatch's embedded metric format on standard output.

Each has the dimension ``service``; those of a fleet and of a workflow have these too. A metric is
paid for per hour in which it has a value: a workflow without jobs has none.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from ml_service.domain.jobs import Job
from ml_service.domain.stage_counts import StageCounts

Outcome = TypeVar("Outcome", bound=StrEnum)


def report_answered_job(job: Job) -> None:
    """Count a job whose answer has just gone out by its final state, and tell how long it took.

    A refused message never was a job, and counts elsewhere.

    The times are measured from end to end, in seconds; those of a run that an operator has begun
    leave the waiting out, which began with the first one.
    """
    if not job.fleet:
        return
    metrics = EphemeralMetrics()
    metrics.add_dimensions(service=metrics.service, fleet=job.fleet)
    metrics.add_dimensions(service=metrics.service, fleet=job.fleet, workflow=job.workflow)
    metrics.add_metric(f"Jobs{job.state.title()}", MetricUnit.Count, 1)
    for name, seconds in _measure(job).items():
        metrics.add_metric(name, MetricUnit.Seconds, seconds)
    metrics.flush_metrics()


def _measure(job: Job) -> Mapping[str, float]:
    seconds = {}
    if job.closed_at is not None and job.run == 1:
        seconds["JobSeconds"] = (job.closed_at - job.received_at).total_seconds()
    if job.admitted_at is not None and job.run == 1:
        seconds["QueueSeconds"] = (job.admitted_at - job.received_at).total_seconds()
    if job.closed_at is not None and job.admitted_at is not None:
        seconds["RunSeconds"] = (job.closed_at - job.admitted_at).total_seconds()
    return seconds


def report_counts(counts: StageCounts) -> None:
    """Tell what a stage holds."""
    report_values({"OverdueJobs": counts.overdue_jobs, "UnansweredJobs": counts.unanswered_jobs})
    for fleet, held in counts.fleets.items():
        report_values(
            {
                "WaitingJobs": held.waiting.total(),
                "ActiveJobs": held.active.total(),
                "Instances": held.instances,
                "ReadyInstances": held.ready_instances,
                "QuarantinedInstances": held.quarantined_instances,
            },
            fleet=fleet,
        )
        for workflow in sorted(held.waiting.keys() | held.active.keys()):
            report_values(
                {"WaitingJobs": held.waiting[workflow], "ActiveJobs": held.active[workflow]},
                fleet=fleet,
                workflow=workflow,
            )


def report_outcomes(prefix: str, counts: Mapping[Outcome, int]) -> None:
    """Emit how often each outcome came, PUT_BACK of ``Jobs`` as JobsPutBack; none is nothing."""
    if counts:
        report_values({f"{prefix}{it.title().replace('_', '')}": n for it, n in counts.items()})


def report_values(
    values: Mapping[str, float], *, unit: MetricUnit = MetricUnit.Count, **dimensions: str
) -> None:
    """Emit values of one unit by their names; all ``dimensions`` and the service are one set."""
    metrics = EphemeralMetrics()
    for name, dimension in dimensions.items():
        metrics.add_dimension(name, dimension)
    for name, value in values.items():
        metrics.add_metric(name, unit, value)
    metrics.flush_metrics()
