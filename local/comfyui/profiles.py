"""What differs between the ComfyUI versions that the simulator can play."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from local.comfyui.job_descriptions import ExtendedJobDescriber, JobDescriber
from local.comfyui.newer_nodes import NEWER_NODES
from local.comfyui.node_catalog import CustomNode
from local.comfyui.prompt_ids import read_any_prompt_id, read_canonical_prompt_id


@dataclass(frozen=True)
class Profile:
    """One version: its answers where versions differ, and what it can do.

    `read_prompt_id` takes the body of POST /prompt and raises InvalidPromptIdError. `features` is
    what /features tells, but for the upload limit, which is the server's. `nodes` are the stock
    nodes that older versions do not have.
    """

    name: str
    comfyui_version: str
    read_prompt_id: Callable[[Mapping[str, Any]], str]
    features: Mapping[str, Any]
    nodes: tuple[CustomNode, ...] = ()
    jobs: JobDescriber = field(default_factory=JobDescriber)
    lists_cached_outputs_without_client: bool = False
    names_cycles: bool = False
    cancels_jobs: bool = False


_FEATURES = {"supports_preview_metadata": True, "extension": {"manager": {"supports_v4": True}}}

PROFILE_0_12 = Profile(
    name="0.12",
    comfyui_version="0.12.1",
    read_prompt_id=read_any_prompt_id,
    features=_FEATURES,
)

PROFILE_0_38 = Profile(
    name="0.38",
    comfyui_version="0.38.0",
    read_prompt_id=read_canonical_prompt_id,
    features=_FEATURES | {"node_replacements": True, "assets": False},
    nodes=NEWER_NODES,
    jobs=ExtendedJobDescriber(),
    lists_cached_outputs_without_client=True,
    names_cycles=True,
    cancels_jobs=True,
)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {profile.name: profile for profile in (PROFILE_0_12, PROFILE_0_38)}
)
