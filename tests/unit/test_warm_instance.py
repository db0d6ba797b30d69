from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from ml_service.adapters.workflow_files import load_warm_up
from ml_service.domain.errors import PromptRefusedError
from ml_service.domain.prompts import NodeFailure, Prompt, PromptState, make_warm_up_id
from ml_service.domain.warm_ups import SMALLEST_CHECK, WARM_UP_SECONDS, WarmUp, says_cached
from ml_service.services.warm_instance import WarmInstance, WarmUpReport, WarmUpStatus
from tests.fakes import NOON, FakeClock, InMemoryComfyUI, InMemoryConnector, InMemoryFleetStore
from tests.makers import make_instance

FLEET = "pulid"
KEY = "i-a#1"
CHECK = {"1": {"class_type": "IsCached", "inputs": {}}}
LOAD = {"1": {"class_type": "Load", "inputs": {}}}
DONE = Prompt(PromptState.SUCCEEDED)
NOT_CACHED = Prompt(PromptState.SUCCEEDED, outputs={"1": {"text": ["false"]}})
CACHED = Prompt(PromptState.SUCCEEDED, outputs={"1": {"text": ["true"]}})


def failed(exception: str) -> Prompt:
    return Prompt(PromptState.FAILED, failure=NodeFailure("1", "Load", exception))


@dataclass
class ScriptedComfyUI(InMemoryComfyUI):
    """Each prompt ends, after ten seconds in the queue, as the script says."""

    script: list[Prompt | Exception] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)
    run: list[object] = field(default_factory=list)
    ends: dict[str, tuple[float, Prompt]] = field(default_factory=dict)
    others: int = 0

    def count_prompts(self) -> int:
        return super().count_prompts() + self.others

    def submit(self, prompt_id, graph):
        outcome = self.script.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        super().submit(prompt_id, graph)
        self.run.append(graph)
        self.ends[prompt_id] = (self.clock.monotonic() + 10, outcome)

    def find(self, prompt_id):
        at, outcome = self.ends[prompt_id]
        if self.clock.monotonic() >= at and prompt_id in self.prompts:
            self.prompts[prompt_id] = outcome
        return super().find(prompt_id)


class World:
    def __init__(self, *script: Prompt | Exception, warm_up: WarmUp | None = None) -> None:
        self.clock = FakeClock()
        self.comfyui = ScriptedComfyUI(script=list(script), clock=self.clock)
        self.store = InMemoryFleetStore(FLEET, make_instance("a", reading=9, warmed_at=None))
        self.warm_up_graphs = warm_up or WarmUp(checks=[CHECK], loads=[LOAD])

    @property
    def instance(self):
        return self.store.list_instances(FLEET)[0]

    def warm_up(self, key: str = KEY) -> WarmUpReport:
        connector = InMemoryConnector({"10.0.0.1": self.comfyui})
        service = WarmInstance(
            "prod", lambda fleet: self.warm_up_graphs, self.store, connector, self.clock
        )
        return service.warm_up(FLEET, key)


def test_the_check_comes_first_then_the_models_and_then_the_instance_takes_jobs():
    world = World(NOT_CACHED, DONE)
    assert world.warm_up() == WarmUpReport(WarmUpStatus.WARMED, 20.0)
    assert world.comfyui.run == [CHECK, LOAD]
    assert world.instance.is_ready
    assert world.instance.reading == 0, "the warm-up's own prompts take no slot"
    assert world.comfyui.prompts == {}, "the history keeps nothing of it"


def test_models_that_are_there_are_not_loaded_again():
    world = World(CACHED)
    assert world.warm_up().status is WarmUpStatus.WARMED
    assert world.comfyui.run == [CHECK]


def test_a_fleet_without_graphs_of_its_own_runs_the_smallest_prompt():
    world = World(DONE, warm_up=WarmUp())
    assert world.warm_up().status is WarmUpStatus.WARMED
    assert world.comfyui.run == [SMALLEST_CHECK]


def test_a_second_call_does_nothing():
    world = World(CACHED)
    assert world.warm_up().status is WarmUpStatus.WARMED
    assert world.warm_up().status is WarmUpStatus.REPEATED
    assert world.warm_up("i-gone#1").status is WarmUpStatus.REPEATED
    assert len(world.comfyui.run) == 1


def test_a_launch_has_prompt_ids_of_its_own_in_each_stage():
    ids = {
        make_warm_up_id(stage=stage, instance=key, step=step)
        for stage in ("dev", "prod")
        for key in ("i-a#1", "i-a#2")
        for step in (0, 1)
    }
    assert len(ids) == 8


@pytest.mark.parametrize(
    "script",
    [
        [PromptRefusedError("ComfyUI refused the prompt: no such node.")],
        [failed("KeyError")],
        [NOT_CACHED, failed("torch.OutOfMemoryError")],
        [NOT_CACHED, Prompt(PromptState.INTERRUPTED)],
    ],
    ids=["refused", "broken graph", "broken instance", "interrupted"],
)
def test_a_wrong_graph_stops_no_fleet_but_a_broken_instance_stays_out(script):
    world = World(*script)
    report = world.warm_up()
    is_unfit = "OutOfMemory" in report.fault
    assert report.status is (WarmUpStatus.UNFIT if is_unfit else WarmUpStatus.FAILED)
    assert world.instance.is_ready is not is_unfit
    assert world.instance.warm_up_fault == report.fault != ""
    assert world.instance.warm_up_tries == is_unfit
    assert world.instance.needs_warm_up(world.clock.now()) is is_unfit


PENDING, RUNNING = Prompt(PromptState.PENDING), Prompt(PromptState.RUNNING)
BEHIND_OTHERS = Prompt(PromptState.PENDING, position=1, head="other")


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ([PENDING], WarmUpStatus.UNFIT),
        ([RUNNING], WarmUpStatus.UNFIT),
        ([BEHIND_OTHERS], WarmUpStatus.FAILED),
        ([NOT_CACHED, RUNNING], WarmUpStatus.FAILED),
    ],
    ids=["zombie", "hung", "busy", "slow models"],
)
def test_a_warm_up_takes_240_seconds_at_most_and_its_prompt_ends_with_it(script, status):
    world = World(*script)
    report = world.warm_up()
    assert (report.status, report.fault) == (status, "The warm-up did not end within 240 s.")
    assert report.seconds == WARM_UP_SECONDS
    assert world.comfyui.prompts == {}
    assert world.comfyui.cancelled == list(world.comfyui.ends)[-1:]


def test_an_instance_that_goes_away_is_warmed_up_when_it_answers_again():
    world = World(Prompt(PromptState.UNKNOWN), CACHED)
    assert world.warm_up().status is WarmUpStatus.UNREACHABLE
    assert world.instance.warm_up_tries == 0
    world.comfyui.graphs.clear()
    assert world.warm_up().status is WarmUpStatus.WARMED
    world = World(CACHED)
    world.comfyui.reachable = False
    assert world.warm_up().status is WarmUpStatus.UNREACHABLE
    assert world.instance.needs_warm_up(NOON + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("texts", "cached"),
    [(["true"], True), ([" True\n"], True), (["true", "false"], False), ([], False), ([1], False)],
)
def test_a_check_says_true_in_every_text(texts: list[object], cached: bool):
    assert says_cached({"1": {"text": texts}, "2": {"images": [{}]}}) is cached


def test_graphs_are_found_by_their_names(tmp_path):
    folder = tmp_path / FLEET
    folder.mkdir()
    assert load_warm_up(tmp_path, FLEET) == WarmUp()
    for name in ("cache-components-b", "cache-components-a", "is-cached-pulid", "flux-prompt"):
        class_type = name.title().replace("-", "")
        graph = f'{{"1": {{"class_type": "{class_type}", "inputs": {{}}}}}}'
        (folder / f"{name}.json").write_text(graph)
    warm_up = load_warm_up(tmp_path, FLEET)
    assert [graph["1"]["class_type"] for graph in (*warm_up.checks, *warm_up.loads)] == [
        "IsCachedPulid",
        "CacheComponentsA",
        "CacheComponentsB",
    ]
