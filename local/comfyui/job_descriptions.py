"""Describes prompts as the jobs of /api/jobs, in the words of an older and a newer ComfyUI."""

from collections.abc import Mapping
from typing import Any

from local.comfyui.prompt_queue import QueuedPrompt

# Lists under these names can be shown to a person, and so can files that say so by their format.
_PREVIEWABLE_KINDS = ("images", "video", "audio", "3d", "text")
_PREVIEWABLE_FORMATS = ("video/", "audio/")
_SHAPE_EXTENSIONS = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
_LONGEST_TEXT_PREVIEW = 1024

_Output = tuple[str, str, Any]


class JobDescriber:
    """The jobs as ComfyUI 0.12 describes them."""

    def describe_waiting(self, item: QueuedPrompt, status: str) -> dict[str, Any]:
        """Describe a prompt of the queue."""
        described = _describe(item.prompt_id, status, item.number, item.extra_data)
        return described | {"outputs_count": 0}

    def describe_waiting_in_full(self, item: QueuedPrompt, status: str) -> dict[str, Any]:
        """Describe a prompt of the queue that was asked for by its id."""
        return self.describe_waiting(item, status)

    def describe_ended(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Describe a prompt of the history."""
        number, prompt_id, _, extra_data, _ = entry["prompt"]
        messages = dict(entry["status"]["messages"])
        if entry["status"]["completed"]:
            status = "completed"
        else:
            status = "cancelled" if "execution_interrupted" in messages else "failed"
        timestamps = [data["timestamp"] for data in messages.values()]
        described = _describe(prompt_id, status, number, extra_data) | {
            "execution_start_time": timestamps[0],
            "execution_end_time": timestamps[-1],
        }
        if "execution_error" in messages:
            described["execution_error"] = messages["execution_error"]
        return described | self._summarize(_list_outputs(entry))

    def describe_ended_in_full(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Describe a prompt of the history with its outputs and its graph."""
        _, _, prompt, extra_data, _ = entry["prompt"]
        return self.describe_ended(entry) | {
            "outputs": entry["outputs"],
            "execution_status": entry["status"],
            "workflow": {"prompt": prompt, "extra_data": extra_data},
        }

    def _summarize(self, outputs: list[_Output]) -> dict[str, Any]:
        summary: dict[str, Any] = {"outputs_count": len(outputs)}
        shown = _list_previewable(outputs)
        if shown:
            summary["preview_output"] = _preview(shown)
        return summary


class ExtendedJobDescriber(JobDescriber):
    """The jobs as ComfyUI 0.38 describes them.

    Texts are no outputs, but can be the preview, and the name of a 3D file is that file.
    """

    def describe_waiting(self, item: QueuedPrompt, status: str) -> dict[str, Any]:
        """Describe a prompt of the queue."""
        return super().describe_waiting(item, status) | {"previewable_outputs_count": 0}

    def describe_waiting_in_full(self, item: QueuedPrompt, status: str) -> dict[str, Any]:
        """Describe a prompt of the queue with its graph."""
        workflow = {"prompt": item.prompt, "extra_data": item.extra_data}
        return self.describe_waiting(item, status) | {"workflow": workflow}

    def describe_ended(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Describe a prompt of the history."""
        return super().describe_ended({**entry, "outputs": _name_shapes(entry["outputs"])})

    def describe_ended_in_full(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Describe a prompt of the history with its outputs, files alike, and its graph."""
        return super().describe_ended_in_full(entry) | {"outputs": _name_shapes(entry["outputs"])}

    def _summarize(self, outputs: list[_Output]) -> dict[str, Any]:
        files = [output for output in outputs if isinstance(output[2], dict)]
        shown = _list_previewable(outputs)
        summary: dict[str, Any] = {
            "outputs_count": len(files),
            "previewable_outputs_count": len(shown),
        }
        texts = [output for output in outputs if isinstance(output[2], str)]
        if shown:
            summary["preview_output"] = _preview(shown)
        elif texts:
            summary["preview_output"] = _text_preview(texts[0])
        return summary


def _describe(
    prompt_id: str, status: str, number: float, extra_data: dict[str, Any]
) -> dict[str, Any]:
    described = {
        "id": prompt_id,
        "status": status,
        "priority": number,
        "create_time": extra_data["create_time"],
    }
    extra_info = extra_data.get("extra_pnginfo") or {}
    workflow_id = (extra_info.get("workflow") or {}).get("id")
    return described if workflow_id is None else described | {"workflow_id": workflow_id}


def _list_outputs(entry: Mapping[str, Any]) -> list[_Output]:
    return [
        (node_id, kind, item)
        for node_id, shown in entry["outputs"].items()
        for kind, items in shown.items()
        if kind != "animated"
        for item in items
    ]


def _list_previewable(outputs: list[_Output]) -> list[_Output]:
    return [
        output
        for output in outputs
        if isinstance(output[2], dict) and _is_previewable(output[1], output[2])
    ]


def _is_previewable(kind: str, item: Mapping[str, Any]) -> bool:
    return (
        kind in _PREVIEWABLE_KINDS
        or str(item.get("format", "")).startswith(_PREVIEWABLE_FORMATS)
        or str(item.get("filename", "")).lower().endswith(_SHAPE_EXTENSIONS)
    )


def _name_shapes(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return outputs with a file in place of each text that is the name of a 3D file."""
    return {
        node_id: {kind: [_name_shape(item) for item in items] for kind, items in shown.items()}
        for node_id, shown in outputs.items()
    }


def _name_shape(item: Any) -> Any:
    if isinstance(item, str) and item.lower().endswith(_SHAPE_EXTENSIONS):
        return {"filename": item, "type": "output", "subfolder": "", "mediaType": "3d"}
    return item


def _preview(shown: list[_Output]) -> dict[str, Any]:
    """Return the first file that is kept, or else the first that is temporary."""
    saved = [output for output in shown if output[2].get("type") == "output"]
    node_id, kind, item = (saved or shown)[0]
    return {"mediaType": kind, **item, "nodeId": node_id}


def _text_preview(output: _Output) -> dict[str, Any]:
    node_id, kind, text = output
    preview = {"content": text[:_LONGEST_TEXT_PREVIEW], "nodeId": node_id, "mediaType": kind}
    return preview | ({"truncated": True} if len(text) > _LONGEST_TEXT_PREVIEW else {})
