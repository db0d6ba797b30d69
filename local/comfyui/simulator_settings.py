"""What one simulated server, or several alike, are made with."""

from dataclasses import dataclass, field

from local.comfyui.faults import FaultBoard
from local.comfyui.model_files import USUAL_MODELS, Models
from local.comfyui.node_catalog import CustomNode
from local.comfyui.profiles import PROFILE_0_12, Profile
from local.comfyui.prompt_durations import FixedDuration, PromptDurations
from local.comfyui.prompt_queue import MAX_HISTORY_SIZE

# ComfyUI's default for --max-upload-size; it limits every request body.
MAX_REQUEST_BYTES = 100 * 1024 * 1024


def _one_second() -> PromptDurations:
    return PromptDurations(FixedDuration(1.0))


@dataclass(frozen=True)
class SimulatorSettings:
    """The version, the time that prompts take, the faults, the nodes and models, and limits.

    Servers that share the settings share these faults' counts and the durations' dice; each can
    have faults of its own besides.
    """

    profile: Profile = PROFILE_0_12
    durations: PromptDurations = field(default_factory=_one_second)
    faults: FaultBoard = field(default_factory=FaultBoard)
    spares_first_prompt: bool = False
    """The shared faults begin once a prompt has run: they are for jobs, not for a warm-up."""
    custom_nodes: tuple[CustomNode, ...] = ()
    models: Models = field(default_factory=lambda: USUAL_MODELS)
    allow_unknown_nodes: bool = False
    max_request_bytes: int = MAX_REQUEST_BYTES
    max_history: int = MAX_HISTORY_SIZE
