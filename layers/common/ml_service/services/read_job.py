"""read_job: what there is to know of one job, for who waits for it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from posixpath import basename

from ml_service.domain.api_models import JobEvent, JobOutput, JobView
from ml_service.domain.errors import JobNotFoundError
from ml_service.domain.estimates import estimate_seconds, measure_progress
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.manifests import ROLE_PATTERNS, OutputRole
from ml_service.domain.results import assign_roles, read_content_type
from ml_service.domain.workflows import WorkflowCatalog
from ml_service.ports import FleetStore, JobStore, ResultStore

OUTPUT_URL_LIFETIME = timedelta(minutes=15)
"""Whoever has the URL has the file, so it lives as long as fetching takes."""
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
"""Ids that senders give have up to 64 characters; the service itself makes longer ones of them."""


@dataclass(frozen=True)
class ReadJob:
    """Reads a job's record, and around it what its queue and its instance say."""

    catalog: WorkflowCatalog
    jobs: JobStore
    store: FleetStore
    results: ResultStore

    def find(self, job_id: str) -> Job:
        """A job's record; raises JobNotFoundError, also for what cannot be an id."""
        if not _JOB_ID.fullmatch(job_id):
            raise JobNotFoundError("No job has such an id.")
        return self.jobs.get(job_id)

    def read(self, job_id: str, *, now: datetime) -> JobView:
        """A job as it stands; raises JobNotFoundError."""
        job = self.find(job_id)
        position = self.jobs.count_earlier(job) if job.state is JobState.QUEUED else None
        is_open = not job.state.is_final
        return JobView(
            job_id=job.job_id,
            status=job.state,
            workflow=job.workflow,
            fleet=job.fleet,
            progress=measure_progress(job, nodes=self._count_nodes(job)),
            position=position,
            estimated_seconds=estimate_seconds(
                job,
                position=position or 0,
                instances=self.store.list_instances(job.fleet),
                now=now,
            )
            if is_open
            else None,
            attempts=job.attempt,
            run=job.run,
            instance_id=job.instance_id or None,
            timeline=_list_events(job),
            deadline=job.deadline,
            failure=job.failure,
            outputs=self._list_outputs(job, now),
        )

    def list_roles(self, job: Job) -> dict[OutputRole, str]:
        """The keys of a job's results by what they are to the backend."""
        if not job.result_keys:
            return {}
        prefix = job.inputs.output_prefix if job.inputs else ""
        patterns = self._find_patterns(job.workflow)
        return dict(assign_roles(job.result_keys, patterns, output_prefix=prefix))

    def _find_patterns(self, workflow: str) -> Mapping[OutputRole, str]:
        known = next((w for w in self.catalog if w.workflow == workflow), None)
        # Records live for 90 days, maybe longer than their workflow.
        return ROLE_PATTERNS if known is None else known.outputs.role_patterns

    def _list_outputs(self, job: Job, now: datetime) -> tuple[JobOutput, ...]:
        roles = {key: role for role, key in self.list_roles(job).items()}
        return tuple(
            JobOutput(
                role=roles.get(key),
                name=basename(key),
                content_type=read_content_type(key),
                url=self.results.sign(key, lifetime=OUTPUT_URL_LIFETIME),
                expires_at=now + OUTPUT_URL_LIFETIME,
            )
            for key in job.result_keys
        )

    def _count_nodes(self, job: Job) -> int:
        return len(self.catalog.graph(job.workflow)) if job.progress is not None else 1


def _list_events(job: Job) -> tuple[JobEvent, ...]:
    moments = (
        (JobState.QUEUED, job.received_at),
        (JobState.ADMITTED, job.admitted_at),
        (JobState.SUBMITTED, job.submitted_at),
        (job.state, job.closed_at),
    )
    return tuple(JobEvent(status=state, at=at) for state, at in moments if at is not None)
