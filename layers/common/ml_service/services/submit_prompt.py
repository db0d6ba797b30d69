"""submit_prompt: brings a job's inputs and its prompt to the chosen instance."""

from dataclasses import dataclass

from ml_service.domain.errors import InstanceError
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.manifests import OUTPUT_PREFIX, SEED
from ml_service.domain.prompts import CANCEL_SECONDS, PromptState, make_prompt_id
from ml_service.domain.rendering import render_prompt
from ml_service.domain.workflows import WorkflowCatalog
from ml_service.ports import Clock, ComfyUI, ComfyUIConnector, FleetStore, JobStore, MediaStore
from ml_service.services.check_input import check_input
from ml_service.services.record_reading import record_reading


@dataclass(frozen=True)
class SubmitPrompt:
    """Uploads, renders and posts; a repeat of the same call posts nothing twice."""

    stage: str
    catalog: WorkflowCatalog
    jobs: JobStore
    store: FleetStore
    media: MediaStore
    connector: ComfyUIConnector
    clock: Clock

    def submit(self, job_id: str) -> Job:
        """Submit the prompt of a job's present attempt.

        Raises JobError if the job has failed for good, InstanceError if it must go elsewhere.
        """
        job = self.jobs.get(job_id)
        job.require_open()
        job.check_deadline(self.clock.now())
        comfyui = self.connector.connect(job.address)
        try:
            job = self._submit(job, comfyui)
        except InstanceError:
            self.store.record_reading(job.fleet, job.instance, None, self.clock.now())
            raise
        record_reading(comfyui, job, store=self.store, clock=self.clock)
        return job

    def _submit(self, job: Job, comfyui: ComfyUI) -> Job:
        prompt_id = make_prompt_id(stage=self.stage, job_id=job.job_id, attempt=job.attempt)
        if (
            job.state is JobState.SUBMITTED
            and comfyui.find(prompt_id).state is not PromptState.UNKNOWN
        ):
            return job
        graph = self._render(job, comfyui)
        if job.state is not JobState.SUBMITTED:
            # Before the POST: whatever happens from here on, the prompt can be found.
            job = job.submit(prompt_id=prompt_id, at=self.clock.now())
            self.jobs.save(job)
        comfyui.submit(prompt_id, graph)
        if self.jobs.get(job.job_id).state.is_final:
            comfyui.cancel(prompt_id, seconds=CANCEL_SECONDS)
        return job

    def _render(self, job: Job, comfyui: ComfyUI) -> dict[str, dict[str, object]]:
        if job.inputs is None:
            raise ValueError(f"job {job.job_id} has no inputs: it was refused, not queued")
        values = {**job.inputs.values, OUTPUT_PREFIX: job.inputs.output_prefix, SEED: job.seed}
        for source in job.inputs.media:
            with self.media.open_input(source) as stream:
                checked = check_input(source, stream)
                values[source.input] = comfyui.upload(source.upload_name, checked)
        workflow = self.catalog.workflow(job.workflow)
        return render_prompt(workflow, self.catalog.graph(job.workflow), values)
