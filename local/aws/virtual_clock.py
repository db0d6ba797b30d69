"""The clock of an embedded AWS that runs faster than the wall."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class VirtualClock:
    """Virtual time: real time at ``origin`` (epoch seconds), then ``rate`` times as fast."""

    origin: float
    rate: float

    @classmethod
    def starting_now(cls, rate: float) -> "VirtualClock":
        """Give a clock that agrees with the wall at this moment."""
        return cls(origin=time.time(), rate=rate)

    def now(self) -> float:
        """Tell the virtual time in epoch seconds."""
        return self.at(time.time())

    def at(self, real: float) -> float:
        """Tell the virtual time at a real one, both in epoch seconds."""
        return self.origin + (real - self.origin) * self.rate

    def real_seconds(self, virtual_seconds: float) -> float:
        """Tell how many real seconds a span of virtual seconds takes."""
        return virtual_seconds / self.rate


def format_time(epoch_seconds: float) -> str:
    """Write a time as EventBridge does: UTC, whole seconds, ``Z``."""
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
