"""Stock nodes that ComfyUI 0.38 has and 0.12 has not."""

from typing import Any

from local.comfyui.define_nodes import decimal, schema
from local.comfyui.model_values import Ingredient, combine
from local.comfyui.node_catalog import CustomNode
from local.comfyui.node_run import NodeResult, NodeRun
from local.comfyui.node_types import Input, ModelKind, NodeDefinition, Output, RowGroup

_LORAS = RowGroup(
    "LoRA",
    (
        Input("lora_name", ModelKind("loras")),
        decimal("strength", default=1.0, min=-100.0, max=100.0, step=0.01),
    ),
    fewest=1,
    most=20,
)


def apply_loras_to_model(_run: NodeRun, *, model: Ingredient, **loras: Any) -> NodeResult:
    """LoadLoraModel: the model as several LoRAs change it."""
    return NodeResult((combine(model, loras),))


def apply_loras_to_clip(_run: NodeRun, *, clip: Ingredient, **loras: Any) -> NodeResult:
    """LoadLoraTextEncoder: the text encoder as several LoRAs change it."""
    return NodeResult((combine(clip, loras),))


def _define(class_type: str, taken: str, display_name: str) -> NodeDefinition:
    return schema(
        class_type,
        "nodes_lora_stack",
        "model/loaders",
        (Input(taken.lower(), taken), Input("loras", _LORAS)),
        (Output(taken, taken),),
        display_name=display_name,
    )


NEWER_NODES = (
    CustomNode(_define("LoadLoraModel", "MODEL", "Load LoRA (Model)"), apply_loras_to_model),
    CustomNode(
        _define("LoadLoraTextEncoder", "CLIP", "Load LoRA (Text Encoder)"), apply_loras_to_clip
    ),
)
