"""Counts the calls that functions make to the embedded AWS, as a bill would list them."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Any, Final

CALLS_PATH: Final = "/_local/calls"
"""Answers with the counts so far, by service and operation."""
_SERVICE: Final = re.compile(r"/([a-z0-9-]+)/aws4_request")
# botocore says so in its User-Agent where Lambda's own variable is set.
_IN_A_FUNCTION: Final = "exec-env/AWS_Lambda_"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class CallCounter:
    """A WSGI application before another one, which notes what goes by."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def __call__(
        self, environment: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Count a request of a function and pass it on."""
        if environment["PATH_INFO"] == CALLS_PATH:
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(self._counts).encode()]
        if _IN_A_FUNCTION in environment.get("HTTP_USER_AGENT", ""):
            with self._lock:
                self._counts[describe_call(environment)] += 1
        return self._application(environment, start_response)


def describe_call(environment: Mapping[str, Any]) -> str:
    """Service and operation of a signed request, as ``dynamodb UpdateItem`` or ``s3 PUT``.

    The operation is the HTTP method where it is not in the headers.
    """
    found = _SERVICE.search(environment.get("HTTP_AUTHORIZATION", ""))
    operation = environment.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
    return f"{found[1] if found else 'unsigned'} {operation or environment['REQUEST_METHOD']}"
