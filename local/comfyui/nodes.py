"""All node implementations by class name."""

from collections.abc import Mapping
from types import MappingProxyType

from local.comfyui import (
    audio_nodes,
    image_nodes,
    mask_nodes,
    model_nodes,
    retouch_nodes,
    value_nodes,
    video_nodes,
)
from local.comfyui.node_run import NodeImplementation

NODE_IMPLEMENTATIONS: Mapping[str, NodeImplementation] = MappingProxyType(
    image_nodes.IMPLEMENTATIONS
    | retouch_nodes.IMPLEMENTATIONS
    | mask_nodes.IMPLEMENTATIONS
    | audio_nodes.IMPLEMENTATIONS
    | video_nodes.IMPLEMENTATIONS
    | value_nodes.IMPLEMENTATIONS
    | model_nodes.IMPLEMENTATIONS
)
