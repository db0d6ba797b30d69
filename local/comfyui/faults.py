"""Faults that can be switched on: what there is, when one strikes, how often, and for how long."""

import itertools
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ml_service.domain.errors import MlServiceError

DEFAULT_SECONDS = 5.0

_IDS = itertools.count(1)


class FaultError(MlServiceError):
    """When a fault is described in a way that has no meaning."""


class FaultKind(StrEnum):
    """What goes wrong."""

    EXCEPTION = "exception"
    OOM = "oom"
    BLACK_HOLE = "black-hole"
    HANG = "hang"
    WORKER_DEATH = "worker-death"
    MISSING_OUTPUT = "missing-output"
    EXIT = "exit"
    RESTART = "restart"
    STALL = "stall"
    SLOW_POST = "slow-post"
    RESET_BEFORE_ACCEPT = "reset-before-accept"
    RESET_AFTER_ACCEPT = "reset-after-accept"
    ERROR_AFTER_ACCEPT = "error-after-accept"
    SILENT_WEBSOCKET = "silent-websocket"


class Occasion(StrEnum):
    """What a fault waits for.

    A prompt that begins to run, a POST /prompt that arrives, one that was accepted, any request,
    or a websocket that connects.
    """

    PROMPT = "prompt"
    ARRIVAL = "arrival"
    POST = "post"
    REQUEST = "request"
    WEBSOCKET = "websocket"


@dataclass(frozen=True)
class _Rule:
    """What a kind of fault allows. The first of the occasions is the default."""

    occasions: tuple[Occasion, ...]
    takes_seconds: bool = False
    default_seconds: float | None = None
    is_lasting: bool = False


_PROMPT = _Rule((Occasion.PROMPT,))
_LOSS = (Occasion.PROMPT, Occasion.POST, Occasion.REQUEST)

_RULES: Mapping[FaultKind, _Rule] = {
    FaultKind.EXCEPTION: _PROMPT,
    FaultKind.OOM: _PROMPT,
    FaultKind.BLACK_HOLE: _Rule((Occasion.PROMPT,), is_lasting=True),
    FaultKind.HANG: _Rule((Occasion.PROMPT,), takes_seconds=True),
    FaultKind.WORKER_DEATH: _PROMPT,
    FaultKind.MISSING_OUTPUT: _PROMPT,
    FaultKind.EXIT: _Rule(_LOSS, takes_seconds=True),
    FaultKind.RESTART: _Rule(_LOSS, takes_seconds=True, default_seconds=0.0),
    FaultKind.STALL: _Rule(
        (Occasion.REQUEST, Occasion.PROMPT), takes_seconds=True, default_seconds=DEFAULT_SECONDS
    ),
    FaultKind.SLOW_POST: _Rule(
        (Occasion.POST,), takes_seconds=True, default_seconds=DEFAULT_SECONDS
    ),
    FaultKind.RESET_BEFORE_ACCEPT: _Rule((Occasion.ARRIVAL,)),
    FaultKind.RESET_AFTER_ACCEPT: _Rule((Occasion.POST,)),
    FaultKind.ERROR_AFTER_ACCEPT: _Rule((Occasion.POST,)),
    FaultKind.SILENT_WEBSOCKET: _Rule((Occasion.WEBSOCKET,), is_lasting=True),
}


def _default_times(given: Mapping[str, Any]) -> int | None:
    is_lasting = _RULES[given["kind"]].is_lasting or given.get("probability", 1) < 1
    return None if is_lasting else 1


class Fault(BaseModel):
    """One fault as it was asked for.

    It strikes on the next `times` occasions, or on every one until it is cleared (None), each time
    with `probability`. Without `times`, that is once; a black hole, a silent websocket and a fault
    with a probability last. `seconds` is how long a stall, a slow answer or a hang takes (a hang
    without it never ends), and how long a server is away (after an exit without it, for good).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    on: Occasion = Field(default_factory=lambda data: _RULES[data["kind"]].occasions[0])
    probability: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = None
    seconds: float | None = Field(
        default_factory=lambda data: _RULES[data["kind"]].default_seconds, ge=0, le=86_400
    )
    times: int | None = Field(default_factory=_default_times, ge=1)

    @model_validator(mode="after")
    def _check_kind_allows(self) -> Self:
        rule = _RULES[self.kind]
        if self.on not in rule.occasions:
            raise ValueError(f"on must be {_or(rule.occasions)} for {self.kind}")
        if self.seconds is not None and not rule.takes_seconds:
            raise ValueError(f"{self.kind} takes no seconds")
        return self


def make_fault(options: object) -> Fault:
    """Return the fault of a JSON object or of named options. Raises FaultError."""
    if isinstance(options, dict):
        _read_kind(options.get("kind"))
    try:
        return Fault.model_validate(options)
    except ValidationError as error:
        raise FaultError("; ".join(_explain(item) for item in error.errors())) from error


def parse_fault(text: str) -> Fault:
    """Return the fault of a text such as `oom` or `stall:seconds=20,times=2`. Raises FaultError.

    `times=always` means until it is cleared.
    """
    kind, _, rest = text.partition(":")
    options: dict[str, Any] = {"kind": _read_kind(kind.strip())}
    for part in rest.split(",") if rest else []:
        name, separator, value = (piece.strip() for piece in part.partition("="))
        if not separator or not name or not value:
            raise FaultError(f"{text!r} is not KIND[:OPTION=VALUE[,OPTION=VALUE...]]")
        if name in options:
            raise FaultError(f"{name!r} stands twice in {text!r}")
        options[name] = None if (name, value) == ("times", "always") else value
    return make_fault(options)


def _read_kind(kind: object) -> FaultKind:
    if kind not in list(FaultKind):
        raise FaultError(f"kind must be {_or(FaultKind)}, not {kind!r}")
    return FaultKind(str(kind))


def _explain(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        allowed = [name for name in Fault.model_fields if name != "kind"]
        return f"there is no option {item['loc'][-1]!r}, only {', '.join(allowed)}"
    place = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _or(values: Iterable[str]) -> str:
    *rest, last = values
    return f"{', '.join(rest)} or {last}" if rest else str(last)


@dataclass
class _Switched:
    """A fault that is switched on; `strikes` counts how often it has struck."""

    fault_id: str
    fault: Fault
    dice: random.Random
    strikes: int = 0

    @property
    def is_used_up(self) -> bool:
        return self.fault.times is not None and self.strikes >= self.fault.times

    def describe(self) -> dict[str, Any]:
        return {"id": self.fault_id, **self.fault.model_dump(), "strikes": self.strikes}


class FaultBoard:
    """The faults of one server and, behind them, those that it shares with others.

    Those strike only while ``is_shared_due`` says so. Every call is thread-safe.
    """

    def __init__(
        self,
        shared: "FaultBoard | None" = None,
        is_shared_due: Callable[[], bool] = lambda: True,
    ) -> None:
        self._shared = shared
        self._is_shared_due = is_shared_due
        self._switched: dict[str, _Switched] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, faults: Iterable[Fault]) -> "FaultBoard":
        """Return a board with these faults switched on."""
        board = cls()
        for fault in faults:
            board.add(fault)
        return board

    def add(self, fault: Fault) -> dict[str, Any]:
        """Switch a fault on for those who have this board, and return it with its id."""
        with self._lock:
            switched = _Switched(str(next(_IDS)), fault, random.Random(fault.seed))
            self._switched[switched.fault_id] = switched
            return switched.describe()

    def take(self, occasion: Occasion) -> Fault | None:
        """Return the fault that strikes now, the oldest of those that do; it has one time less."""
        with self._lock:
            for switched in self._switched.values():
                fault = switched.fault
                if fault.on is not occasion or switched.is_used_up:
                    continue
                if switched.dice.random() < fault.probability:
                    switched.strikes += 1
                    return fault
        if self._shared is None or not self._is_shared_due():
            return None
        return self._shared.take(occasion)

    def list(self) -> list[dict[str, Any]]:
        """Return all faults, also those that have struck as often as they should."""
        with self._lock:
            own = [switched.describe() for switched in self._switched.values()]
        return own if self._shared is None else own + self._shared.list()

    def remove(self, fault_id: str) -> bool:
        """Switch one fault off; tell whether it was there."""
        with self._lock:
            was_here = self._switched.pop(fault_id, None) is not None
        return was_here or (self._shared is not None and self._shared.remove(fault_id))

    def clear(self) -> None:
        """Switch every fault off, the shared ones too. What has struck already is not undone."""
        with self._lock:
            self._switched.clear()
        if self._shared is not None:
            self._shared.clear()
