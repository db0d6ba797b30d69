"""HTTP calls to one instance: how long each may take, what is tried again, which error it is."""

import time
from dataclasses import dataclass
from typing import Any

import requests

from ml_service.domain.errors import (
    InstanceFaultyError,
    InstanceSilentError,
    InstanceUnreachableError,
)


@dataclass(frozen=True)
class Timeouts:
    """Seconds that each kind of call may take: to connect, or from one piece to the next."""

    connect: float = 3.05
    """Just over the time after which Linux repeats a lost first packet for the second time."""
    probe: float = 2.5
    """For the queue length, connecting or answering: no answer in this time is unknown."""
    command: float = 30.0
    """Queue, history, cancelling: a server that loads a model may be silent for long."""
    submit: float = 45.0
    """POST /prompt, whose validation reads the input files."""
    doubt: float = 1.0
    """Between two looks for a prompt whose POST was not answered and may still be worked on."""
    transfer: float = 60.0
    """Uploads and downloads: between two pieces, not as a whole."""
    retry_pauses: tuple[float, ...] = (0.1, 0.4)
    """Before the second and the third try of a call that changes nothing."""


class InstanceCalls:
    """A session with one instance."""

    def __init__(self, host: str, timeouts: Timeouts) -> None:
        self._url = f"http://{host}"
        self._timeouts = timeouts
        self._session = requests.Session()
        # Private addresses: a proxy from the environment could never reach them.
        self._session.trust_env = False

    def get(self, path: str, *, seconds: float, **options: Any) -> requests.Response:
        """GET, tried again a little later if the connection broke or the status is 500 or more.

        Not after a timeout: then the time for it is spent.
        """
        for pause in self._timeouts.retry_pauses:
            try:
                response = self._request("GET", path, seconds=seconds, **options)
            except requests.Timeout as error:
                raise explain_failure(name_call("GET", path), error) from None
            except requests.RequestException:
                time.sleep(pause)
            else:
                if response.status_code < 500:
                    return response
                response.close()
                time.sleep(pause)
        return self.send("GET", path, seconds=seconds, **options)

    def send(self, method: str, path: str, *, seconds: float, **options: Any) -> requests.Response:
        """Make one request, once: ``seconds`` is how long the server may be silent.

        Only the caller of a POST knows whether it may be repeated.
        """
        try:
            return self._request(method, path, seconds=seconds, **options)
        except requests.RequestException as error:
            raise explain_failure(name_call(method, path), error) from None

    def _request(
        self,
        method: str,
        path: str,
        *,
        seconds: float,
        connect_seconds: float | None = None,
        **options: Any,
    ) -> requests.Response:
        connect = self._timeouts.connect if connect_seconds is None else connect_seconds
        return self._session.request(
            method,
            self._url + path,
            timeout=(connect, seconds),
            allow_redirects=False,
            **options,
        )


def name_call(method: str, path: str) -> str:
    """A call as errors name it: the rest of a path can hold names of files."""
    return f"{method} /{path.split('/')[1]}"


def explain_failure(call: str, error: Exception) -> InstanceUnreachableError:
    """The error that a broken call stands for.

    It names the type alone: the text holds addresses, and may hold what was sent.
    """
    kind = (
        InstanceSilentError if isinstance(error, requests.ReadTimeout) else InstanceUnreachableError
    )
    return kind(f"{call}: {type(error).__name__}")


def require_ok(response: requests.Response, call: str) -> None:
    """Raise InstanceUnreachableError for a status from 500, InstanceFaultyError for any but 200."""
    if response.status_code == 200:
        return
    kind = InstanceUnreachableError if response.status_code >= 500 else InstanceFaultyError
    raise kind(f"{call}: status {response.status_code}")


def read_json(response: requests.Response, call: str) -> Any:
    """The JSON of a good answer."""
    require_ok(response, call)
    try:
        return response.json()
    except requests.JSONDecodeError:
        raise InstanceFaultyError(f"{call}: no JSON") from None
