"""Many prompts through one simulated ComfyUI that suffers every fault there is, in random order."""

import io
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar, cast

from PIL import Image

from local.comfyui.faults import FaultKind
from local.comfyui.simulator import RunningSimulator
from ml_service.adapters.clock import SystemClock
from ml_service.adapters.comfyui import HttpComfyUIConnector, Timeouts
from ml_service.adapters.pillow_images import PillowImageConverter
from ml_service.domain.errors import (
    InstanceError,
    InstanceSilentError,
    InstanceUnreachableError,
    OutputMissingError,
    PromptFailedError,
)
from ml_service.domain.jobs import Job
from ml_service.domain.prompts import StallLimits
from ml_service.services.await_prompt import AwaitPrompt, AwaitStatus
from ml_service.services.collect_outputs import CollectOutputs
from tests.contracts.comfyui_targets import make_picture, make_prompt_id
from tests.fakes import InMemoryFleetStore, InMemoryJobStore, InMemoryMediaStore
from tests.makers import FLEETS, make_instance, make_job

TIMEOUTS = Timeouts(connect=1.0, probe=0.5, command=0.6, submit=0.6, doubt=0.2, transfer=2.0)
Result = TypeVar("Result")

CONCURRENCY = 8
PROMPTS_PER_FAULT = 4
PROMPTS_PER_CANCEL = 20
STEP_RETRIES = 5
"""As often as the state machine repeats a step whose instance is unreachable."""

_STALL_LIMITS = StallLimits(running=1.5, idle=1.5)
_FAULT_OPTIONS: dict[FaultKind, dict[str, Any]] = {
    FaultKind.BLACK_HOLE: {"times": 2},
    FaultKind.SILENT_WEBSOCKET: {"times": 2},
    FaultKind.STALL: {"seconds": 0.8},
    FaultKind.SLOW_POST: {"seconds": 0.8},
    FaultKind.RESTART: {"seconds": 0.2},
    FaultKind.EXIT: {"seconds": 0.4},
}


class Outcome(StrEnum):
    """The one known state in which a prompt ends for its job."""

    COLLECTED = "COLLECTED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    OUTPUT_MISSING = "OUTPUT_MISSING"
    LOST = "LOST"
    STALLED = "STALLED"
    NOT_SUBMITTED = "NOT_SUBMITTED"
    LEFT = "LEFT"
    """The instance was not to be reached any more."""


_CANCELLED = (Outcome.LOST, Outcome.FAILED)
"""How the prompt of a cancel ends for one who does not know of it: deleted, or interrupted."""
_GIVEN_UP = (Outcome.LOST, Outcome.STALLED, Outcome.NOT_SUBMITTED, Outcome.LEFT)
"""After these the job would run as another prompt."""


@dataclass(frozen=True)
class Ending:
    """What became of one prompt."""

    prompt_id: str
    outcome: Outcome
    first_start: int
    """Number of the server's last start before the prompt was submitted."""
    last_start: int
    """The same when the prompt ended."""


@dataclass
class PromptSoak:
    """Runs prompts to their ends while faults come; what has stalled is restarted."""

    server: RunningSimulator
    seed: int
    endings: list[Ending] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._connector = HttpComfyUIConnector(port=self.server.port, timeouts=TIMEOUTS)
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._chance = random.Random(self.seed)
        self._kinds: list[FaultKind] = []
        self._repaired: set[int] = set()

    def run(self, prompts: int) -> None:
        """Bring so many prompts to their ends, several at a time."""
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            self.endings += pool.map(self._run_prompt, range(prompts))

    def describe(self, seconds: float) -> str:
        """The figures of a run."""
        outcomes = Counter(ending.outcome for ending in self.endings)
        runs = Counter((run.prompt_id, run.start_number) for run in self.server.runs)
        prompts = Counter(run.prompt_id for run in self.server.runs)
        faults: Counter[str] = Counter()
        for fault in self.server.faults:
            faults[fault["kind"]] += fault["strikes"]
        return "\n".join(
            [
                f"{len(self.endings)} prompts in {seconds:.0f} s",
                f"outcomes: {_list_counts(outcomes)}",
                f"faults that struck: {_list_counts(faults)}",
                f"starts of the server: {self.server.start_number}, "
                f"after a stall: {len(self._repaired)}",
                f"prompts that ran: {len(prompts)}, again after a restart: "
                f"{sum(count > 1 for count in prompts.values())}, again without one: "
                f"{sum(count > 1 for count in runs.values())}",
                f"given up without a restart, and yet run to success: "
                f"{_list_counts(self._count_orphans()) or 0}",
            ]
        )

    def _count_orphans(self) -> Counter[str]:
        succeeded = {run.prompt_id for run in self.server.runs if run.end == "success"}
        return Counter(
            ending.outcome
            for ending in self.endings
            if ending.outcome in _GIVEN_UP
            and ending.first_start == ending.last_start
            and ending.prompt_id in succeeded
        )

    def _break_something(self) -> None:
        """Switch on one fault; every kind once before any comes again."""
        with self._lock:
            if not self._kinds:
                self._kinds = self._chance.sample(list(FaultKind), len(FaultKind))
            kind = self._kinds.pop()
        self.server.add_fault(kind, **_FAULT_OPTIONS.get(kind, {}))

    def _repair(self, start_number: int) -> None:
        """Let a server that was found to have stalled restart, unless it has since then."""
        with self._lock:
            if self.server.start_number == start_number and start_number not in self._repaired:
                self._repaired.add(start_number)
                self.server.add_fault(FaultKind.RESTART, on="request")

    def _run_prompt(self, number: int) -> Ending:
        if number % PROMPTS_PER_FAULT == 0:
            self._break_something()
        prompt_id, first_start = make_prompt_id(), self.server.start_number
        outcome = self._bring_to_its_end(number, prompt_id)
        # A server that is away has lost all it knew, though it has not started again yet.
        last_start = self.server.start_number + (0 if self.server.is_running else 1)
        return Ending(prompt_id, outcome, first_start, last_start)

    def _bring_to_its_end(self, number: int, prompt_id: str) -> Outcome:
        comfyui = self._connector.connect(self.server.address)
        try:
            comfyui.submit(prompt_id, make_picture(number, prefix=prompt_id))
        except InstanceError:
            return Outcome.NOT_SUBMITTED
        is_cancelled = number % PROMPTS_PER_CANCEL == 0
        try:
            if is_cancelled:
                comfyui.cancel(prompt_id, seconds=10)
            outcome = self._await_end(number, prompt_id)
        except PromptFailedError:
            outcome = Outcome.FAILED
        except OutputMissingError:
            return Outcome.OUTPUT_MISSING
        except InstanceError:
            return Outcome.LEFT
        return Outcome.CANCELLED if is_cancelled and outcome in _CANCELLED else outcome

    def _await_end(self, number: int, prompt_id: str) -> Outcome:
        start_number = self.server.start_number
        jobs = InMemoryJobStore(self._make_job(prompt_id))
        (job_id,) = jobs.jobs
        service = AwaitPrompt(
            fleets=FLEETS,
            jobs=jobs,
            store=InMemoryFleetStore("pulid", make_instance("a")),
            connector=self._connector,
            clock=self._clock,
            stall_limits=_STALL_LIMITS,
            poll_seconds=0.5,
            silence_seconds=5.0,
        )
        awaited = _try_again(lambda: service.await_prompt(job_id))
        if awaited.stall is not None:
            self._repair(start_number)
            return Outcome.STALLED
        if awaited.status is not AwaitStatus.SUCCEEDED:
            return Outcome(awaited.status)
        media = InMemoryMediaStore()
        collector = CollectOutputs(
            jobs, media, self._connector, PillowImageConverter(), self._clock
        )
        _try_again(lambda: collector.collect(job_id))
        ((content, _),) = media.results.values()
        image = Image.open(io.BytesIO(content)).convert("RGB")
        red, green, blue = cast(tuple[int, int, int], image.getpixel((0, 0)))
        assert red << 16 | green << 8 | blue == number, "it is another prompt's picture"
        return Outcome.COLLECTED

    def _make_job(self, prompt_id: str) -> Job:
        now = self._clock.now()
        place = {"instance": "i-a#1", "instance_id": "i-a", "address": self.server.address}
        job = make_job(expected_seconds=0.1).admit(**place, at=now)
        return job.submit(prompt_id=prompt_id, at=now)


def _try_again(step: Callable[[], Result]) -> Result:
    """Repeat a step as the state machine does while its instance is unreachable."""
    for _ in range(STEP_RETRIES):
        try:
            return step()
        except InstanceSilentError:
            raise
        except InstanceUnreachableError:
            time.sleep(0.2)
    return step()


def _list_counts(counts: Counter[Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
