"""read_output: a job's result, as it is stored or as a picture of the format that is asked for."""

from dataclasses import dataclass
from datetime import timedelta
from typing import get_args

from ml_service.domain.errors import RequestError
from ml_service.domain.jobs import JobState
from ml_service.domain.manifests import Conversion, OutputRole, PictureFormat
from ml_service.domain.media_types import choose_media_type
from ml_service.domain.results import is_still_picture, read_content_type
from ml_service.ports import ImageConverter, ResultStore
from ml_service.services.read_job import OUTPUT_URL_LIFETIME, ReadJob

MAX_ANSWER_BYTES = 4_500_000
"""Lambda answers 6 MB at most, and a file travels in base64, a third longer."""


@dataclass(frozen=True)
class Output:
    """A result: where to fetch it, or what it was converted to."""

    content_type: str
    url: str = ""
    """Presigned; empty if there is content."""
    content: bytes = b""


@dataclass(frozen=True)
class ReadOutput:
    """Leads to a stored file, and converts a picture only if another format is asked for."""

    reader: ReadJob
    results: ResultStore
    converter: ImageConverter
    quality: int
    """Of JPEG and WebP, from 0 to 95."""
    url_lifetime: timedelta = OUTPUT_URL_LIFETIME

    def read(self, job_id: str, *, role: OutputRole, accept: str) -> Output:
        """The file of a job that is ``role``, in the format that ``accept`` wants most.

        Raises JobNotFoundError, RequestError, OutputMissingError, OutputInvalidError and
        OutputTooLargeError.
        """
        job = self.reader.find(job_id)
        if not job.state.is_final:
            raise RequestError(
                409, "JOB_NOT_DONE", f"The job is {job.state}: ask again when it has succeeded."
            )
        if job.state is not JobState.SUCCEEDED:
            raise RequestError(
                404, "NO_OUTPUT", f"The job is {job.state} and has no output: send it anew."
            )
        key = self.reader.list_roles(job).get(role)
        if key is None:
            raise RequestError(
                404, "NO_OUTPUT", f"The job has no {role} file: GET /jobs/{job.job_id} lists all."
            )
        stored = read_content_type(key)
        formats: dict[str, PictureFormat] = {f"image/{f}": f for f in get_args(PictureFormat)}
        offers = [stored, *(t for t in formats if is_still_picture(stored) and t != stored)]
        chosen = choose_media_type(accept, offers)
        if chosen is None:
            raise RequestError(
                406, "NOT_ACCEPTABLE", f"Accept one of these media types: {', '.join(offers)}."
            )
        if chosen == stored:
            return Output(stored, url=self.results.sign(key, lifetime=self.url_lifetime))
        conversion = Conversion(format=formats[chosen], quality=self.quality)
        return Output(chosen, content=self._convert(key, conversion))

    def _convert(self, key: str, conversion: Conversion) -> bytes:
        with (
            self.results.open_result(key) as stored,
            self.converter.convert(stored.content, conversion) as converted,
        ):
            content = converted.read(MAX_ANSWER_BYTES + 1)
        if len(content) > MAX_ANSWER_BYTES:
            raise RequestError(
                406,
                "OUTPUT_TOO_LARGE",
                f"As {conversion.format} the picture is too large for an answer: accept another "
                "format, or */* to be led to the stored file.",
            )
        return content
