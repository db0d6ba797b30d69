"""The test nodes of the recorded server: one that takes its time and one that fails."""

import time
from functools import partial

from local.comfyui.image_values import Batch
from local.comfyui.node_catalog import CustomNode
from local.comfyui.node_run import NodeResult, NodeRun, OutOfMemoryError
from local.comfyui.node_types import Input, NodeDefinition, NodeForm, Output


def sleep(
    speed: float,
    run: NodeRun,
    *,
    image: Batch,
    seconds: float,
    steps: int,
    seed: int,
    preview: bool,
) -> NodeResult:
    del seed
    for step in range(1, steps + 1):
        time.sleep(seconds / steps / speed)
        run.report_progress(step, steps, image[0] if preview else None)
    return NodeResult((image,))


def fail(_run: NodeRun, *, image: Batch, kind: str, seed: int) -> NodeResult:
    del image, seed
    if kind == "oom":
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB (ml_test)")
    raise ValueError("ml_test: deliberate failure")


def define(class_type: str, *inputs: Input) -> NodeDefinition:
    return NodeDefinition(
        class_type,
        NodeForm.CLASSIC,
        "custom_nodes.ml_test",
        "ml_test",
        inputs=(Input("image", "IMAGE"), *inputs, Input("seed", "INT")),
        outputs=(Output("IMAGE", "IMAGE"),),
    )


def make_recorded_nodes(speed: float = 5) -> tuple[CustomNode, ...]:
    """Return the nodes; the recorded server slept as long as it was told, at speed 1."""
    return (
        CustomNode(
            define(
                "MLSleep",
                Input("seconds", "FLOAT"),
                Input("steps", "INT"),
                Input("preview", "BOOLEAN"),
            ),
            partial(sleep, speed),
        ),
        CustomNode(define("MLFail", Input("kind", ("exception", "oom"))), fail),
    )
