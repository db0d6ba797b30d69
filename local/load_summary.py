"""What a load test found, as figures, and whether they meet what was expected of them."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ml_service.domain.errors import MlServiceError


class ExpectationsFileError(MlServiceError):
    """When a file of expectations cannot be used as it stands."""


@dataclass(frozen=True)
class JobOutcome:
    """What became of one job of a load test."""

    workflow: str
    seconds: float | None
    """From the message to its first reply; None if none came."""
    replies: int
    failure_code: str = ""
    """Empty if the job succeeded or has no reply."""
    failure_sentence: str = ""
    wrong_result: str = ""
    """What is wrong with the result of a job that succeeded; empty if nothing is."""


@dataclass(frozen=True)
class LoadSummary:
    """The figures of a load test; times are in seconds from a message to its reply."""

    jobs: int
    succeeded: int
    missing: int
    """Jobs without a reply."""
    repeated: int
    """Replies beyond each job's first."""
    elapsed_seconds: float
    """From the first message to the last first reply."""
    percentiles: Mapping[int, float]
    """50, 95, 99 and 100; empty if no reply came."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Jobs that were answered with an error, by code."""
    failure_sentences: Mapping[str, str] = field(default_factory=dict)
    """One sentence for each code."""
    wrong_results: Sequence[str] = ()
    """What is wrong with results, each with its workflow."""

    @property
    def answered(self) -> int:
        """Jobs with a reply, of either kind."""
        return self.jobs - self.missing

    @property
    def jobs_per_second(self) -> float:
        """Answered jobs over the whole time."""
        return self.answered / self.elapsed_seconds if self.elapsed_seconds else 0.0


class Expectations(BaseModel):
    """What a load test must reach; without a file, that each job succeeds exactly once.

    Times are in seconds from a message to its reply; one that is left out is not looked at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_failures: int = Field(default=0, ge=0)
    max_missing: int = Field(default=0, ge=0)
    max_repeated: int = Field(default=0, ge=0)
    max_wrong_results: int = Field(default=0, ge=0)
    min_jobs_per_second: float | None = Field(default=None, gt=0)
    p50_seconds: float | None = Field(default=None, gt=0)
    p95_seconds: float | None = Field(default=None, gt=0)
    p99_seconds: float | None = Field(default=None, gt=0)
    max_seconds: float | None = Field(default=None, gt=0)


def load_expectations(path: Path) -> Expectations:
    """Read expectations from a JSON file; raises ExpectationsFileError."""
    try:
        return Expectations.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ExpectationsFileError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise ExpectationsFileError(f"{path}: {faults}") from None


def find_percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that is not exceeded by so many percent of them."""
    if not values:
        raise ValueError("there is no percentile of nothing")
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def summarize_load(outcomes: Sequence[JobOutcome], *, elapsed_seconds: float) -> LoadSummary:
    """Count what became of the jobs."""
    seconds = [outcome.seconds for outcome in outcomes if outcome.seconds is not None]
    failed = [outcome for outcome in outcomes if outcome.failure_code]
    return LoadSummary(
        jobs=len(outcomes),
        succeeded=len(seconds) - len(failed),
        missing=len(outcomes) - len(seconds),
        repeated=sum(max(0, outcome.replies - 1) for outcome in outcomes),
        elapsed_seconds=elapsed_seconds,
        percentiles={p: find_percentile(seconds, p) for p in (50, 95, 99, 100)} if seconds else {},
        failures=dict(Counter(outcome.failure_code for outcome in failed).most_common()),
        failure_sentences={outcome.failure_code: outcome.failure_sentence for outcome in failed},
        wrong_results=[f"{o.workflow}: {o.wrong_result}" for o in outcomes if o.wrong_result],
    )


def find_misses(summary: LoadSummary, expected: Expectations) -> list[str]:
    """Every expectation that was not met, as a sentence."""
    return [*_find_exceeded_counts(summary, expected), *_find_missed_figures(summary, expected)]


def _find_exceeded_counts(summary: LoadSummary, expected: Expectations) -> Iterator[str]:
    for what, count, most in (
        ("jobs failed", sum(summary.failures.values()), expected.max_failures),
        ("jobs have no reply", summary.missing, expected.max_missing),
        ("replies came again", summary.repeated, expected.max_repeated),
        ("results are wrong", len(summary.wrong_results), expected.max_wrong_results),
    ):
        if count > most:
            yield f"{count} {what}, expected at most {most}."


def _find_missed_figures(summary: LoadSummary, expected: Expectations) -> Iterator[str]:
    least = expected.min_jobs_per_second
    if least is not None and summary.jobs_per_second < least:
        yield f"{summary.jobs_per_second:.2f} jobs per second, expected at least {least:g}."
    for percent, name, most in (
        (50, "p50", expected.p50_seconds),
        (95, "p95", expected.p95_seconds),
        (99, "p99", expected.p99_seconds),
        (100, "The longest", expected.max_seconds),
    ):
        found = summary.percentiles.get(percent)
        if most is not None and (found is None or found > most):
            figure = "unknown" if found is None else f"{found:.1f} s"
            yield f"{name} is {figure}, expected at most {most:g} s."
