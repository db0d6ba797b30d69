"""The HTTP server of the moto process."""

from concurrent.futures import ThreadPoolExecutor
from socket import socket
from typing import Any, Final

from werkzeug.serving import ThreadedWSGIServer

# A long poll and a task of a state machine hold their thread while they wait.
_MOST_THREADS: Final = 2000


class PooledServer(ThreadedWSGIServer):
    """werkzeug's server on threads that are used again.

    A new one for each request costs a third of moto's whole answer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what werkzeug's server takes: host, port, application, request handler."""
        super().__init__(*args, **kwargs)
        self._threads = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="request")

    def process_request(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Answer on the next idle thread."""
        self._threads.submit(self.process_request_thread, request, client_address)
