"""Forks functions' processes: ``python -m local.aws.fork_server CLIENT``.

It has loaded what every function needs from the Lambda runtime, and the layers of those that it was
asked for, so a process costs a tenth of one that begins with an empty interpreter. The functions'
own code is loaded in their own processes.

One JSON object a line. In: ``{"id", "handler", "folder", "layers", "environment", "log"}`` asks for
a process (``log`` null: standard error), ``{"kill": id}`` for the end of one and of all that it has
started.
Out: ``{"id", "status"}`` when one has ended, the status negative for a signal. With the end of the
input the server ends, and its processes with it.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import sys
import time
import traceback
from typing import Any, Final

from local.aws.function_worker import run_worker

# What functions import first; a package that is not installed is their affair. Not awslambdaric,
# which reads the address of the Runtime API while it loads.
_PRELOADED: Final = (
    "boto3",
    "boto3.dynamodb.conditions",
    "aws_lambda_powertools.event_handler.openapi.params",
    "aws_lambda_powertools.metrics",
    "aws_lambda_powertools.utilities.batch",
    "aws_lambda_powertools.utilities.typing",
    "pydantic",
    "requests",
    "requests_toolbelt",
    "websocket",
    "yaml",
)
_READ_BYTES: Final = 1024 * 1024


class ForkServer:
    """Starts, kills and buries processes as its input says."""

    def __init__(self, client: str) -> None:
        """Take who speaks to the Runtime API in the processes."""
        self._client = client
        self._pids: dict[int, int] = {}  # by the id that the asker gave
        self._layers: dict[str, set[str]] = {}  # the modules that were loaded from each
        self._ended = os.pipe()

    def serve(self) -> None:
        """Work until the input ends."""
        os.set_blocking(self._ended[1], False)
        signal.set_wakeup_fd(self._ended[1])
        signal.signal(signal.SIGCHLD, lambda *_: None)
        selector = selectors.DefaultSelector()
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        selector.register(self._ended[0], selectors.EVENT_READ)
        rest = b""
        while True:
            for key, _ in selector.select():
                data = os.read(key.fd, _READ_BYTES)
                if key.fd == self._ended[0]:
                    self._bury()
                    continue
                if not data:
                    return self._end()
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._follow(json.loads(line))

    def _follow(self, order: dict[str, Any]) -> None:
        if "kill" in order:
            # A process that has been buried has no group any more.
            if order["kill"] in self._pids:
                os.killpg(self._pids[order["kill"]], signal.SIGKILL)
            return
        for folder in order["layers"]:
            if folder not in self._layers:
                self._layers[folder] = _load_layer(folder)
        pid = os.fork()
        if pid == 0:
            self._become(order)
        # The child does it, too: neither knows who comes first, and a kill needs the group.
        os.setpgid(pid, pid)
        self._pids[order["id"]] = pid

    def _become(self, order: dict[str, Any]) -> None:
        """Turn this child into the function's process; does not return."""
        status = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in self._ended:
                os.close(end)
            self._forget_layers_but(order["layers"])
            _redirect(order["log"])
            os.chdir(order["folder"])
            os.environ.clear()
            os.environ.update(order["environment"])
            time.tzset()
            sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
            run_worker(os.getppid(), self._client, order["handler"])
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:  # noqa: BLE001  (what an interpreter does with it)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _forget_layers_but(self, folders: list[str]) -> None:
        """A function has its own layers and no other."""
        own = {name for folder in folders for name in self._layers[folder]}
        for name in {name for names in self._layers.values() for name in names} - own:
            del sys.modules[name]

    def _bury(self) -> None:
        for process_id, pid in list(self._pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._pids[process_id]
                news = {"id": process_id, "status": os.waitstatus_to_exitcode(status)}
                sys.stdout.write(json.dumps(news) + "\n")
                sys.stdout.flush()

    def _end(self) -> None:
        for pid in self._pids.values():
            os.killpg(pid, signal.SIGKILL)


def _load_layer(folder: str) -> set[str]:
    """Load every module of a layer's packages; gives what was loaded of it.

    A module that cannot be loaded is the affair of the function that needs it.
    """
    before = set(sys.modules)
    sys.path.insert(0, folder)
    try:
        for module in pkgutil.walk_packages([folder], onerror=lambda _: None):
            with contextlib.suppress(Exception):
                importlib.import_module(module.name)
    finally:
        sys.path.remove(folder)
    gc.collect()
    gc.freeze()
    return {
        name
        for name in set(sys.modules) - before
        if str(getattr(sys.modules[name], "__file__", None)).startswith(folder + os.sep)
    }


def _redirect(log: str | None) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.dup(2) if log is None else os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)


def main() -> None:
    """Load what can be shared, and serve."""
    (client,) = sys.argv[1:]
    for name in _PRELOADED:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    # So that the children's collectors leave the shared pages shared.
    gc.collect()
    gc.freeze()
    ForkServer(client).serve()


if __name__ == "__main__":
    main()
