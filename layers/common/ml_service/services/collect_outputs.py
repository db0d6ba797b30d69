"""collect_outputs: brings a succeeded prompt's files from its instance into the result bucket."""

from dataclasses import dataclass

from ml_service.domain.jobs import Job
from ml_service.ports import ComfyUIConnector, JobStore, MediaStore


@dataclass(frozen=True)
class CollectOutputs:
    """Streams output files; a repeat writes the same keys again."""

    jobs: JobStore
    media: MediaStore
    connector: ComfyUIConnector

    def collect(self, job_id: str) -> Job:
        """Store every output file of a job.

        Raises OutputMissingError, OutputTooLargeError, JobClosedError, InstanceUnreachableError.
        """
        job = self.jobs.get(job_id)
        job.require_open()
        comfyui = self.connector.connect(job.address)
        for file in job.outputs:
            with comfyui.open_output(file) as content:
                self.media.put_result(file.key, content, content_type=file.content_type)
        job = job.collect(tuple(file.key for file in job.outputs))
        self.jobs.save(job)
        return job
