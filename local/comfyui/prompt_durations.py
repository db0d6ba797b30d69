"""How long prompts take: fixed or drawn from a distribution, for each workflow."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ml_service.adapters.workflow_files import load_graph
from ml_service.domain.errors import MlServiceError

_LONGEST_SECONDS = 86_400.0

_Graph = Mapping[str, Mapping[str, Any]]


class DurationError(MlServiceError):
    """When a duration is described in a way that has no meaning."""


class Duration(Protocol):
    """Seconds that differ from prompt to prompt, or not."""

    def draw(self, dice: random.Random) -> float:
        """Return the seconds of the next prompt."""


@dataclass(frozen=True)
class FixedDuration:
    """Always the same."""

    seconds: float

    def draw(self, dice: random.Random) -> float:
        """Return the seconds."""
        del dice
        return self.seconds


@dataclass(frozen=True)
class UniformDuration:
    """Anything between two bounds, all equally likely."""

    lowest: float
    highest: float

    def draw(self, dice: random.Random) -> float:
        """Return the seconds of the next prompt."""
        return dice.uniform(self.lowest, self.highest)


@dataclass(frozen=True)
class LognormalDuration:
    """Mostly near the median, now and then far longer: as measured render times are.

    `sigma` is the standard deviation of the logarithm; 0.5 puts one prompt of twenty above 2.3
    times the median.
    """

    median: float
    sigma: float

    def draw(self, dice: random.Random) -> float:
        """Return the seconds of the next prompt."""
        return dice.lognormvariate(math.log(self.median), self.sigma)


def parse_duration(text: str) -> Duration:
    """Return the duration of a text: `2`, `uniform:1:3` or `lognormal:20:0.5`.

    Raises DurationError.
    """
    kind, *numbers = text.split(":")
    try:
        values = [_read_seconds(number) for number in (numbers or [kind])]
    except ValueError as error:
        raise _bad_duration(text) from error
    match (kind, values):
        case (_, [seconds]) if not numbers:
            return FixedDuration(seconds)
        case ("uniform", [lowest, highest]) if lowest <= highest:
            return UniformDuration(lowest, highest)
        case ("lognormal", [median, sigma]) if median > 0:
            return LognormalDuration(median, sigma)
    raise _bad_duration(text)


def parse_workflow_duration(text: str, graphs: Mapping[str, _Graph]) -> tuple[str, Duration]:
    """Return name and duration of a text such as `flux-prompt=lognormal:20:0.5`.

    Raises DurationError, also for a workflow that `graphs` does not hold.
    """
    name, separator, duration = text.partition("=")
    if not separator:
        raise DurationError(f"{text!r} is not WORKFLOW=DURATION")
    if name not in graphs:
        raise DurationError(f"there is no workflow {name!r}, only {', '.join(sorted(graphs))}")
    return name, parse_duration(duration)


def read_graphs(directory: Path) -> dict[str, _Graph]:
    """Return the graphs of a workflow folder, or of one fleet's part of it, by workflow name.

    Raises WorkflowError.
    """
    return {
        path.stem: load_graph(path)
        for path in sorted(directory.rglob("*.json"))
        if path.with_suffix(".yaml").exists()
    }


@dataclass
class PromptDurations:
    """Draws the seconds of each prompt, by the workflow that it was made from.

    A server is told a graph and no name, so a prompt is of that workflow which has its nodes and
    shares most of its values; of equal graphs it is the first that is timed. Workflows that nobody
    timed take `default`.
    """

    default: Duration
    by_workflow: Mapping[str, Duration] = field(default_factory=dict)
    graphs: Mapping[str, _Graph] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def draw(self, prompt: _Graph) -> float:
        """Return the least seconds that this prompt shall take."""
        name = self._recognize(prompt) if self.by_workflow else None
        duration = self.default if name is None else self.by_workflow.get(name, self.default)
        return min(duration.draw(self._dice), _LONGEST_SECONDS)

    def _recognize(self, prompt: _Graph) -> str | None:
        classes = _list_classes(prompt)
        alike = [name for name, graph in self.graphs.items() if _list_classes(graph) == classes]

        def rank(name: str) -> tuple[int, bool]:
            return _count_same(self.graphs[name], prompt), name in self.by_workflow

        return max(alike, key=rank, default=None)


def _list_classes(graph: _Graph) -> dict[str, str]:
    return {node_id: str(node["class_type"]) for node_id, node in graph.items()}


def _count_same(graph: _Graph, prompt: _Graph) -> int:
    return sum(
        prompt[node_id].get("inputs", {}).get(name) == value
        for node_id, node in graph.items()
        for name, value in node["inputs"].items()
    )


def _read_seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= _LONGEST_SECONDS:
        raise ValueError(text)
    return seconds


def _bad_duration(text: str) -> DurationError:
    return DurationError(
        f"{text!r} is no duration: SECONDS, uniform:LEAST:MOST or lognormal:MEDIAN:SIGMA, "
        f"with seconds from 0 to {_LONGEST_SECONDS:g}"
    )
