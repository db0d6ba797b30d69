"""result_api: the paths by which the backend has always asked for results, inside the VPC."""

from typing import Annotated, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import ALBResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import (
    RequestUnsupportedContentType,
    RequestValidationError,
)
from aws_lambda_powertools.event_handler.openapi.params import Body
from aws_lambda_powertools.utilities.typing import LambdaContext

from ml_service.bootstrap import make_find_results
from ml_service.domain.api_models import Problem
from ml_service.domain.result_requests import (
    PhotoResultQuery,
    ResultKey,
    ResultKeys,
    ResultQuery,
)

logger = Logger()
app = ALBResolver(enable_validation=True)


@app.post("/api/comfyui/comfyui-result")
def find_result(query: Annotated[ResultQuery, Body()]) -> ResultKey:
    """Give the newest file of a video or audio job."""
    return make_find_results().find_newest(query)


@app.post("/api/comfyui/photo-result")
def find_photo(query: Annotated[PhotoResultQuery, Body()]) -> ResultKey:
    """Give the newest file of a photo job."""
    return make_find_results().find_newest(query)


@app.post("/api/comfyui/photo-multi-result")
def find_photos(query: Annotated[PhotoResultQuery, Body()]) -> ResultKeys:
    """Give the files of a photo job by what each is."""
    return make_find_results().find_roles(query)


@app.get("/status")
def tell_status() -> Response[str]:
    """Answer the load balancer's look, and a person's."""
    return Response(status_code=200, content_type="text/plain", body="ml-service is up")


@app.exception_handler([RequestValidationError, UnicodeDecodeError])
def explain_invalid_request(_: Exception) -> Response[str]:
    """Say which members a request needs."""
    return _answer(
        400,
        "INVALID_REQUEST",
        "Send JSON with GroupId (an integer), Workflow or PhotoWorkflow, InputS3Key, PartialName.",
    )


@app.exception_handler(RequestUnsupportedContentType)
def explain_media_type(_: RequestUnsupportedContentType) -> Response[str]:
    """Name the one media type that is taken."""
    return _answer(415, "UNSUPPORTED_MEDIA_TYPE", "Send the body as application/json.")


@app.exception_handler(NotFoundError)
def explain_path(_: NotFoundError) -> Response[str]:
    """Name the paths that there are."""
    return _answer(
        404,
        "NOT_FOUND",
        "POST to /api/comfyui/comfyui-result, photo-result or photo-multi-result.",
    )


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer a request that came through the load balancer."""
    return app.resolve(event, context)


def _answer(status: int, code: str, message: str) -> Response[str]:
    body = Problem(code=code, message=message).model_dump_json()
    return Response(status_code=status, content_type="application/json", body=body)
