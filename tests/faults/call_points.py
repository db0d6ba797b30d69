"""Strikes a service at its n-th call of a port: with an error, with its death, or with company."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import Any

from ml_service.domain.errors import InstanceUnreachableError
from tests.fakes import FakeClock
from tests.faults.simulated_instances import SimulatedInstance


class Crash(BaseException):
    """The process is gone: nothing that it would have done afterwards has an effect."""


class Strike(Enum):
    """What happens at the call."""

    FAILS = "the call fails and has no effect"
    ANSWER_LOST = "the call has its effect, but fails"
    DIES_BEFORE = "the process dies before the call"
    DIES_AFTER = "the process dies after the call"
    NONE = "the call goes well"


@dataclass
class CallPoints:
    """One invocation's port calls, counted, with a strike at one of them."""

    at: int | str
    """Which call: a number from 1, or port and method of the first that is to be struck."""
    strike: Strike = Strike.FAILS
    meets: Callable[[], object] | None = None
    """What else happens just before the call."""
    made: int = 0
    struck_at: str = ""
    """The call that was struck."""
    is_dead: bool = False

    def watch(self, service: Any) -> Any:
        """A service whose ports are watched, and those of the services in it."""
        watched = {f.name: self._wrap(getattr(service, f.name)) for f in fields(service) if f.init}
        return replace(service, **watched)

    def _wrap(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: self._wrap(part) for name, part in value.items()}
        module = type(value).__module__
        if is_dataclass(value) and module.startswith("ml_service.services."):
            return self.watch(value)
        if module.startswith("tests.") and not isinstance(value, FakeClock):
            return _WatchedPort(self, value)
        return value

    def call(self, port: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        """Make a call, or not."""
        if self.is_dead:
            raise Crash
        if name == "connect":
            return _WatchedPort(self, port.connect(*args, **kwargs))
        self.made += 1
        call = f"{type(port).__name__}.{name}"
        is_struck = not self.struck_at and self.at in (self.made, call)
        if is_struck:
            self.struck_at = call
            if self.meets is not None:
                self.meets()
            if self.strike in (Strike.FAILS, Strike.DIES_BEFORE):
                self._fail(port)
        answer = getattr(port, name)(*args, **kwargs)
        if is_struck and self.strike in (Strike.ANSWER_LOST, Strike.DIES_AFTER):
            self._fail(port)
        return answer

    def _fail(self, port: Any) -> None:
        if self.strike in (Strike.DIES_BEFORE, Strike.DIES_AFTER):
            self.is_dead = True
            raise Crash
        if isinstance(port, SimulatedInstance):
            raise InstanceUnreachableError("struck")
        raise RuntimeError("struck")


class _WatchedPort:
    def __init__(self, points: CallPoints, port: Any) -> None:
        self._points = points
        self._port = port

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._port, name)
        if not callable(attribute):
            return attribute
        return lambda *args, **kwargs: self._points.call(self._port, name, *args, **kwargs)
