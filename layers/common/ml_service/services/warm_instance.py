"""warm_instance: runs a launched instance's warm-up, once; until then it takes no jobs."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from ml_service.domain.errors import InstanceError, InstanceUnreachableError, PromptRefusedError
from ml_service.domain.graphs import Graph
from ml_service.domain.prompts import CANCEL_SECONDS, Prompt, PromptState, make_warm_up_id
from ml_service.domain.warm_ups import WARM_UP_SECONDS, WarmUp, says_cached
from ml_service.ports import Clock, ComfyUI, ComfyUIConnector, FleetStore

_POLL_SECONDS = 0.5


class WarmUpStatus(StrEnum):
    """What became of a warm-up."""

    WARMED = "WARMED"
    FAILED = "FAILED"
    """The instance takes jobs nevertheless: the graph was wrong, or too slow, not the instance."""
    UNFIT = "UNFIT"
    """The instance itself failed; it stays out, and the next refresh tries again."""
    UNREACHABLE = "UNREACHABLE"
    """The instance went away, or its prompt with a restart; the same as soon as it answers."""
    REPEATED = "REPEATED"
    """It is warm already, or has left its group."""


@dataclass(frozen=True)
class WarmUpReport:
    """What one call did."""

    status: WarmUpStatus
    seconds: float = 0.0
    fault: str = ""
    """What was wrong, in a sentence."""


class _WarmUpFailedError(Exception):
    """When a step of a warm-up does not end well."""

    def __init__(self, fault: str, *, is_unfit: bool = False) -> None:
        super().__init__(fault)
        self.fault = fault
        self.is_unfit = is_unfit


@dataclass(frozen=True)
class WarmInstance:
    """Runs a fleet's checks, and what loads its models if they say that it is needed."""

    stage: str
    load_warm_up: Callable[[str], WarmUp]
    """The warm-up of a fleet."""
    store: FleetStore
    connector: ComfyUIConnector
    clock: Clock

    def warm_up(self, fleet: str, key: str) -> WarmUpReport:
        """Warm one instance up, unless that is done.

        Two calls at once are one warm-up, too: their prompts have the same ids.
        """
        known = {instance.key: instance for instance in self.store.list_instances(fleet)}
        if key not in known or known[key].is_warm:
            return WarmUpReport(WarmUpStatus.REPEATED)
        began = self.clock.monotonic()
        comfyui = self.connector.connect(known[key].address)
        try:
            status, fault = _Run(self, key, comfyui, began).run(self.load_warm_up(fleet))
            # Before it takes jobs: a reading with the warm-up in it would leave one slot free less.
            self.store.record_reading(fleet, key, comfyui.count_prompts(), self.clock.now())
        except InstanceError as error:
            self.store.abandon_warm_up(fleet, key)
            return WarmUpReport(WarmUpStatus.UNREACHABLE, fault=str(error))
        if status is WarmUpStatus.UNFIT:
            self.store.abandon_warm_up(fleet, key, fault=fault)
        else:
            self.store.end_warm_up(fleet, key, at=self.clock.now(), fault=fault)
        return WarmUpReport(status, self.clock.monotonic() - began, fault)


@dataclass(frozen=True)
class _Run:
    """One warm-up of one instance."""

    parts: WarmInstance
    key: str
    comfyui: ComfyUI
    began: float

    def run(self, warm_up: WarmUp) -> tuple[WarmUpStatus, str]:
        try:
            self._run_graphs(warm_up)
        except _WarmUpFailedError as error:
            return WarmUpStatus.UNFIT if error.is_unfit else WarmUpStatus.FAILED, error.fault
        return WarmUpStatus.WARMED, ""

    def _run_graphs(self, warm_up: WarmUp) -> None:
        checks = [
            self._run_graph(step, graph, proves_fitness=True)
            for step, graph in enumerate(warm_up.checks)
        ]
        if all(says_cached(check.outputs) for check in checks):
            return
        for step, graph in enumerate(warm_up.loads, start=len(checks)):
            self._run_graph(step, graph, proves_fitness=False)

    def _run_graph(self, step: int, graph: Graph, *, proves_fitness: bool) -> Prompt:
        prompt_id = make_warm_up_id(stage=self.parts.stage, instance=self.key, step=step)
        try:
            self.comfyui.submit(prompt_id, graph)
        except PromptRefusedError as error:
            raise _WarmUpFailedError(str(error)) from error
        prompt = self._await_end(prompt_id, proves_fitness=proves_fitness)
        # What has ended is forgotten, so that the next try can have the same id.
        self.comfyui.forget(prompt_id)
        if prompt.state is PromptState.SUCCEEDED:
            return prompt
        failure = prompt.failure
        raise _WarmUpFailedError(
            failure.sentence if failure else "A prompt of the warm-up was interrupted.",
            is_unfit=failure is not None and failure.is_instance_fault,
        )

    def _await_end(self, prompt_id: str, *, proves_fitness: bool) -> Prompt:
        clock = self.parts.clock
        while (prompt := self.comfyui.find(prompt_id)).is_queued:
            if clock.monotonic() - self.began >= WARM_UP_SECONDS:
                self.comfyui.cancel(prompt_id, seconds=CANCEL_SECONDS)
                # One that runs the prompts of others is fit, and only busy.
                is_busy = prompt.state is PromptState.PENDING and bool(prompt.head)
                raise _WarmUpFailedError(
                    f"The warm-up did not end within {WARM_UP_SECONDS:.0f} s.",
                    is_unfit=proves_fitness and not is_busy,
                )
            clock.sleep(_POLL_SECONDS)
        if prompt.state is PromptState.UNKNOWN:
            raise InstanceUnreachableError("The prompt of the warm-up is gone.")
        return prompt
