"""Traces: when jobs arrived and how long each ran, as CSV files."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_service.domain.errors import MlServiceError

_HEADER = ("seconds", "service_seconds")
_LONGEST_SERVICE = 86_400.0
_LONGEST_TRACE = 92 * 86_400.0
"""Longer ones are rather a wrong unit than a quarter of a year."""


class TraceError(MlServiceError):
    """When a trace cannot be used as it stands; the text names file, line and reason."""


class Arrival(NamedTuple):
    """One job."""

    seconds: float
    """From the first arrival of the trace."""
    service_seconds: float
    """That an instance works on it."""


def read_trace(path: Path) -> Sequence[Arrival]:
    """Arrivals of a file in the order of time, which begins with the first.

    Two columns: seconds from any moment on, and seconds of service; a first line with their names
    may be there. Raises TraceError.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except FileNotFoundError:
        raise TraceError(f"{path} is not there") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path} is no CSV file: {error}") from error
    arrivals = [
        _read_row(row, f"{path}, line {number}")
        for number, row in enumerate(rows, start=1)
        if any(cell.strip() for cell in row) and not (number == 1 and _is_header(row))
    ]
    if not arrivals:
        raise TraceError(f"{path} has no arrivals")
    arrivals.sort()
    begin, end = arrivals[0].seconds, arrivals[-1].seconds
    if end - begin > _LONGEST_TRACE:
        raise TraceError(
            f"{path} goes over {(end - begin) / 86_400:,.0f} days, more than "
            f"{_LONGEST_TRACE / 86_400:.0f}: are its times in seconds?"
        )
    return [Arrival(arrival.seconds - begin, arrival.service_seconds) for arrival in arrivals]


def write_trace(path: Path, arrivals: Iterable[Arrival]) -> None:
    """Write a file that ``read_trace`` reads; raises TraceError."""
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_HEADER)
            writer.writerows((f"{a.seconds:.3f}", f"{a.service_seconds:.3f}") for a in arrivals)
    except OSError as error:
        raise TraceError(f"{path} cannot be written: {error.strerror}") from error


def _is_header(row: Sequence[str]) -> bool:
    return len(row) == len(_HEADER) and not any(_is_number(cell) for cell in row)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_row(row: Sequence[str], place: str) -> Arrival:
    if len(row) != len(_HEADER):
        raise TraceError(f"{place}: not two columns (seconds, service seconds) but {len(row)}")
    values = []
    for name, cell in zip(("arrival", "service"), row, strict=True):
        if not _is_number(cell) or not math.isfinite(float(cell)):
            raise TraceError(f"{place}: the {name} {cell.strip()[:40]!r} is no number of seconds")
        values.append(float(cell))
    arrival = Arrival(*values)
    if arrival.seconds < 0:
        raise TraceError(f"{place}: the arrival {arrival.seconds:g} is negative")
    if not 0 < arrival.service_seconds <= _LONGEST_SERVICE:
        raise TraceError(
            f"{place}: a service of {arrival.service_seconds:g} seconds is not over 0 and up to "
            f"{_LONGEST_SERVICE:g}"
        )
    return arrival
