"""collect_outputs: brings a succeeded prompt's files from its instance into the result bucket."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

from ml_service.domain.errors import (
    InstanceError,
    InstanceUnreachableError,
    OutputMissingError,
    OutputUploadError,
)
from ml_service.domain.jobs import Job
from ml_service.domain.results import OutputFile, make_result_keys, read_content_type
from ml_service.ports import (
    Clock,
    ComfyUI,
    ComfyUIConnector,
    ImageConverter,
    JobStore,
    MediaStore,
)

_RETRY_PAUSES = (1.0, 3.0)
"""Seconds before the second and the third try: a lost file costs a whole run."""


@dataclass(frozen=True)
class CollectOutputs:
    """Streams output files; a repeat writes the same keys again, or nothing if all are there."""

    jobs: JobStore
    media: MediaStore
    connector: ComfyUIConnector
    converter: ImageConverter
    clock: Clock

    def collect(self, job_id: str) -> Job:
        """Store every output file of a job.

        Raises OutputMissingError, OutputInvalidError, OutputTooLargeError, OutputUploadError,
        JobClosedError, InstanceError.
        """
        job = self.jobs.get(job_id)
        job.require_open()
        if job.result_keys:
            return job  # a repeat, and the instance may be gone by now
        if job.kept is not None:
            job = job.take_up_outputs(self.clock.now())
            self.jobs.save(job)
        comfyui = self.connector.connect(job.address)
        keys = make_result_keys(job.outputs, job.conversion)
        for file, key in zip(job.outputs, keys, strict=True):
            self._store(comfyui, job, file, key)
        job = job.collect(keys)
        self.jobs.save(job)
        # ComfyUI keeps the graphs of 10,000 prompts in memory. Only now is this one's no longer
        # needed; if it stays, nothing is wrong.
        with suppress(InstanceError):
            comfyui.forget(job.prompt_id)
        return job

    def _store(self, comfyui: ComfyUI, job: Job, file: OutputFile, key: str) -> None:
        for pause in _RETRY_PAUSES:
            try:
                self._stream(comfyui, job, file, key)
            except (OutputMissingError, OutputUploadError, InstanceUnreachableError):
                self.clock.sleep(pause)
            else:
                return
        self._stream(comfyui, job, file, key)

    def _stream(self, comfyui: ComfyUI, job: Job, file: OutputFile, key: str) -> None:
        with self._open(comfyui, job, file) as content:
            self.media.put_result(key, content, content_type=read_content_type(key))

    @contextmanager
    def _open(self, comfyui: ComfyUI, job: Job, file: OutputFile) -> Iterator[BinaryIO]:
        """A file as it is stored."""
        with comfyui.open_output(file) as content:
            if job.conversion is None or not file.needs_conversion(job.conversion):
                yield content
                return
            with self.converter.convert(content, job.conversion) as converted:
                yield converted
