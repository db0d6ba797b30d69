import time

from ml_service.domain.errors import InstanceUnreachableError
from ml_service.services.observe_instances import ObserveInstances

SILENCE_SECONDS = 2.5
"""After so long the ComfyUI client gives a reading up."""


class Connector:
    """Instances that answer in 20 ms; those on network 9 never do."""

    def connect(self, address: str) -> "Answering | Silent":
        return Silent() if address.startswith("10.0.9.") else Answering()


class Answering:
    def count_prompts(self) -> int:
        time.sleep(0.02)
        return 3


class Silent:
    def count_prompts(self) -> int:
        time.sleep(SILENCE_SECONDS)
        raise InstanceUnreachableError("no answer")


def test_a_hundred_instances_ten_of_them_dead_are_read_in_under_four_seconds():
    alive = [f"10.0.0.{number}" for number in range(90)]
    dead = [f"10.0.9.{number}" for number in range(10)]
    began = time.monotonic()
    readings = ObserveInstances(Connector()).observe([*dead, *alive])
    assert time.monotonic() - began < 4
    assert readings == {**dict.fromkeys(alive, 3), **dict.fromkeys(dead, None)}
