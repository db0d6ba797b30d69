"""The use cases of the jobs API, as its handler needs them."""

from collections.abc import Iterable
from dataclasses import dataclass

from ml_service.domain.api_models import JobLine, JobPage, WorkflowView
from ml_service.domain.errors import RequestError
from ml_service.domain.jobs import JobState
from ml_service.domain.workflows import WorkflowCatalog
from ml_service.ports import Clock
from ml_service.services.accept_job import AcceptJob
from ml_service.services.ask_warm_up import AskWarmUp
from ml_service.services.cancel_job import CancelJob
from ml_service.services.drop_jobs import DropJobs
from ml_service.services.list_fleets import ListFleets
from ml_service.services.list_jobs import ListJobs
from ml_service.services.read_job import ReadJob
from ml_service.services.read_output import ReadOutput


@dataclass(frozen=True)
class JobsApi:
    """One service per use case, all of one stage."""

    stage: str
    catalog: WorkflowCatalog
    clock: Clock
    acceptor: AcceptJob
    reader: ReadJob
    lister: ListJobs
    canceller: CancelJob
    dropper: DropJobs
    outputs: ReadOutput
    fleets: ListFleets
    warm_ups: AskWarmUp
    debug_header: bool

    def require_fleet(self, name: str) -> str:
        """The name of a fleet of this stage; raises RequestError."""
        if name not in self.fleets.fleets:
            known = ", ".join(self.fleets.fleets)
            raise RequestError(404, "FLEET_NOT_FOUND", f"Name one of these fleets: {known}.")
        return name

    def list_jobs(
        self, fleet: str | None, states: Iterable[JobState], *, limit: int, cursor: str | None
    ) -> JobPage:
        """A part of the list of jobs, of one fleet or all; raises RequestError."""
        fleets = list(self.fleets.fleets) if fleet is None else [self.require_fleet(fleet)]
        page = self.lister.list_jobs(fleets, states, limit=limit, cursor=cursor)
        lines = tuple(
            JobLine(
                job_id=job.job_id,
                status=job.state,
                workflow=job.workflow,
                fleet=job.fleet,
                received_at=job.received_at,
                closed_at=job.closed_at,
            )
            for job in page.jobs
        )
        return JobPage(jobs=lines, cursor=page.cursor)

    def list_workflows(self) -> tuple[WorkflowView, ...]:
        """Every workflow with what it takes."""
        return tuple(
            WorkflowView(
                workflow=workflow.workflow,
                fleet=workflow.fleet,
                subjects=workflow.subjects,
                prompt_files=workflow.prompt_files,
                inputs=workflow.inputs,
                kind=workflow.outputs.kind,
                expected_seconds=workflow.expected_seconds,
            )
            for workflow in self.catalog
        )
