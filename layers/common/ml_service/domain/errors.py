"""Every error that ml-service raises on purpose.

    MlServiceError
    ├── RefusedMessageError          a message is wrong: its sender gets the reason
    ├── WorkflowError                a manifest or a graph is wrong: its author gets the reason
    ├── JobError                     a job has failed for good
    │   ├── InputNotFoundError, InputForbiddenError, InputTooLargeError, UnsupportedMediaError
    │   ├── PromptRefusedError, PromptFailedError
    │   ├── OutputMissingError, OutputInvalidError, OutputTooLargeError, OutputUploadError
    │   └── DeadlineExceededError, AttemptsExhaustedError, JobClosedError
    ├── InstanceError                an instance is of no use now: the job goes elsewhere
    │   ├── InstanceUnreachableError     transient: no connection, or an answer of status 500
    │   │   └── InstanceSilentError          connected, but no answer in time
    │   └── InstanceFaultyError          permanent: what answers there is no ComfyUI that we know
    ├── HandOffFailedError           a bucket or queue takes nothing from us: it is left at that
    ├── ExecutionsThrottledError     Step Functions starts no execution now: ask again later
    ├── ScalingRefusedError          Auto Scaling did not accept a desired capacity
    ├── JobNotFoundError             no record has this job id
    ├── JobChangedError              somebody else wrote the job record first: read it again
    ├── JobNotForwardedError         an accepted job could not be put on its task queue
    ├── RequestError                 a request to the API cannot be fulfilled as it is
    └── RedriveRefusedError          a job cannot run again, or not yet

A ``JobError``'s text is one sentence for a person and travels to the backend, so it names keys,
nodes and limits, but never a prompt. Its class name travels through Step Functions as the error
name, its ``code`` is stable and goes into the reply's log line, the job record and the metrics.
"""

from enum import StrEnum
from typing import ClassVar


class MlServiceError(Exception):
    """When something fails in a way that ml-service knows."""


class RefusalCode(StrEnum):
    """Why a message on the input queue was refused; stable, for logs, metrics and the DLQ."""

    INVALID_JSON = "INVALID_JSON"
    INVALID_MESSAGE = "INVALID_MESSAGE"
    TOO_LARGE = "TOO_LARGE"
    UNKNOWN_SUBJECT = "UNKNOWN_SUBJECT"
    UNKNOWN_WORKFLOW = "UNKNOWN_WORKFLOW"
    UNSUPPORTED_MEDIA = "UNSUPPORTED_MEDIA"
    FORBIDDEN_SOURCE = "FORBIDDEN_SOURCE"
    CONFLICT = "CONFLICT"


class RefusedMessageError(MlServiceError):
    """When a message on the input queue can never become a job, however often it is tried."""

    def __init__(self, code: RefusalCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class WorkflowError(MlServiceError):
    """When a manifest or a graph cannot be used as it stands; the text names file and place."""


class JobError(MlServiceError):
    """When a job has failed for good: its text is the sentence that the backend gets."""

    code: ClassVar[str]


class InputNotFoundError(JobError):
    """When an input object does not exist."""

    code = "INPUT_NOT_FOUND"


class InputForbiddenError(JobError):
    """When an input object may not be read."""

    code = "INPUT_FORBIDDEN"


class InputTooLargeError(JobError):
    """When an input object is larger than the limit."""

    code = "INPUT_TOO_LARGE"


class UnsupportedMediaError(JobError):
    """When an input object is not media that can be processed."""

    code = "UNSUPPORTED_MEDIA"


class PromptRefusedError(JobError):
    """When ComfyUI finds the rendered prompt invalid."""

    code = "PROMPT_REFUSED"


class PromptFailedError(JobError):
    """When a node failed, or somebody interrupted the prompt."""

    code = "PROMPT_FAILED"


class OutputMissingError(JobError):
    """When a prompt succeeded without an output file, or a listed file is gone."""

    code = "OUTPUT_MISSING"


class OutputInvalidError(JobError):
    """When ComfyUI reports an output under a name that cannot be a file name."""

    code = "OUTPUT_INVALID"


class OutputTooLargeError(JobError):
    """When an output file is larger than the limit."""

    code = "OUTPUT_TOO_LARGE"


class OutputUploadError(JobError):
    """When an output file could not be stored, however often it was tried; the run is not lost."""

    code = "OUTPUT_UPLOAD"


class DeadlineExceededError(JobError):
    """When a job has run longer than its workflow allows."""

    code = "DEADLINE_EXCEEDED"


class AttemptsExhaustedError(JobError):
    """When a job was lost with its instance too often to try again."""

    code = "ATTEMPTS_EXHAUSTED"


class JobClosedError(JobError):
    """When a step is asked to work on a job that has its final state already."""

    code = "JOB_CLOSED"


class InstanceError(MlServiceError):
    """When a ComfyUI instance does not do what it is asked to; its subclasses say how."""


class InstanceUnreachableError(InstanceError):
    """When an instance refuses, drops or fails a request; the same request may succeed later."""


class InstanceSilentError(InstanceUnreachableError):
    """When an instance takes a request and does not answer in time: it may be loading a model."""


class InstanceFaultyError(InstanceError):
    """When an instance answers as ComfyUI does not, so that asking again is of no use."""


class HandOffFailedError(MlServiceError):
    """When a bucket or a queue refuses a finished video for good."""


class ExecutionsThrottledError(MlServiceError):
    """When Step Functions starts no execution for now: too many calls, or too many that run."""


class ScalingRefusedError(MlServiceError):
    """When Auto Scaling does not accept a desired capacity, for now or for good."""


class JobNotFoundError(MlServiceError):
    """When no record has the job id."""


class JobChangedError(MlServiceError):
    """When the job record was written by somebody else since it was read."""


class JobNotForwardedError(MlServiceError):
    """When a job's task queue does not take it for now; the same request may succeed later."""


class RequestError(MlServiceError):
    """When a request to the API is wrong in itself; its text is a sentence for who sent it."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        """HTTP's."""
        self.code = code


class RedriveRefusedError(MlServiceError):
    """When an operator's redrive of a job is not possible, or not yet; the text says why."""


JOB_ERRORS: dict[str, type[JobError]] = {
    error.__name__: error for error in JobError.__subclasses__()
}
"""The permanent failures by the name under which Step Functions reports them."""
