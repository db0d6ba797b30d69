"""What the jobs API answers to an error: a status, a code, and a sentence that says what to do."""

from collections.abc import Mapping

from ml_service.domain.errors import (
    JobChangedError,
    JobClosedError,
    JobError,
    JobNotForwardedError,
    JobNotFoundError,
    MlServiceError,
    OutputInvalidError,
    OutputMissingError,
    OutputTooLargeError,
    RefusalCode,
    RefusedMessageError,
    RequestError,
)

_REFUSED: Mapping[RefusalCode, int] = {
    RefusalCode.INVALID_JSON: 400,
    RefusalCode.TOO_LARGE: 413,
}
"""Where it is not 422, which is also what a key means that comes with another body."""
_JOB_ERRORS: Mapping[type[JobError], tuple[int, str]] = {
    JobClosedError: (409, "There is nothing left to cancel."),
    OutputMissingError: (404, "Send the job anew."),
    OutputInvalidError: (406, "Accept */* to be led to the file as it is stored."),
    OutputTooLargeError: (406, "Accept */* to be led to the file as it is stored."),
}
_OTHERS: Mapping[type[MlServiceError], tuple[int, str, str]] = {
    JobNotFoundError: (404, "JOB_NOT_FOUND", "Check the id: this stage has no such job."),
    JobChangedError: (409, "JOB_CHANGED", "The job has just changed: send it again."),
    JobNotForwardedError: (503, "TRY_AGAIN", "Send it again later, under the same key."),
}
_FAILURE = (500, "INTERNAL_ERROR", "Send it again later; the service's log says why.")


def explain_problem(error: MlServiceError) -> RequestError:
    """The problem that an error means to who sent the request; 500 if it is none of his."""
    match error:
        case RequestError():
            return error
        case RefusedMessageError():
            return RequestError(_REFUSED.get(error.code, 422), error.code, error.sentence)
        case JobError() if type(error) in _JOB_ERRORS:
            status, advice = _JOB_ERRORS[type(error)]
            return RequestError(status, error.code, f"{error} {advice}")
    return RequestError(*_OTHERS.get(type(error), _FAILURE))
