"""The machine's clock, which local mode lets run faster."""

import time
from datetime import UTC, datetime


class SystemClock:
    """UTC; from ``origin`` (epoch seconds) on it runs ``rate`` times faster than real time."""

    def __init__(self, *, rate: float = 1.0, origin: float = 0.0) -> None:
        self._rate = rate
        self._origin = origin

    def now(self) -> datetime:
        """The present time in UTC."""
        real = time.time()
        return datetime.fromtimestamp(self._origin + (real - self._origin) * self._rate, tz=UTC)

    def monotonic(self) -> float:
        """Real seconds from some fixed point."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for so many real seconds."""
        time.sleep(seconds)

    def wait(self, seconds: float) -> None:
        """Wait for so many seconds of this clock's time."""
        time.sleep(seconds / self._rate)
