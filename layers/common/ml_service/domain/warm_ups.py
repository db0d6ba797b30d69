"""Warm-up: what a launched instance runs before it takes jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from ml_service.domain.graphs import Graph

CHECK_PREFIX = "is-cached"
"""How the graph files of a fleet begin whose text output says whether its models are loaded."""
LOAD_PREFIX = "cache-components"
"""How the graph files of a fleet begin that load its models."""
WARM_UP_SECONDS = 240.0
"""The longest that a warm-up may take."""
WARM_UP_LIFETIME = timedelta(minutes=5)
"""A warm-up that began longer ago than this has died, and another may begin."""
WARM_UP_TRIES = 3
"""So many tries that fail through the instance's own fault, and it is of no use."""

SMALLEST_CHECK: Graph = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0},
    },
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
"""Runs on every ComfyUI, in no time: for fleets without a check of their own."""


@dataclass(frozen=True)
class WarmUp:
    """The graphs of one fleet's warm-up, in the order in which they run."""

    checks: Sequence[Graph] = (SMALLEST_CHECK,)
    """Run first; an instance that cannot run them takes no jobs."""
    loads: Sequence[Graph] = ()
    """Run then, unless every check has said that nothing is left to be loaded."""


def says_cached(outputs: Mapping[str, Mapping[str, Sequence[object]]]) -> bool:
    """Whether a check's outputs say that the models are loaded: each text in them is "true"."""
    texts = [text for kinds in outputs.values() for text in kinds.get("text", ())]
    return bool(texts) and all(str(text).strip().lower() == "true" for text in texts)
