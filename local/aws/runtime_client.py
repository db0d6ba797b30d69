"""A small Lambda runtime client in pure Python, for systems without awslambdaric.

It speaks the same Runtime API and shows a handler the same context, errors and log lines. It covers
what functions written in Python use: no client context, no identity, no SnapStart hooks.
"""

import decimal
import http.client
import importlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

_API: Final = "/2018-06-01/runtime"
_ERROR_TYPE_HEADER: Final = "Lambda-Runtime-Function-Error-Type"

Handler = Callable[[Any, "LambdaContext"], Any]


class LambdaContext:
    """What a handler gets as its second argument."""

    identity = None
    client_context = None

    def __init__(self, request_id: str, function_arn: str, deadline_ms: int) -> None:
        """Take what the Runtime API says of this invocation; the rest is in the environment."""
        self.aws_request_id = request_id
        self.invoked_function_arn = function_arn
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self._deadline_ms = deadline_ms

    def get_remaining_time_in_millis(self) -> int:
        """Tell how many milliseconds are left before this process is killed."""
        return max(self._deadline_ms - int(time.time() * 1000), 0)


class _HandlerLoadError(Exception):
    """When the handler cannot be loaded; carries Lambda's name for it."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


class _RequestIdFilter(logging.Filter):
    """Puts the current invocation's id on each log record."""

    request_id = ""

    def filter(self, record: logging.LogRecord) -> bool:
        record.aws_request_id = self.request_id
        return True


def run_handler(handler_name: str) -> None:
    """Load ``module.function`` and answer its invocations for ever.

    Exits with status 1 when the handler cannot be loaded, after having reported why.
    """
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    request_ids = _set_up_logging()
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    try:
        handler = _load_handler(handler_name)
    except _HandlerLoadError as error:
        _report(connection, f"{_API}/init/error", _describe(error.error_type, str(error), None))
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  (the module may raise anything)
        details = _describe(type(error).__name__, str(error), error.__traceback__)
        _report(connection, f"{_API}/init/error", details)
        sys.exit(1)
    while True:
        headers, body = _call(connection, "GET", f"{_API}/invocation/next")
        request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        request_ids.request_id = request_id
        context = LambdaContext(
            request_id,
            headers["Lambda-Runtime-Invoked-Function-Arn"],
            int(headers["Lambda-Runtime-Deadline-Ms"]),
        )
        answer_path = f"{_API}/invocation/{request_id}"
        try:
            result = handler(json.loads(body), context)
        except Exception as error:  # noqa: BLE001  (so may the handler)
            details = _describe(type(error).__name__, str(error), error.__traceback__, request_id)
            _report(connection, f"{answer_path}/error", details)
            continue
        try:
            answer = json.dumps(result, ensure_ascii=False, default=_encode_decimal).encode()
        except (TypeError, ValueError) as error:
            message = f"Unable to marshal response: {error}"
            details = _describe("Runtime.MarshalError", message, None, request_id)
            _report(connection, f"{answer_path}/error", details)
            continue
        _call(connection, "POST", f"{answer_path}/response", answer)


def _load_handler(handler_name: str) -> Handler:
    module_name, _, function_name = handler_name.rpartition(".")
    if not module_name:
        raise _HandlerLoadError(
            "Runtime.MalformedHandlerName", f"Bad handler '{handler_name}': it has no dot"
        )
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise _HandlerLoadError(
            "Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}"
        ) from error
    except SyntaxError as error:
        raise _HandlerLoadError(
            "Runtime.UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}"
        ) from error
    try:
        handler: Handler = getattr(module, function_name)
    except AttributeError as error:
        raise _HandlerLoadError(
            "Runtime.HandlerNotFound",
            f"Handler '{function_name}' missing on module '{module_name}'",
        ) from error
    return handler


def _encode_decimal(value: object) -> float:
    # DynamoDB gives every number as a Decimal.
    if isinstance(value, decimal.Decimal):
        return float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _describe(
    error_type: str, message: str, trace: TracebackType | None, request_id: str = ""
) -> dict[str, Any]:
    frames = [
        frame for frame in traceback.extract_tb(trace) if frame.filename != __file__
    ]  # The first frame is this file's own.
    return {
        "errorMessage": message,
        "errorType": error_type,
        "requestId": request_id,
        "stackTrace": traceback.format_list(frames),
    }


def _report(connection: http.client.HTTPConnection, path: str, details: dict[str, Any]) -> None:
    lines = [f"[ERROR] {details['errorType']}: {details['errorMessage']}", *details["stackTrace"]]
    sys.stdout.write("\r".join(lines).replace("\n", "\r") + "\n")
    headers = {_ERROR_TYPE_HEADER: str(details["errorType"])}
    _call(connection, "POST", path, json.dumps(details).encode(), headers)


def _call(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[http.client.HTTPMessage, bytes]:
    connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
    response = connection.getresponse()
    content = response.read()
    if response.status not in (200, 202):
        raise RuntimeError(f"the Runtime API answered {response.status} to {method} {path}")
    return response.headers, content


def _set_up_logging() -> _RequestIdFilter:
    """Give the root logger the one handler that Lambda gives it."""
    output = logging.StreamHandler(sys.stdout)
    formatter = logging.Formatter(
        "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s",
        "%Y-%m-%dT%H:%M:%S",
    )
    formatter.converter = time.gmtime
    output.setFormatter(formatter)
    request_ids = _RequestIdFilter()
    output.addFilter(request_ids)
    logging.getLogger().addHandler(output)
    return request_ids
