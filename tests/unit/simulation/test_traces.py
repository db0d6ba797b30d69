from datetime import timedelta
from pathlib import Path

import pytest

from local.simulation.export_trace import list_arrivals
from local.simulation.make_trace import TraceKind, TraceOptions, make_trace
from local.simulation.traces import Arrival, TraceError, read_trace, write_trace
from ml_service.domain.jobs import JobState
from tests.fakes import NOON
from tests.makers import make_job


def test_a_trace_comes_back_as_it_was_written(tmp_path: Path):
    arrivals = [Arrival(0.0, 1.5), Arrival(7.25, 30.0)]
    write_trace(tmp_path / "trace.csv", arrivals)
    assert read_trace(tmp_path / "trace.csv") == arrivals


@pytest.mark.parametrize(
    "text",
    [
        "0,5\n60,7\n",
        "seconds,service_seconds\n0,5\n60,7\n",
        "\ufefft, s\r\n0 , 5\r\n\r\n60, 7",
        "60,7\n0,5\n",
        "1764000000,5\n1764000060,7\n",
    ],
    ids=["bare", "with names", "from a spreadsheet", "not in order", "in epoch seconds"],
)
def test_time_begins_with_the_first_arrival(tmp_path: Path, text: str):
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="utf-8")
    assert read_trace(path) == [Arrival(0.0, 5.0), Arrival(60.0, 7.0)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no arrivals"),
        (b"seconds,service_seconds\n", "has no arrivals"),
        (b"1,2\n3\n", "line 2: not two columns"),
        (b"1,2,3\n", "line 1: not two columns"),
        (b"1;2\n", "line 1: not two columns"),
        (b"1,2\nx,3\n", "line 2: the arrival 'x' is no number"),
        (b"1,2\n3,\n", "line 2: the service '' is no number"),
        (b"1,nan\n", "line 1: the service 'nan' is no number"),
        (b"inf,1\n", "line 1: the arrival 'inf' is no number"),
        (b"-1,1\n", "line 1: the arrival -1 is negative"),
        (b"1,0\n", "line 1: a service of 0 seconds"),
        (b"1,-4\n", "line 1: a service of -4 seconds"),
        (b"1,86401\n", "line 1: a service of 86401 seconds"),
        (b"0,1\n99999999,1\n", "are its times in seconds"),
        (b'"1,2\n', "is no CSV file"),
        (b"\x89PNG\xff", "is no CSV file"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: bytes, said: str):
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=said):
        read_trace(path)


def test_a_file_that_is_not_there_or_a_folder_is_said(tmp_path: Path):
    with pytest.raises(TraceError, match="is not there"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(TraceError, match="is no CSV file"):
        read_trace(tmp_path)
    with pytest.raises(TraceError, match="cannot be written"):
        write_trace(tmp_path, [])


@pytest.mark.parametrize("kind", TraceKind)
def test_a_made_trace_is_repeatable_and_as_busy_as_asked_for(kind: TraceKind):
    options = TraceOptions(kind, days=28, jobs_per_hour=20)
    trace = make_trace(options)
    assert trace == make_trace(options)
    assert trace != make_trace(TraceOptions(kind, days=28, jobs_per_hour=20, seed=8))
    assert all(0 <= arrival.seconds < 28 * 86_400 for arrival in trace)
    # Weekends have half the jobs, so that a week has six sevenths.
    assert len(trace) == pytest.approx(20 * 24 * 28, rel=0.25)
    services = sorted(arrival.service_seconds for arrival in trace)
    assert services[len(services) // 2] == pytest.approx(40, rel=0.05)


def test_jobs_that_ran_become_arrivals():
    """The second waited on the instance for the first, the third ran on another one."""

    def ran(received: int, submitted: int, closed: int, instance: str):
        return make_job(
            state=JobState.SUCCEEDED,
            received_at=NOON + timedelta(seconds=received),
            submitted_at=NOON + timedelta(seconds=submitted),
            closed_at=NOON + timedelta(seconds=closed),
            instance=instance,
        )

    jobs = [ran(5, 7, 70, "a"), ran(0, 2, 40, "a"), ran(6, 8, 30, "b")]
    began = NOON.timestamp()
    assert [(a.seconds - began, a.service_seconds) for a in list_arrivals(jobs)] == [
        (0, 38),
        (5, 30),
        (6, 22),
    ]


def test_a_job_that_was_never_submitted_has_no_service():
    assert list_arrivals([make_job(state=JobState.SUCCEEDED, closed_at=NOON)]) == []
