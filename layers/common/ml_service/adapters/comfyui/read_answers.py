"""What ComfyUI's answers say of a prompt."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ml_service.domain.errors import InstanceFaultyError
from ml_service.domain.prompts import NodeFailure, Progress, Prompt, PromptState


@contextmanager
def expecting_comfyui(call: str) -> Iterator[None]:
    """Raise InstanceFaultyError if an answer does not have the form that the block reads."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError):
        raise InstanceFaultyError(f"{call}: not an answer of ComfyUI") from None


def read_queue(answer: Any, prompt_id: str) -> Prompt | None:
    """The prompt as /queue lists it, None if it does not."""
    running = [item[1] for item in answer["queue_running"]]
    # The list is in heap order; prompts run in the order of number, then id.
    pending = [item[1] for item in sorted(answer["queue_pending"], key=lambda i: (i[0], i[1]))]
    copies = [*running, *pending].count(prompt_id)
    head = running[0] if running else ""
    if prompt_id in running:
        return Prompt(PromptState.RUNNING, copies=copies, head=head)
    if prompt_id in pending:
        position = len(running) + pending.index(prompt_id)
        return Prompt(PromptState.PENDING, position=position, copies=copies, head=head)
    return None


def read_history(answer: Any, prompt_id: str) -> Prompt | None:
    """The prompt as /history tells of its end, None if it does not."""
    entry = answer.get(prompt_id)
    if entry is None:
        return None
    status = entry["status"]
    if status["status_str"] == "success":
        return Prompt(PromptState.SUCCEEDED, outputs=entry["outputs"])
    for event, data in status["messages"]:
        if event == "execution_interrupted":
            return Prompt(PromptState.INTERRUPTED)
        if event == "execution_error":
            failure = NodeFailure(
                node_id=str(data["node_id"]),
                class_type=str(data["node_type"]),
                exception_type=str(data["exception_type"]),
                message=str(data.get("exception_message", "")),
            )
            return Prompt(PromptState.FAILED, failure=failure)
    return Prompt(PromptState.FAILED)


def read_progress(nodes: Mapping[str, Mapping[str, Any]]) -> Progress:
    """The progress that a ``progress_state`` event tells."""
    done = sum(node["state"] == "finished" for node in nodes.values())
    for node_id, node in nodes.items():
        if node["state"] == "running":
            return Progress(done, node_id, min(node["value"] / max(node["max"], 1e-9), 1.0))
    return Progress(done)


def explain_refusal(answer: Mapping[str, Any], status: int) -> str:
    """Nodes, classes and error types: the details may quote the prompt."""
    error = answer.get("error") or {}
    faults = [
        f"node {node} ({errors.get('class_type', '?')}): {fault.get('type', '?')}"
        for node, errors in (answer.get("node_errors") or {}).items()
        for fault in errors.get("errors", [])
    ]
    reasons = [str(error["type"])] if "type" in error else [] if faults else [f"status {status}"]
    return f"ComfyUI refused the prompt: {'; '.join([*reasons, *faults])}."
