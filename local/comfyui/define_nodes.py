"""The words in which the definitions of stock nodes are written."""

from typing import Any

from local.comfyui.node_types import Input, NodeDefinition, NodeForm, Output

MAX_SIZE = 16384
MAX_BATCH = 4096
MAX_COLOR = 0xFFFFFF
MAX_UNSIGNED = 0xFFFFFFFFFFFFFFFF
MAX_SIGNED = 0x7FFFFFFFFFFFFFFF

RESIZE_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
METADATA = ("prompt", "extra_pnginfo")

IMAGE = Output("IMAGE", "IMAGE")
MASK = Output("MASK", "MASK")
AUDIO = Output("AUDIO", "AUDIO")
VIDEO = Output("VIDEO", "VIDEO")
STRING = Output("STRING", "STRING")


def classic(
    class_type: str,
    category: str,
    inputs: tuple[Input, ...],
    outputs: tuple[Output, ...] = (),
    *,
    module: str = "nodes",
    **more: Any,
) -> NodeDefinition:
    """Define a node of the older form."""
    return NodeDefinition(
        class_type, NodeForm.CLASSIC, module, category, inputs=inputs, outputs=outputs, **more
    )


def schema(
    class_type: str,
    module: str,
    category: str,
    inputs: tuple[Input, ...],
    outputs: tuple[Output, ...] = (),
    **more: Any,
) -> NodeDefinition:
    """Define a node of the newer form, from one of ComfyUI's extra modules."""
    return NodeDefinition(
        class_type,
        NodeForm.SCHEMA,
        f"comfy_extras.{module}",
        category,
        inputs=inputs,
        outputs=outputs,
        **more,
    )


def integer(name: str, **options: Any) -> Input:
    """Define an input for a whole number."""
    return Input(name, "INT", options)


def decimal(name: str, **options: Any) -> Input:
    """Define an input for any number."""
    return Input(name, "FLOAT", options)


def side(name: str, default: int = 512, lowest: int = 1, step: int = 1) -> Input:
    """Define an input for a length in pixels."""
    return integer(name, default=default, min=lowest, max=MAX_SIZE, step=step)


def seed(name: str = "seed") -> Input:
    """Define an input for the number that noise comes from."""
    return integer(name, default=0, min=0, max=MAX_UNSIGNED, control_after_generate=True)


def text(name: str, **options: Any) -> Input:
    """Define an input for a text."""
    return Input(name, "STRING", options)


def file_prefix(default: str) -> Input:
    """Define the input for the beginning of the names of saved files."""
    return text("filename_prefix", default=default, multiline=False)


def choice(name: str, *values: str, **options: Any) -> Input:
    """Define an input for one of several words."""
    return Input(name, values, options or None)
